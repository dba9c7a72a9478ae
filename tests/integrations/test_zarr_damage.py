"""The Zarr codec: chunks that are damaged, and metadata that is forged."""

import asyncio
import importlib.metadata
import json
import tracemalloc

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore

from persianrug.integrations.zarr import SketchCodec
from tests.integrations.helpers import ESTIMATES, SEAL, K, N, X, array_of, chunk_of, sketch_of

DAMAGE = {
    "first bit": lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:],
    "middle bit": lambda chunk: chunk[:5000] + bytes([chunk[5000] ^ 64]) + chunk[5001:],
    "last bit": lambda chunk: chunk[:-1] + bytes([chunk[-1] ^ 128]),
    "one byte less": lambda chunk: chunk[:-1],
    "a row less": lambda chunk: chunk[4 * K :],
    "a row less before the seal": lambda chunk: chunk[: -SEAL - 4 * K] + chunk[-SEAL:],
    "one byte more": lambda chunk: chunk + b"\0",
    "a row more": lambda chunk: bytes(4 * K) + chunk,
    "the seal alone": lambda chunk: chunk[-SEAL:],
    "nothing": lambda chunk: b"",
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGE)
    def test_is_seen(self, tmp_path, name):
        array = array_of(LocalStore(tmp_path))
        array[:] = X
        path = tmp_path / "c/0/0"
        path.write_bytes(DAMAGE[name](path.read_bytes()))
        for read in (lambda: array[:], lambda: array[10:20], lambda: array[3, 5]):
            with pytest.raises(ValueError, match="chunk is damaged: its checksum does not fit"):
                read()
        # Nor is it written to, but over.
        with pytest.raises(ValueError, match="chunk is damaged"):
            array[10:20] = X[10:20]
        np.testing.assert_array_equal(array[256:], ESTIMATES[256:])
        array[:256] = X[:256]
        np.testing.assert_array_equal(array[:], ESTIMATES)

    def test_of_another_size(self):
        # A chunk that is whole, but of fewer rows.
        stores = MemoryStore(), MemoryStore()
        array = array_of(stores[0])
        array[:] = X
        array_of(stores[1], chunks=(100, N))[:] = X
        asyncio.run(stores[0].set("c/0/0", zarr.core.buffer.cpu.Buffer.from_bytes(chunk_of(stores[1]))))
        with pytest.raises(ValueError, match="chunk is damaged"):
            array[:]

    def test_of_another_codec(self):
        # Of the same shape, and of other features.
        stores = MemoryStore(), MemoryStore()
        array = array_of(stores[0])
        array[:] = X
        array_of(stores[1], SketchCodec.of(sketch_of(seed=1)))[:] = X
        asyncio.run(stores[0].set("c/0/0", zarr.core.buffer.cpu.Buffer.from_bytes(chunk_of(stores[1]))))
        with pytest.raises(ValueError, match="chunk is damaged"):
            array[:]


FORGED = [
    (("version",), 2, "version of codec persianrug.sketch is 2; allowed: 1"),
    (("version",), None, "version of codec persianrug.sketch is None"),
    (("version",), [1], "version of codec"),
    (("decoder",), "os.system", "decoder is 'os.system'; allowed: linear, relu"),
    (("decoder",), ["bayes"], "decoder is "),
    (("bits",), 1 << 40, "bits is 1099511627776"),
    (("bits",), None, "its centre has another size"),
    (("encoder", "name"), "dense", "encoder is 'dense'"),
    (("encoder", "n_sparse"), 1 << 30, "source has 64 features"),
    (("encoder", "n_sparse"), 1 << 80, "n_sparse is "),
    (("encoder", "n_dense"), N - 1, "its centre has another size"),
    (("encoder", "n_dense"), 1 << 30, "n_dense is "),
    (("encoder",), 5, "of no sketch"),
    (("source",), [], "of no sketch"),
    (("source", "name"), "evil", "source is 'evil'"),
    (("source", "p"), 0.1, "its source has None features of 64"),
    (("source", "p", "shape"), [1 << 40], "cannot reshape"),
    (("source", "p", "dtype"), "|O8", "an array has type '|O8'"),
    (("source", "p", "dtype"), "(1000000,)f8", "an array has type"),
    (("source", "p", "dtype"), "f4,(", "of no sketch"),
    (("source", "p", "base64"), "!!", "of no sketch"),
    (("step",), -1.0, "step is -1"),
    (("step",), float("inf"), "step is inf"),
    (("noise",), -1.0, "noise is -1"),
    (("centre", "shape"), [K - 1], "cannot reshape"),
    (("more",), 1, "of no sketch"),
]


class TestForgery:
    @pytest.mark.parametrize(("path", "value", "message"), FORGED)
    def test_is_refused(self, path, value, message):
        store = MemoryStore()
        array_of(store, SketchCodec.of(sketch_of(8)))
        content = json.loads(chunk_of(store, "zarr.json"))
        part = content["codecs"][0]["configuration"]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        forged = zarr.core.buffer.cpu.Buffer.from_bytes(json.dumps(content).encode())
        asyncio.run(store.set("zarr.json", forged))
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=message):
                zarr.open_array(store)
            assert tracemalloc.get_traced_memory()[1] < 1 << 21
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("data", [{}, {"name": "bytes"}, {"name": "persianrug.sketch", "configuration": 5}])
    def test_is_none(self, data):
        with pytest.raises(ValueError, match="codec"):
            SketchCodec.from_dict(data)

    def test_zarr_finds_it_by_itself(self):
        (found,) = importlib.metadata.entry_points(group="zarr.codecs", name="persianrug.sketch")
        assert found.load() is SketchCodec
