""".rug files, written and taken apart."""

import json
import struct

import numpy as np
import torch

import persianrug as pr

N, K, ROWS, CHUNK = 64, 16, 40, 7
SOURCE = pr.SparseTruncatedNormal(pr.zipf_rates(N, 0.1), 0.5, 1.0)
MAGIC = b"\x89RUG\r\n\x1a\n"
RECORD = struct.Struct("<4sIQ")
SEAL = 16


def sketch_of(bits=None, n_dense=K, seed=0):
    return pr.Sketch(SOURCE, pr.Rug(N, n_dense, seed), bits)


def codes_of(sketch, rows=ROWS, dtype=torch.float32, seed=0):
    return sketch.encode(SOURCE.sample(rows, N, seed=seed, dtype=dtype).numpy())


def written(path, codes, sketch, chunk_rows=CHUNK, **options):
    with pr.RugWriter(path, sketch, chunk_rows=chunk_rows, **options) as writer:
        writer.write(codes)
    return path


def rows_of(reader):
    return np.asarray(reader[:])


def parts_of(content):
    """The header, the place where records start, and every record."""
    assert content[:8] == MAGIC
    (length,) = struct.unpack("<Q", content[8:16])
    header, place = json.loads(content[16 : 16 + length]), 16 + length + SEAL
    width = {"<f4": 32, "<f8": 64}[header["dtype"]] if header["bits"] is None else header["bits"]
    row_bytes = -(-header["n_dense"] * width // 8)
    start, records = place, []
    while place < len(content):
        _, rows, _ = RECORD.unpack(content[place : place + RECORD.size])
        size = RECORD.size + rows * row_bytes + SEAL
        records.append(content[place : place + size])
        place += size
    assert place == len(content)
    return header, start, records
