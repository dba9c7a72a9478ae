"""Zarr arrays whose chunks are sketches."""

import asyncio

import torch
import zarr

import persianrug as pr
from persianrug.integrations.zarr import SketchCodec

N, K, ROWS, CHUNK = 64, 24, 600, 256
SOURCE = pr.SparseTruncatedNormal(pr.zipf_rates(N, 0.1), 0.5, 1.0)
SEAL = 16


def sketch_of(bits=None, decoder="bayes", seed=0, source=SOURCE):
    return pr.Sketch(source, pr.Rug(N, K, seed), bits, decoder)


def rows_of(rows=ROWS, dtype=torch.float32, seed=0):
    return SOURCE.sample(rows, N, seed=seed, dtype=dtype).numpy()


X = rows_of()
CODEC = SketchCodec.of(sketch_of())
ESTIMATES = sketch_of().decode(sketch_of().encode(X))


def array_of(store, codec=CODEC, **options):
    defaults = {"shape": X.shape, "chunks": (CHUNK, N), "dtype": "float32", "compressors": None}
    return zarr.create_array(store, serializer=codec, **{**defaults, **options})


def chunk_of(store, key="c/0/0"):
    """The bytes of a chunk, None where there is none."""
    found = asyncio.run(store.get(key, zarr.core.buffer.default_buffer_prototype()))
    return None if found is None else found.to_bytes()
