"""The Zarr codec: round trips on real stores, codes that stay as they are, and what is refused."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zarr
from zarr.storage import LocalStore, MemoryStore

import persianrug as pr
from persianrug.integrations.zarr import SketchCodec
from tests.integrations.helpers import (
    CHUNK,
    CODEC,
    ESTIMATES,
    ROWS,
    SEAL,
    K,
    N,
    X,
    array_of,
    chunk_of,
    rows_of,
    sketch_of,
)

WIDTHS = {None: 4 * K, 8: K, 5: 5 * K // 8}


@pytest.fixture(params=[MemoryStore, LocalStore])
def store(request, tmp_path):
    return MemoryStore() if request.param is MemoryStore else LocalStore(tmp_path / "array.zarr")


LAYOUTS = {
    "plain": {},
    "compressed": {"compressors": "auto"},
    "sharded": {"shards": (512, N), "chunks": (128, N)},
    "sharded, compressed": {"shards": (512, N), "chunks": (128, N), "compressors": "auto"},
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


class TestRoundTrips:
    def test_floats_exactly(self, store):
        array = array_of(store)
        array[:] = X
        np.testing.assert_array_equal(array[:], ESTIMATES)
        # What is read is no copy of what was written, and better than the mean.
        assert 0 < np.square(array[:] - X).mean() < 0.5 * X.var(axis=0).mean()

    @pytest.mark.parametrize("bits", [8, 5])
    def test_bits(self, store, bits):
        sketch = sketch_of(bits)
        codec = SketchCodec.of(sketch)
        array = array_of(store, codec)
        array[:] = X
        codes = codec.codes(chunk_of(store))
        expected = sketch.encode(X)
        # The same levels; the last digits of the numbers that they stand for may differ.
        np.testing.assert_allclose(
            np.asarray(codes), np.asarray(expected[:CHUNK]), atol=1e-4 * sketch.quantiser.step
        )
        assert codes.mixture == expected.mixture
        np.testing.assert_array_equal(array[:CHUNK], sketch.decode(codes))
        np.testing.assert_allclose(array[:], sketch.decode(expected), atol=1e-5)

    @pytest.mark.parametrize("bits", [None, 8])
    def test_doubles(self, bits):
        x = rows_of(dtype=torch.float64)
        sketch = sketch_of(bits)
        store = MemoryStore()
        array = array_of(store, SketchCodec.of(sketch), dtype="float64")
        array[:] = x
        assert array.dtype == np.float64
        np.testing.assert_allclose(
            array[:], sketch.decode(sketch.encode(x)), rtol=0, atol=0 if bits is None else 1e-12
        )
        assert len(chunk_of(store)) == CHUNK * (8 * K if bits is None else K) + SEAL

    def test_layouts(self, layout):
        array = array_of(MemoryStore(), **layout)
        array[:] = X
        np.testing.assert_array_equal(array[:], ESTIMATES)

    def test_foreign_byte_order(self):
        array = array_of(MemoryStore(), dtype=">f4")
        array[:] = X.astype(">f4")
        np.testing.assert_array_equal(array[:], ESTIMATES)

    def test_input_is_left_as_it_is(self):
        x = X.copy()
        x.flags.writeable = False
        array = array_of(MemoryStore())
        array[:] = x
        np.testing.assert_array_equal(x, X)

    def test_more_axes(self):
        cube, estimates = X.reshape(6, 100, N), ESTIMATES.reshape(6, 100, N)
        array = array_of(MemoryStore(), shape=cube.shape, chunks=(4, 30, N))
        array[:] = cube
        np.testing.assert_array_equal(array[:], estimates)
        np.testing.assert_array_equal(array[3, 25:70, 5], estimates[3, 25:70, 5])
        array[2, 7] = X[0]
        np.testing.assert_array_equal(array[2, 7], ESTIMATES[0])
        np.testing.assert_array_equal(array[2, 8:], estimates[2, 8:])

    def test_one_axis(self):
        array = array_of(MemoryStore(), shape=(N,), chunks=(N,))
        array[:] = X[0]
        np.testing.assert_array_equal(array[:], ESTIMATES[0])

    @pytest.mark.parametrize("bits", [None, 8, 3])
    def test_the_law_holds(self, bits):
        source = pr.SparseTruncatedNormal(pr.zipf_rates(512, 0.05), 0.5, 1.0)
        sketch = pr.Sketch(source, pr.Rug(512, 192), bits)
        x = source.sample(3000, 512, seed=1, dtype=torch.float32).numpy()
        array = array_of(MemoryStore(), SketchCodec.of(sketch), shape=x.shape, chunks=(500, 512))
        array[:] = x
        losses = np.square(array[:].astype(np.float64) - x).mean(axis=1)
        assert abs(losses.mean() - sketch.law()) < 4 * losses.std() / 3000**0.5 + 0.03 * sketch.law()

    def test_a_fitted_sketcher(self):
        sketcher = pr.Sketcher(ratio=0.4).fit(X)
        array = array_of(MemoryStore(), SketchCodec.of(sketcher.sketch_))
        array[:] = X
        np.testing.assert_allclose(array[:], sketcher.decode(sketcher.encode(X)), atol=1e-5)

    def test_signed_features(self):
        source = pr.SparseGaussian(pr.zipf_rates(N, 0.1))
        x = source.sample(50, N, seed=0, dtype=torch.float32).numpy()
        sketch = sketch_of(source=source)
        array = array_of(MemoryStore(), SketchCodec.of(sketch), shape=x.shape, fill_value=-1)
        array[:] = x
        np.testing.assert_array_equal(array[:], sketch.decode(sketch.encode(x)))

    def test_features_that_are_alike(self):
        sketch = sketch_of(source=pr.SparseUniform(0.1), decoder="relu")
        array = array_of(MemoryStore(), SketchCodec.of(sketch))
        array[:] = X
        np.testing.assert_allclose(array[:], sketch.decode(sketch.encode(X)), atol=1e-5)

    def test_many_threads(self):
        # None of them is tuned when the threads begin.
        codec = SketchCodec.of(sketch_of(8, "oamp"))
        array = array_of(MemoryStore(), codec, chunks=(20, N))
        parts = [slice(start, start + 20) for start in range(0, ROWS, 20)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda part: array.__setitem__(part, X[part]), parts))
            found = list(pool.map(lambda part: array[part], parts))
        np.testing.assert_array_equal(np.concatenate(found), array[:])
        assert np.square(array[:] - X).mean() < 1.1 * np.square(ESTIMATES - X).mean()


class TestSizes:
    @pytest.mark.parametrize("bits", WIDTHS)
    def test_on_disk(self, tmp_path, bits):
        codec = SketchCodec.of(sketch_of(bits))
        array = array_of(LocalStore(tmp_path), codec)
        array[:] = X
        # The last chunk is as large as the others.
        sizes = [(tmp_path / "c" / str(chunk) / "0").stat().st_size for chunk in range(3)]
        assert sizes == [CHUNK * WIDTHS[bits] + SEAL] * 3

    def test_known_before(self):
        store = MemoryStore()
        array_of(store)[:] = X
        spec = zarr.core.array_spec.ArraySpec(
            (CHUNK, N), zarr.core.dtype.Float32(), 0, zarr.core.array_spec.ArrayConfig("C", False),
            zarr.core.buffer.default_buffer_prototype(),
        )  # fmt: skip
        assert CODEC.is_fixed_size
        assert CODEC.compute_encoded_size(4 * CHUNK * N, spec) == len(chunk_of(store))


SELECTIONS = {
    "rows": lambda a: a[10:20],
    "across chunks": lambda a: a[200:300],
    "steps": lambda a: a[3:590:7, 5:60:4],
    "a row": lambda a: a[-1],
    "a number": lambda a: a[3, 5],
    "a feature": lambda a: a[:, 7],
    "none": lambda a: a[5:5],
}


class TestReading:
    @pytest.mark.parametrize("name", SELECTIONS)
    def test_selections(self, layout, name):
        array = array_of(MemoryStore(), **layout)
        array[:] = X
        np.testing.assert_array_equal(SELECTIONS[name](array), SELECTIONS[name](ESTIMATES))

    def test_fancy_selections(self, layout):
        array = array_of(MemoryStore(), **layout)
        array[:] = X
        rows, columns = np.array([3, 400, 3, 599]), np.array([5, 6, 6, 63])
        np.testing.assert_array_equal(array.oindex[rows, :], ESTIMATES[rows])
        np.testing.assert_array_equal(array.oindex[rows, 5], ESTIMATES[rows, 5])
        np.testing.assert_array_equal(array.oindex[rows, columns], ESTIMATES[np.ix_(rows, columns)])
        np.testing.assert_array_equal(array.vindex[rows, columns], ESTIMATES[rows, columns])
        np.testing.assert_array_equal(array.get_mask_selection(X > 2), ESTIMATES[X > 2])

    def test_only_rows_that_are_asked_for_are_decoded(self, monkeypatch):
        array = array_of(MemoryStore())
        array[:] = X
        decoded, plain = [], pr.Sketch.decode
        monkeypatch.setattr(
            pr.Sketch, "decode", lambda self, codes: decoded.append(len(codes)) or plain(self, codes)
        )
        array[250:260]
        assert sorted(decoded) == [4, 6]

    def test_missing_chunks(self, store):
        array = array_of(store, fill_value=0.5)
        array[256:300] = X[256:300]
        assert (array[:256] == 0.5).all()
        assert (array[512:] == 0.5).all()
        np.testing.assert_array_equal(array[256:300], ESTIMATES[256:300])
        # The rest of a stored chunk is an estimate of the fill value.
        half = np.full((1, N), 0.5, dtype=np.float32)
        np.testing.assert_array_equal(array[300:301], sketch_of().decode(sketch_of().encode(half)))

    def test_chunks_of_nothing_are_not_stored(self, layout):
        store = MemoryStore()
        array = array_of(store, **layout)
        array[:] = 0
        assert chunk_of(store) is None
        array[:] = X
        assert chunk_of(store) is not None
        array[:512] = 0
        assert chunk_of(store) is None
        assert not array[:512].any()

    def test_the_last_chunk_of_nothing_is_not_stored(self):
        store = MemoryStore()
        array = array_of(store)
        array[:] = X
        array[:] = 0
        assert chunk_of(store, "c/2/0") is None
        array[590:] = X[590:]
        array[590:595] = 0
        assert chunk_of(store, "c/2/0") is not None

    def test_write_empty_chunks(self):
        store = MemoryStore()
        array = array_of(store, config={"write_empty_chunks": True})
        array[:] = 0
        assert chunk_of(store) is not None


class TestWriting:
    @pytest.mark.parametrize("name", ["plain", "sharded"])
    def test_codes_of_other_rows_stay(self, name):
        array = array_of(MemoryStore(), **LAYOUTS[name])
        array[:] = X
        for start in range(0, 100, 10):
            array[start : start + 10] = X[300 + start : 310 + start]
        array[200] = X[0]
        np.testing.assert_array_equal(array[:100], ESTIMATES[300:400])
        np.testing.assert_array_equal(array[200], ESTIMATES[0])
        np.testing.assert_array_equal(array[100:200], ESTIMATES[100:200])
        np.testing.assert_array_equal(array[201:], ESTIMATES[201:])

    @pytest.mark.parametrize("bits", [None, 5])
    def test_append(self, store, bits):
        sketch = sketch_of(bits)
        array = array_of(store, SketchCodec.of(sketch), shape=(0, N))
        for start in range(0, ROWS, 40):
            array.append(X[start : start + 40])
        atol = 0 if bits is None else 1e-5
        np.testing.assert_allclose(array[:], sketch.decode(sketch.encode(X)), rtol=0, atol=atol)

    def test_resize(self):
        array = array_of(MemoryStore())
        array[:] = X
        array.resize((300, N))
        np.testing.assert_array_equal(array[:], ESTIMATES[:300])
        array.resize((1000, N))
        assert not array[512:].any()
        array[300:600] = X[300:]
        np.testing.assert_array_equal(array[:600], ESTIMATES)

    def test_some_features(self):
        store = MemoryStore()
        array = array_of(store)
        array[:] = X
        merged = ESTIMATES[:20].copy()
        merged[3:9, 5] = 2
        array[3:9, 5] = 2
        expected = sketch_of().decode(sketch_of().encode(merged))
        np.testing.assert_array_equal(array[3:9], expected[3:9])
        np.testing.assert_array_equal(array[9:], ESTIMATES[9:])
        array.oindex[[10, 12], 7] = np.array([1.0, 2.0], dtype=np.float32)
        merged[[10, 12], 7] = [1, 2]
        np.testing.assert_array_equal(array[[10, 12]], sketch_of().decode(sketch_of().encode(merged))[[10, 12]])
        array.vindex[[13, 14], [7, 8]] = np.array([1.0, 2.0], dtype=np.float32)
        merged[[13, 14], [7, 8]] = [1, 2]
        np.testing.assert_array_equal(array[13:15], sketch_of().decode(sketch_of().encode(merged))[13:15])

    def test_whole_chunks_with_compressors(self):
        array = array_of(MemoryStore(), compressors="auto")
        for start in range(0, ROWS, CHUNK):
            array[start : start + CHUNK] = X[start : start + CHUNK]
        np.testing.assert_array_equal(array[:], ESTIMATES)


class TestCodes:
    def test_add_up(self, tmp_path):
        other = rows_of(seed=1)
        chunks = []
        for name, rows in (("one", X), ("two", other)):
            array_of(LocalStore(tmp_path / name))[:] = rows
            chunks.append((tmp_path / name / "c/0/0").read_bytes())
        one, two = map(CODEC.codes, chunks)
        both, expected = one + two, sketch_of().encode((X + other)[:CHUNK])
        np.testing.assert_allclose(np.asarray(both), np.asarray(expected), atol=1e-5)
        total = CODEC.sketch.decode(both)
        assert np.square(total - (X + other)[:CHUNK]).mean() < 0.5 * (X + other).var(axis=0).mean()

    def test_of_another_dtype(self):
        store = MemoryStore()
        array_of(store, dtype="float64")[:] = X
        assert CODEC.codes(chunk_of(store), "float64").dtype == np.float64
        with pytest.raises(ValueError, match="chunk is damaged"):
            CODEC.codes(chunk_of(store))
        with pytest.raises(ValueError, match="dtype is 'int8'; allowed: float32, float64"):
            CODEC.codes(chunk_of(store), "int8")


class TestMetadata:
    def test_json(self, tmp_path):
        array_of(LocalStore(tmp_path), SketchCodec.of(sketch_of(8)))
        content = json.loads((tmp_path / "zarr.json").read_text())
        (codec,) = content["codecs"]
        assert codec["name"] == "persianrug.sketch"
        configuration = codec["configuration"]
        assert configuration["version"] == 1
        assert configuration["encoder"] == pr.Rug(N, K).recipe()
        assert (configuration["bits"], configuration["decoder"]) == (8, "bayes")
        assert configuration["step"] == sketch_of(8).quantiser.step

    @pytest.mark.parametrize("bits", [None, 8])
    def test_survives(self, store, bits):
        codec = SketchCodec.of(sketch_of(bits, "relu"))
        array = array_of(store, codec)
        array[:] = X
        again = zarr.open_array(store)
        assert again.metadata == array.metadata
        assert again.serializer == codec
        assert again.serializer.sketch.source == codec.sketch.source
        np.testing.assert_array_equal(again[:], array[:])
        assert str(again.serializer) == f"SketchCodec({pr.Rug(N, K)}, bits={bits}, decoder='relu')"

    def test_equality(self):
        same, others = (
            SketchCodec.of(sketch_of()),
            [SketchCodec.of(sketch_of(8)), SketchCodec.of(sketch_of(seed=1))],
        )
        assert same == CODEC
        assert hash(same) == hash(CODEC)
        assert all(other != CODEC for other in others)
        assert pickle.loads(pickle.dumps(CODEC)) == CODEC

    @pytest.mark.parametrize("bits", [None, 8])
    def test_another_process(self, tmp_path, bits):
        array = array_of(LocalStore(tmp_path / "array.zarr"), SketchCodec.of(sketch_of(bits)))
        array[:] = X
        script = (
            "import zarr, persianrug.integrations.zarr\n"
            "array = zarr.open_array('array.zarr', mode='r+')\n"
            "zarr.save('copy.zarr', array[:])\n"
            "array[5] = 0\n"
        )
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=100)
        before = array[:6]
        np.testing.assert_array_equal(zarr.load(tmp_path / "copy.zarr")[6:], array[6:])
        np.testing.assert_array_equal(zarr.load(tmp_path / "copy.zarr")[:5], before[:5])
        assert np.abs(before[5]).max() < 0.5 * X[5].max()


REFUSED = {
    "features in two chunks": ({"chunks": (CHUNK, N // 2)}, r"chunks is \(256, 32\); allowed: whole rows, \("),
    "other features": ({"shape": (ROWS, N + 1), "chunks": (CHUNK, N + 1)}, r"is \(600, 65\); allowed: "),
    "features twice": ({"shape": (ROWS, 2 * N)}, r"is \(600, 128\); allowed: \(..., 64\)"),
    "features in two chunks of a shard": (
        {"shards": (512, N), "chunks": (128, N // 2)}, r"is \(128, 32\); allowed: \(..., 64\)",
    ),
    "no axes": ({"shape": (), "chunks": ()}, r"is \(\); allowed: \(..., 64\)"),
    "integers": ({"dtype": "int32"}, "dtype is int32; allowed: float32, float64"),
    "halves": ({"dtype": "float16"}, "dtype is float16; allowed: float32, float64"),
    "complex": ({"dtype": "complex64"}, "dtype is complex64; allowed: float32, float64"),
    "negative fill": ({"fill_value": -1}, "fill_value is -1; allowed: a finite number >= 0"),
    "fill of NaN": ({"fill_value": np.nan}, "fill_value is nan; allowed: a finite number >= 0"),
}  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSED)
    def test_arrays(self, name):
        options, message = REFUSED[name]
        store = MemoryStore()
        with pytest.raises(ValueError, match=message):
            array_of(store, **options)
        assert not list(asyncio.run(_keys(store)))

    @pytest.mark.parametrize("rows", [-X, np.full_like(X, np.nan), np.full_like(X, np.inf)])
    def test_numbers(self, layout, rows):
        array = array_of(MemoryStore(), **layout)
        array[:] = X
        with pytest.raises(ValueError, match="rows holds"):
            array[:] = rows
        with pytest.raises(ValueError, match="rows holds"):
            array[3:5] = rows[3:5]
        np.testing.assert_array_equal(array[:], ESTIMATES)

    def test_other_features_later(self):
        array = array_of(MemoryStore())
        with pytest.raises(ValueError, match=r"is \(600, 65\); allowed: \(..., 64\)"):
            array.resize((ROWS, N + 1))

    def test_sketches(self):
        alike = pr.SparseUniform(0.1)
        with pytest.raises(ValueError, match="decoder is 'topk'; allowed where features differ"):
            SketchCodec.of(sketch_of(source=alike, decoder="topk"))
        with pytest.raises(ValueError, match=r"rug is KnottedRug\(.*\); allowed: a Rug"):
            SketchCodec.of(pr.Sketch(alike, pr.KnottedRug.weave(pr.knots.pair(), N, K)))

    def test_levels_that_another_version_chose(self):
        data = copy.deepcopy(SketchCodec.of(sketch_of(8)).to_dict())
        data["configuration"]["step"] *= 1.5
        codec = SketchCodec.from_dict(data)
        with pytest.raises(ValueError, match="step of codec"):
            array_of(MemoryStore(), codec)[:] = X


async def _keys(store):
    return [key async for key in store.list()]
