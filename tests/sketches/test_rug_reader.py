""".rug files as they are read: round trips, random access, pipes, and files of others."""

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import persianrug as pr
from tests.sketches.helpers.rugs import (
    CHUNK,
    MAGIC,
    ROWS,
    SOURCE,
    K,
    N,
    codes_of,
    parts_of,
    rows_of,
    sketch_of,
    written,
)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("chunk_rows", [1, 7, 40, 1000, None])
    def test_floats(self, dtype, chunk_rows, tmp_path):
        sketch = sketch_of()
        codes = codes_of(sketch, dtype=getattr(torch, dtype))
        written(tmp_path / "a.rug", codes, sketch, chunk_rows, dtype=dtype)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert len(reader) == ROWS
            assert reader.problem is None
            assert not reader.cut_off
            assert reader.verify() == ROWS
            back = reader[:]
            assert back.dtype == dtype
            assert np.array_equal(np.asarray(back), np.asarray(codes))
            assert (back.mixture, back.bits, back.digest) == (codes.mixture, None, codes.digest)
            parts = list(reader.chunks())
            assert all(len(part) <= (chunk_rows or ROWS) for part in parts)
            assert np.array_equal(np.asarray(pr.Codes.concatenate(parts)), np.asarray(codes))
            # The sketch is in the file, exactly.
            assert np.array_equal(reader.sketch.decode(back), sketch.decode(codes))

    @pytest.mark.parametrize("bits", range(1, 17))
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_levels(self, bits, dtype, tmp_path):
        # 13 entries of an odd number of bits do not fill their bytes.
        sketch = sketch_of(bits, n_dense=13)
        codes = codes_of(sketch, rows=200, dtype=getattr(torch, dtype))
        written(tmp_path / "a.rug", codes, sketch, dtype=dtype)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert (reader.verify(), reader.bits) == (200, bits)
            back = reader[:]

        def levels(codes):
            places = (np.asarray(codes, np.float64) - sketch.middle) / sketch.quantiser.step - 0.5
            assert np.abs(places - np.rint(places)).max() < 0.02
            return np.rint(places)

        assert np.array_equal(levels(back), levels(codes))
        assert -(2 ** (bits - 1)) <= levels(codes).min() < 0 <= levels(codes).max() < 2 ** (bits - 1)
        assert np.asarray(back) == pytest.approx(np.asarray(codes), rel=1e-5, abs=1e-5)
        assert back.dtype == dtype
        # What was read is written again as it is.
        written(tmp_path / "b.rug", back, sketch, dtype=dtype)
        assert (tmp_path / "b.rug").read_bytes() == (tmp_path / "a.rug").read_bytes()
        # That many bytes a row, and no more.
        assert len(parts_of((tmp_path / "a.rug").read_bytes())[2][0]) == 32 + CHUNK * math.ceil(13 * bits / 8)

    def test_features_that_are_far_from_0(self, tmp_path):
        # Their mean's code is large beside a level.
        source = pr.SparseTruncatedNormal(np.full(N, 1.0), 1.0, 1000.0)
        sketch = pr.Sketch(source, pr.Rug(N, K), 12)
        x = source.sample(50, N, seed=0, dtype=torch.float64).numpy()
        codes = sketch.encode(x)
        written(tmp_path / "a.rug", codes, sketch)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            gap = np.abs(np.asarray(reader[:], np.float64) - np.asarray(codes)).max()
        assert gap < 0.1 * sketch.quantiser.step + 1e-3

    def test_names_and_plan_are_kept(self, tmp_path):
        x = SOURCE.sample(100, N, seed=0, dtype=torch.float64).numpy()
        fitter = pr.ProfileFitter(N)
        fitter.add(x)
        plan, sketch = pr.make_plan(fitter.profile(), ratio=0.25, bits=8)
        names = tuple(f"f{i} ä" for i in range(N))
        codes = sketch.encode(x)
        written(tmp_path / "a.rug", codes, sketch, plan=plan, names=names)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert reader.names == names
            assert reader.plan == plan.recipe()
            assert np.array_equal(reader.sketch.decode(codes), sketch.decode(codes))

    @pytest.mark.parametrize("bits", [None, 5])
    def test_no_rows(self, bits, tmp_path):
        sketch = sketch_of(bits)
        written(tmp_path / "a.rug", codes_of(sketch)[:0], sketch)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert (len(reader), reader.verify(), list(reader.chunks())) == (0, 0, [])
            assert reader[:].shape == (0, K)
            with pytest.raises(IndexError):
                reader[0]
            with pytest.raises(IndexError):
                reader[-1]
        assert list(pr.RugReader.stream(io.BytesIO((tmp_path / "a.rug").read_bytes())).chunks()) == []

    def test_sums_keep_their_mixture(self, tmp_path):
        sketch = sketch_of(6)
        codes = codes_of(sketch, dtype=torch.float64)
        sums = codes[:20] - 2 * codes[20:]
        written(tmp_path / "a.rug", sums, sketch, mixture=sums.mixture, dtype="float64")
        with pr.RugReader(tmp_path / "a.rug") as reader:
            back = reader[:]
            assert (back.mixture, reader.mixture, back.bits) == (sums.mixture, sums.mixture, None)
            assert np.array_equal(np.asarray(back), np.asarray(sums))
            assert np.array_equal(reader.sketch.decode(back), sketch.decode(sums))
        with pytest.raises(ValueError, match="allowed in this file"):
            written(tmp_path / "b.rug", codes, sketch, mixture=sums.mixture)

    def test_tensors(self, tmp_path):
        sketch = sketch_of()
        x = SOURCE.sample(9, N, seed=0)
        written(tmp_path / "a.rug", sketch.encode(x), sketch)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert np.array_equal(rows_of(reader), sketch.encode(x).values.numpy())

    def test_what_is_written_is_what_was_given_at_the_time(self, tmp_path):
        # A buffer may be used again before its chunk is full.
        sketch = sketch_of()
        codes = codes_of(sketch)
        buffer = np.array(codes)
        with pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=CHUNK) as writer:
            for start in range(0, ROWS, 5):
                part = buffer[:5]
                part[:] = np.asarray(codes)[start : start + 5]
                writer.write(sketch.codes(part))
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert np.array_equal(rows_of(reader), np.asarray(codes))


CODES = codes_of(sketch_of())
TENSORS = pr.Codes(torch.from_numpy(np.asarray(CODES)), CODES.encoder)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A reader, and the array that it should be like."""
    sketch = sketch_of()
    codes = codes_of(sketch)
    path = written(tmp_path_factory.mktemp("access") / "a.rug", codes, sketch)
    with pr.RugReader(path) as reader:
        yield reader, np.asarray(codes)


def test_seeds_of_earlier_versions_may_be_of_any_size(tmp_path):
    sketch = pr.Sketch(SOURCE, pr.Rug.stored(N, K, 2**70))
    codes = codes_of(sketch)
    with pr.RugReader(written(tmp_path / "a.rug", codes, sketch)) as reader:
        assert reader.sketch == sketch
        assert np.array_equal(sketch.decode(codes), reader.sketch.decode(reader[:]))


class TestRandomAccess:
    @given(data=st.data())
    def test_as_of_an_array(self, opened, data):
        reader, values = opened
        chosen = data.draw(st.slices(ROWS) | st.integers(-ROWS, ROWS - 1))
        expected = values[chosen]
        got = reader[chosen]
        assert isinstance(got, pr.Codes)
        assert np.array_equal(np.asarray(got), expected if isinstance(chosen, slice) else expected[None])

    @given(st.integers(-100, 100) | st.none(), st.integers(-100, 100) | st.none(), st.integers(-50, 50))
    def test_slices_beyond_the_ends(self, opened, start, stop, step):
        reader, values = opened
        rows = slice(start, stop, step or None)
        assert np.array_equal(np.asarray(reader[rows]), values[rows])

    @pytest.mark.parametrize("row", [ROWS, -ROWS - 1, 10**30, -(10**30)])
    def test_rows_that_are_not_there(self, opened, row):
        with pytest.raises(IndexError, match=r"row is .*; allowed: up to 39"):
            opened[0][row]

    @given(data=st.data())
    def test_many_as_of_an_array(self, opened, data):
        reader, values = opened
        numbers = data.draw(st.lists(st.integers(-ROWS, ROWS - 1)))
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=ROWS, max_size=ROWS)))
        for chosen in (numbers, np.array(numbers, dtype=np.int16), mask, list(mask)):
            expected = values[np.array(chosen, dtype=int) if len(chosen) == 0 else chosen]
            assert np.array_equal(np.asarray(reader[chosen]), expected)
            assert np.array_equal(np.asarray(CODES[chosen]), expected)
            assert np.array_equal(np.asarray(TENSORS[chosen]), expected)

    @pytest.mark.parametrize("rows", [[0, 25, 26], np.arange(ROWS) % 25 == 0, slice(0, None, 25), [26, 0, 26, 0]])
    def test_only_the_chunks_that_are_needed_are_read(self, opened, rows, monkeypatch):
        reader, values = opened
        read, real = [], pr.RugReader._chunk

        def counted(self, place, rows, first):
            read.append(first)
            return real(self, place, rows, first)

        monkeypatch.setattr(pr.RugReader, "_chunk", counted)
        assert np.array_equal(np.asarray(reader[rows]), values[rows])
        assert read == [0, 21]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (1.5, "rows is 1.5; allowed: an integer, a slice, a list"),
            ("a", "rows is 'a'; allowed"),
            (None, "rows is None; allowed"),
            (True, "rows is True; allowed"),
            ([1.0, 2.0], r"rows is an array of float64 of shape \(2,\); allowed"),
            ([[1, 2]], r"rows is an array of int64 of shape \(1, 2\); allowed"),
            ([[1], [2, 3]], "rows is .*; allowed"),
            (["a"], "rows is an array of <U1 of shape"),
            ((slice(3), 2), "rows is .*; allowed"),
            (np.ones(ROWS - 1, dtype=bool), "rows is a mask of 39; allowed: a mask of 40"),
            ([], None),
            (slice(0, 5, 0), "step"),
        ],
    )
    def test_other_indices(self, opened, rows, message):
        for codes in (opened[0], CODES, TENSORS):
            if message is None:
                assert codes[rows].shape == (0, K)
                continue
            with pytest.raises(ValueError, match=message):
                codes[rows]

    @pytest.mark.parametrize("rows", [[0, ROWS], np.array([-ROWS - 1]), np.array([2**64 - 1], dtype=np.uint64)])
    def test_rows_among_others_that_are_not_there(self, opened, rows):
        for codes in (opened[0], CODES, TENSORS):
            with pytest.raises(IndexError, match=r"row is .*; allowed: up to 39"):
                codes[rows]

    def test_tensors_are_indices(self, opened):
        assert np.array_equal(np.asarray(TENSORS[torch.tensor([3, -1])]), opened[1][[3, -1]])
        assert np.array_equal(np.asarray(opened[0][torch.arange(ROWS) > 30]), opened[1][31:])

    def test_backwards(self, opened):
        for codes in (opened[0], CODES, TENSORS):
            assert np.array_equal(np.asarray(codes[30:5:-3]), opened[1][30:5:-3])

    def test_numpy_integers(self, opened):
        reader, values = opened
        assert np.array_equal(np.asarray(reader[np.int64(-2)]), values[-2:-1])
        assert np.array_equal(np.asarray(reader[np.uint8(9)]), values[9:10])


class TestStream:
    @pytest.mark.parametrize("bits", [None, 5])
    def test_a_pipe_is_the_file(self, bits, tmp_path):
        sketch = sketch_of(bits)
        codes = codes_of(sketch)
        path = written(tmp_path / "a.rug", codes, sketch)
        content = io.BytesIO()
        written(content, codes, sketch)
        assert content.getvalue() == path.read_bytes()
        reading, writing = os.pipe()
        # A pipe holds 64 KiB.
        os.write(writing, content.getvalue())
        os.close(writing)
        with open(reading, "rb") as file, pr.RugReader(path) as reader:  # noqa: PTH123
            stream = pr.RugReader.stream(file)
            assert (stream.bits, stream.mixture, stream.digest) == (reader.bits, reader.mixture, reader.digest)
            got = list(stream.chunks())
            assert [len(part) for part in got] == [7, 7, 7, 7, 7, 5]
            assert np.array_equal(np.asarray(pr.Codes.concatenate(got)), rows_of(reader))

    def test_an_unbuffered_pipe_that_comes_in_pieces(self, good):
        class Pieces(io.RawIOBase):
            def __init__(self, content):
                self.content = io.BytesIO(content)

            def readable(self):
                return True

            def read(self, size=-1):
                return self.content.read(min(size, 3))

        got = list(pr.RugReader.stream(Pieces(good.read_bytes())).chunks())
        assert sum(map(len, got)) == ROWS

    def test_cut_off_at_every_byte_it_raises(self, good):
        content = good.read_bytes()
        _, start, _ = parts_of(content)
        values = np.asarray(codes_of(sketch_of()))
        for cut in [*range(0, start, 5), *range(start, len(content))]:
            rows = []

            def read_all(cut=cut, rows=rows):
                for part in pr.RugReader.stream(io.BytesIO(content[:cut])).chunks():
                    rows.extend(np.asarray(part))

            with pytest.raises(ValueError, match="rug file -"):
                read_all()
            assert np.array_equal(np.reshape(rows, (-1, K)), values[: len(rows)])

    def test_more_after_the_end(self, good):
        stream = pr.RugReader.stream(io.BytesIO(good.read_bytes() + b"\n"))
        with pytest.raises(ValueError, match="more follows its end"):
            list(stream.chunks())

    def test_verify(self, good):
        assert pr.RugReader.stream(io.BytesIO(good.read_bytes())).verify() == ROWS


class TestOtherFiles:
    def test_what_is_open_and_what_is_not(self, good):
        with good.open("rb") as file:
            for opened in (file, io.BytesIO(good.read_bytes()), 5):
                with pytest.raises(
                    ValueError, match=r"path is a .*; allowed: a path, or RugReader\.stream\(file\)"
                ):
                    pr.RugReader(opened)
        for wrong in (good, str(good), None, io.StringIO("a")):
            with pytest.raises(
                ValueError, match=r"file is a .*; allowed: an open binary file, or RugReader\(path\)"
            ):
                pr.RugReader.stream(wrong)
        for wrong in (5, None, io.StringIO()):
            with pytest.raises(ValueError, match=r"file is a .*; allowed: a path, or an open binary file"):
                pr.RugWriter(wrong, sketch_of())

    @pytest.mark.parametrize(
        "content",
        [b"", b"\x89", MAGIC, MAGIC + bytes(7), MAGIC + bytes(8), b"PK\x03\x04" * 50, bytes(1000),
         MAGIC.replace(b"\r\n", b"\n") + bytes(500)],
        ids=range(8),
    )  # fmt: skip
    def test_files_of_other_content(self, tmp_path, content):
        (tmp_path / "a.rug").write_bytes(content)
        for opening in (pr.RugReader, pr.RugWriter.append):
            with pytest.raises(ValueError, match=r"rug file .*; allowed: a file that compress wrote"):
                opening(tmp_path / "a.rug")
        with pytest.raises(ValueError, match="rug file -"):
            pr.RugReader.stream(io.BytesIO(content))
        assert (tmp_path / "a.rug").read_bytes() == content

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "a.npz", np.ones(5))
        with pytest.raises(ValueError, match="is no rug file"):
            pr.RugReader(tmp_path / "a.npz")

    def test_folders_and_nothing(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.rug"):
            with pytest.raises(ValueError, match=r"rug file .* is missing"):
                pr.RugReader(path)
        with pytest.raises(ValueError, match="exists"):
            pr.RugWriter(tmp_path, sketch_of())

    def test_the_file_is_closed_when_it_is_refused(self, tmp_path):
        (tmp_path / "a.rug").write_bytes(b"other")
        before = set(Path("/proc/self/fd").iterdir())
        for _ in range(20):
            with pytest.raises(ValueError, match="rug file"):
                pr.RugReader(tmp_path / "a.rug")
        assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1
