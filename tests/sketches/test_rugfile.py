"""The .rug file: round trips, random access, crashes, damage, and headers that claim what cannot be."""

import io
import json
import math
import os
import resource
import struct
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.fixture
def good(tmp_path):
    """A file of floats."""
    sketch = sketch_of()
    return written(tmp_path / "good.rug", codes_of(sketch), sketch)


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


def sealed(header, records=(), length=None):
    """A file of a header, or its text, and of (kind, rows, first, payload), with checksums that fit."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = MAGIC + struct.pack("<Q", len(text) if length is None else length) + text
    seal = blake2b(start, digest_size=SEAL).digest()
    content = start + seal
    for kind, rows, first, payload in records:
        record = RECORD.pack(kind, rows, first) + payload
        content += record + blake2b(seal + record, digest_size=SEAL).digest()
    return content


@contextmanager
def little_memory(most=64 << 20):
    """What is done here may not take more, whoever asks for it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + most, before[1]))
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, before)


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
            places = (np.asarray(codes, np.float64) - sketch.mean_code) / sketch.quantiser.step - 0.5
            assert np.abs(places - np.rint(places)).max() < 0.02
            return np.rint(places)

        assert np.array_equal(levels(back), levels(codes))
        assert (levels(codes).min(), levels(codes).max()) >= (-(2 ** (bits - 1)), 0)
        assert levels(codes).max() < 2 ** (bits - 1)
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


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A reader, and the array that it should be like."""
    sketch = sketch_of()
    codes = codes_of(sketch)
    path = written(tmp_path_factory.mktemp("access") / "a.rug", codes, sketch)
    with pr.RugReader(path) as reader:
        yield reader, np.asarray(codes)


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

    @pytest.mark.parametrize("rows", [1.5, "a", None, [1, 2], slice(0, 5, 0)])
    def test_other_indices(self, opened, rows):
        with pytest.raises(ValueError, match=r"rows is|step"):
            opened[0][rows]

    def test_numpy_integers(self, opened):
        reader, values = opened
        assert np.array_equal(np.asarray(reader[np.int64(-2)]), values[-2:-1])
        assert np.array_equal(np.asarray(reader[np.uint8(9)]), values[9:10])


class TestAppend:
    def test_goes_on(self, good):
        sketch = sketch_of()
        more = codes_of(sketch, rows=11, seed=1)
        for part in (more[:4], more[4:]):
            with pr.RugWriter.append(good) as writer:
                writer.write(part)
        with pr.RugReader(good) as reader:
            assert reader.verify() == ROWS + 11
            assert np.array_equal(rows_of(reader), np.concatenate([codes_of(sketch), more]))

    @pytest.mark.parametrize("bits", [3, 8])
    def test_levels_too(self, bits, tmp_path):
        sketch = sketch_of(bits)
        codes = codes_of(sketch)
        whole = written(tmp_path / "whole.rug", codes, sketch)
        part = written(tmp_path / "part.rug", codes[:21], sketch)
        with pr.RugWriter.append(part) as writer:
            writer.write(codes[21:])
        assert part.read_bytes() == whole.read_bytes()

    def test_nothing_leaves_the_file_as_it_was(self, good):
        before = good.read_bytes()
        with pr.RugWriter.append(good):
            pass
        assert good.read_bytes() == before

    def test_after_a_crash_at_every_byte(self, good, tmp_path):
        sketch, content = sketch_of(), good.read_bytes()
        values, more = np.asarray(codes_of(sketch)), codes_of(sketch, rows=3, seed=1)
        _, start, records = parts_of(content)
        counts = [0, 7, 14, 21, 28, 35, 40]
        # From within the last but two of the chunks on.
        ends = dict(list(zip(np.cumsum([start, *map(len, records[:-1])]), counts, strict=True))[-3:])
        path = tmp_path / "cut.rug"
        for cut in range(min(ends), len(content)):
            path.write_bytes(content[:cut])
            whole = ends[max(end for end in ends if end <= cut)]
            with pr.RugReader(path) as reader:
                assert (len(reader), reader.cut_off) == (whole, True)
                assert reader.problem == f"it is cut off after {whole} rows"
                assert np.array_equal(rows_of(reader), values[:whole])
                with pytest.raises(ValueError, match="cut off"):
                    reader.verify()
            with pr.RugWriter.append(path) as writer:
                writer.write(more)
            with pr.RugReader(path) as reader:
                assert reader.verify() == whole + 3
                assert np.array_equal(rows_of(reader), np.concatenate([values[:whole], more]))

    def test_a_header_that_is_cut_off_is_refused(self, good, tmp_path):
        content = good.read_bytes()
        start = parts_of(content)[1]
        path = tmp_path / "cut.rug"
        for cut in range(0, start, 7):
            path.write_bytes(content[:cut])
            for opening in (pr.RugReader, pr.RugWriter.append):
                with pytest.raises(ValueError, match="rug file"):
                    opening(path)
            assert path.read_bytes() == content[:cut]

    def test_after_damage_it_is_refused(self, good):
        content = bytearray(good.read_bytes())
        _, start, records = parts_of(bytes(content))
        content[start + len(records[0])] ^= 1
        good.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged: after 7 rows there is no chunk"):
            pr.RugWriter.append(good)
        assert good.read_bytes() == content

    def test_a_last_chunk_that_never_reached_the_disk(self, good):
        # After a loss of power the file may have its length, and zeros for its contents.
        content = good.read_bytes()
        _, _, records = parts_of(content)
        end = len(content) - len(records[-1])
        good.write_bytes(content[: end - 100] + bytes(100))
        more = codes_of(sketch_of(), rows=3, seed=1)
        try:
            with pr.RugWriter.append(good) as writer:
                writer.write(more)
        except ValueError:
            # To refuse is as good.
            assert good.read_bytes() == content[: end - 100] + bytes(100)
            return
        with pr.RugReader(good) as reader:
            assert reader.verify() == 35 + 3

    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match="is missing"):
            pr.RugWriter.append(tmp_path / "none.rug")


class TestWriter:
    def test_an_exception_leaves_what_is_whole(self, tmp_path):
        sketch = sketch_of()
        codes = codes_of(sketch)

        def fails():
            with pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=CHUNK) as writer:
                writer.write(codes[:17])
                raise RuntimeError("out of luck")

        with pytest.raises(RuntimeError):
            fails()
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert (len(reader), reader.cut_off) == (14, True)
            assert np.array_equal(rows_of(reader), np.asarray(codes)[:14])
        with pr.RugWriter.append(tmp_path / "a.rug") as writer:
            writer.write(codes[14:])
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert reader.verify() == ROWS

    def test_flush_makes_rows_readable(self, tmp_path):
        sketch = sketch_of()
        codes = codes_of(sketch)
        with pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=CHUNK) as writer:
            writer.write(codes[:3])
            writer.flush()
            writer.flush()
            with pr.RugReader(tmp_path / "a.rug") as reader:
                assert (len(reader), reader.cut_off) == (3, True)
            writer.write(codes[3:])
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert reader.verify() == ROWS
            assert np.array_equal(rows_of(reader), np.asarray(codes))
            assert np.array_equal(np.asarray(reader[1:30:4]), np.asarray(codes)[1:30:4])

    def test_many_writes_make_the_same_file(self, good, tmp_path):
        sketch = sketch_of()
        codes = codes_of(sketch)
        with pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=CHUNK) as writer:
            for start in range(0, ROWS, 3):
                writer.write(codes[start : start + 3])
        assert (tmp_path / "a.rug").read_bytes() == good.read_bytes()

    def test_an_existing_file_is_refused_and_left(self, good):
        before = good.read_bytes()
        with pytest.raises(ValueError, match=r"exists; allowed: a new file"):
            pr.RugWriter(good, sketch_of())
        assert good.read_bytes() == before

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"folder .* is missing"):
            pr.RugWriter(tmp_path / "none" / "a.rug", sketch_of())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dtype": "float16"}, "dtype is 'float16'"),
            ({"chunk_rows": 0}, "chunk_rows is 0"),
            ({"chunk_rows": 1.5}, "chunk_rows is 1.5"),
            ({"chunk_rows": 1 << 31}, "chunk_rows is 2147483648"),
        ],
    )
    def test_bad_arguments_leave_no_file(self, options, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            pr.RugWriter(tmp_path / "a.rug", sketch_of(), **options)
        assert not (tmp_path / "a.rug").exists()

    def test_other_codes_are_refused(self, tmp_path):
        sketch, other = sketch_of(8), sketch_of(8, seed=1)
        codes = codes_of(sketch)
        with pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=CHUNK) as writer:
            with pytest.raises(ValueError, match="allowed: codes of the rug that the file is of"):
                writer.write(codes_of(other))
            for changed in (codes + codes, 2 * codes, codes_of(sketch_of()), codes_of(sketch_of(4))):
                with pytest.raises(ValueError, match="allowed in this file"):
                    writer.write(changed)
            with pytest.raises(ValueError, match="codes have entries missing"):
                writer.write(codes.erase(0.1))
            writer.write(codes)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert reader.verify() == ROWS

    def test_missing_entries_are_kept_in_floats(self, tmp_path):
        sketch = sketch_of()
        codes = codes_of(sketch).erase(0.3)
        written(tmp_path / "a.rug", codes, sketch)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert np.array_equal(rows_of(reader), np.asarray(codes), equal_nan=True)
            assert (reader[:].missing == 5).all()


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


def corrupted(content, places, rng):
    """The content, damaged in one of the ways in which files are."""
    start, ends = places
    out = bytearray(content)
    way = rng.integers(10)
    size = len(content)
    # Half of all damage within the records, whose header is longer than they are.
    low = start if rng.random() < 0.5 else 0
    place = int(rng.integers(low, size))
    if way == 0:
        out[place] ^= 1 << int(rng.integers(8))
    elif way == 1:
        for place in rng.integers(low, size, rng.integers(1, 6)):
            out[place] = rng.integers(256)
    elif way == 2:
        length = int(rng.integers(1, 200))
        out[place : place + length] = rng.bytes(len(out[place : place + length]))
    elif way == 3:
        del out[place:]
    elif way == 4:
        out[place:place] = rng.bytes(int(rng.integers(1, 40)))
    elif way == 5:
        out += rng.bytes(int(rng.integers(1, 400))) if rng.random() < 0.7 else out[int(rng.choice(ends[:-1])) :]
    elif way == 6:
        del out[place : place + int(rng.integers(1, 40))]
    else:
        chunks = [bytes(out[a:b]) for a, b in pairwise(ends)]
        one, other = rng.choice(len(chunks), 2, replace=False)
        if way == 7:
            chunks[one], chunks[other] = chunks[other], chunks[one]
        elif way == 8:
            chunks.insert(int(other), chunks[one])
        else:
            del chunks[one]
        out = out[:start] + b"".join(chunks)
    return bytes(out)


@pytest.mark.parametrize("bits", [None, 5])
def test_no_damage_gives_a_wrong_row(bits, tmp_path):
    """5000 damaged files each: what is read is right, or ValueError is raised, and nothing else is."""
    sketch = sketch_of(bits)
    path = written(tmp_path / "good.rug", codes_of(sketch), sketch)
    content = path.read_bytes()
    with pr.RugReader(path) as reader:
        values = rows_of(reader)
    _, start, records = parts_of(content)
    ends = np.cumsum([start, *map(len, records)])
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.rug"
    seen = {"refused": 0, "some rows": 0, "stream": 0}
    for _ in range(5000):
        damaged = corrupted(content, (start, ends), rng)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        try:
            reader = pr.RugReader(path)
        except ValueError:
            seen["refused"] += 1
        else:
            with reader:
                assert len(reader) <= ROWS
                for first in range(0, len(reader), CHUNK):
                    try:
                        got = np.asarray(reader[first : first + CHUNK])
                    except ValueError:
                        continue
                    seen["some rows"] += 1
                    assert np.array_equal(got, values[first : first + CHUNK][: len(got)])
                # A checksum covers every byte.
                with pytest.raises(ValueError, match="rug file"):
                    reader.verify()
        count = 0

        def read_all(damaged=damaged):
            nonlocal count
            for part in pr.RugReader.stream(io.BytesIO(damaged)).chunks():
                assert np.array_equal(np.asarray(part), values[count : count + len(part)])
                count += len(part)

        with pytest.raises(ValueError, match="rug file"):
            read_all()
        seen["stream"] += count
    # All of it happens.
    assert min(seen.values()) > 500


def claims(**changes):
    def change(header):
        return {**header, **changes}

    return change


def encoder_claims(**changes):
    def change(header):
        recipe = header["recipe"]
        return {**header, "recipe": {**recipe, "encoder": {**recipe["encoder"], **changes}}}

    return change


def source_claims(**source):
    def change(header):
        return {**header, "recipe": {**header["recipe"], "source": source}}

    return change


def both(*changes):
    def change(header):
        for one in changes:
            header = one(header)
        return header

    return change


def array(dtype="<f8", shape=(N,), base64="AAAA"):
    return {"dtype": dtype, "shape": shape, "base64": base64}


MIXTURE = {"terms": 1, "weight": 1.0, "power": 1.0, "signed": False, "noise": 0.0}
FEATURES = {"n_sparse": 1 << 30}
CLAIMS = {
    "n_dense": claims(n_dense=1 << 40),
    "n_dense of the rug": encoder_claims(n_dense=1 << 40),
    "n_dense of both": both(encoder_claims(n_dense=1 << 40), claims(n_dense=1 << 40)),
    "n_sparse of 2^41": both(
        encoder_claims(n_sparse=1 << 41, n_dense=1 << 40), claims(n_sparse=1 << 41, n_dense=1 << 40)
    ),
    "n_sparse of 2^30": both(encoder_claims(**FEATURES), claims(**FEATURES)),
    # A source of a number only would have as many features as are claimed.
    "n_sparse of 2^30, a source of a number": both(
        encoder_claims(**FEATURES), claims(**FEATURES), source_claims(name="uniform", p=0.1)
    ),
    "n_dense of 2^29, a source of a number": both(
        encoder_claims(**FEATURES, n_dense=1 << 29),
        claims(**FEATURES, n_dense=1 << 29, bits=8),
        source_claims(name="uniform", p=0.1),
    ),
    "chunk_rows of 2^31": claims(chunk_rows=1 << 31),
    "chunk_rows of 2^26": claims(chunk_rows=1 << 26),
    "chunk_rows of 0": claims(chunk_rows=0),
    "chunk_rows of 7.5": claims(chunk_rows=7.5),
    "no chunk_rows": claims(chunk_rows=None),
    "17 bits": claims(bits=17),
    "0 bits": claims(bits=0),
    "bits in words": claims(bits="8"),
    "8 bits": claims(bits=8),
    "levels of a sketch that has none": claims(bits=8, step=0.1, centre=[0.0] * K),
    "float16": claims(dtype="<f2"),
    "objects": claims(dtype="O"),
    "a list for dtype": claims(dtype=[1]),
    "step of letters": claims(step="a"),
    "step without end": claims(step=math.inf),
    "a large centre": claims(centre=array("<f8", [1 << 50])),
    "a centre of objects": claims(centre=array("O", [1])),
    "a centre of brackets": claims(centre=array("(((", [1])),
    "a centre of long strings": claims(centre=array("V99999999999", [1])),
    "a centre of records": claims(centre=array("f4,(100000,100000)f4", [1])),
    "a centre of shape abc": claims(centre=array("<f8", "abc")),
    "a centre of any shape": claims(centre=array("<f8", [-1, -1])),
    "a centre of other text": claims(centre=array("<f8", [0], "not base 64")),
    "a ragged centre": claims(centre=[[1.0], [2.0, 3.0]]),
    "a centre of a letter": claims(centre="a"),
    "a list for mixture": claims(mixture=[]),
    "a mixture of words": claims(mixture={**MIXTURE, "terms": "many"}),
    "a mixture of nothing": claims(mixture={**MIXTURE, "terms": 0}),
    "a mixture of a weight in words": claims(mixture={**MIXTURE, "weight": "1"}),
    "a mixture of negative noise": claims(mixture={**MIXTURE, "noise": -1.0}),
    "a mixture of NaN": claims(mixture={**MIXTURE, "power": math.nan}),
    "a mixture of more": claims(mixture={**MIXTURE, "more": 1}),
    "a list for recipe": claims(recipe=[]),
    "no recipe": claims(recipe={}),
    "another digest": claims(digest="0" * 64),
    "no digest": claims(digest=None),
    "a number for names": claims(names=5),
    "one name": claims(names=["a"]),
    "a number for plan": claims(plan=5),
    "an unknown source": source_claims(name="nobody"),
    "a large source": source_claims(name="uniform", p=array(shape=[1 << 50])),
    "a source of more features": source_claims(name="uniform", p=[0.1] * (N + 1)),
    "a source of p above 1": source_claims(name="uniform", p=[0.1] * (N - 1) + [2.0]),
    "a source of other parameters": source_claims(name="uniform", q=0.1),
    "a list for a source": source_claims(name=["uniform"], p=0.1),
    "another encoder": encoder_claims(name="gaussian"),
    "a negative seed": encoder_claims(seed=-1),
    "a seed in words": encoder_claims(seed="0"),
    "a knot": encoder_claims(knot={"n": 1}),
    "signs of 3": encoder_claims(signs=3),
}


class TestForged:
    """Files whose checksums fit, and whose claims do not."""

    @pytest.mark.parametrize("length", [1 << 60, (1 << 64) - 1, 1 << 29, 1 << 27, 10**5, 0, 3])
    def test_the_length_of_the_header(self, good, tmp_path, length):
        header, _, _ = parts_of(good.read_bytes())
        content = sealed(header, length=length)
        (tmp_path / "a.rug").write_bytes(content)
        with little_memory():
            with pytest.raises(ValueError, match="rug file"):
                pr.RugReader.stream(io.BytesIO(content))
            with pytest.raises(ValueError, match="rug file"), pr.RugReader(tmp_path / "a.rug"):
                pass

    @pytest.mark.parametrize("claim", CLAIMS)
    def test_headers(self, good, tmp_path, claim):
        header, _, _ = parts_of(good.read_bytes())
        content = sealed(CLAIMS[claim](header), [(b"CODE", 1, 0, bytes(4 * K)), (b"DONE", 0, 1, b"")])
        (tmp_path / "a.rug").write_bytes(content)
        with little_memory():
            with pytest.raises(ValueError, match="rug file"):
                pr.RugReader.stream(io.BytesIO(content))
            with pytest.raises(ValueError, match="rug file"), pr.RugReader(tmp_path / "a.rug"):
                pass

    @pytest.mark.parametrize(
        "text",
        [b"", b"{", b"[]", b"null", b"5", b'"a"', b"\xff\xfe", b"{}", b"[" * 100_000, b"1" * 10_000, b"NaN",
         b'{"format": "persianrug codes"}'],
        ids=range(12),
    )  # fmt: skip
    def test_headers_that_are_none(self, tmp_path, text):
        content = sealed(text)
        (tmp_path / "a.rug").write_bytes(content)
        with pytest.raises(ValueError, match=r"rug file .*allowed"):
            pr.RugReader(tmp_path / "a.rug")
        with pytest.raises(ValueError, match=r"rug file .*allowed"):
            pr.RugReader.stream(io.BytesIO(content))

    @pytest.mark.parametrize("change", [claims(version=2), claims(format="others"), claims(version="1")])
    def test_other_versions(self, good, tmp_path, change):
        header, _, _ = parts_of(good.read_bytes())
        (tmp_path / "a.rug").write_bytes(sealed(change(header)))
        with pytest.raises(
            ValueError, match=r"has format .*, version .*; allowed: format persianrug codes, version 1"
        ):
            pr.RugReader(tmp_path / "a.rug")

    @pytest.mark.parametrize("rows", [0, CHUNK + 1, (1 << 32) - 1])
    @pytest.mark.parametrize("payload", [4 * K * CHUNK, 4 * K * (CHUNK + 1), 0])
    def test_rows_of_a_record(self, good, tmp_path, rows, payload):
        header, _, _ = parts_of(good.read_bytes())
        content = sealed(
            header, [(b"CODE", CHUNK, 0, bytes(4 * K * CHUNK)), (b"CODE", rows, CHUNK, bytes(payload))]
        )
        (tmp_path / "a.rug").write_bytes(content)
        with little_memory():
            with pr.RugReader(tmp_path / "a.rug") as reader:
                assert len(reader) == CHUNK
                assert "after 7 rows there is no chunk" in reader.problem
                with pytest.raises(ValueError, match="no chunk"):
                    reader.verify()
            with pytest.raises(ValueError, match="no chunk"):
                list(pr.RugReader.stream(io.BytesIO(content)).chunks())

    def test_a_large_chunk_that_is_not_there(self, good, tmp_path):
        header, _, _ = parts_of(good.read_bytes())
        # As large as is allowed: 64 MiB.
        header["chunk_rows"] = most = (1 << 26) // (4 * K)
        content = sealed(header, [(b"CODE", most, 0, bytes(100))])
        (tmp_path / "a.rug").write_bytes(content)
        with little_memory(16 << 20):
            with pr.RugReader(tmp_path / "a.rug") as reader:
                assert (len(reader), reader.cut_off) == (0, True)
            with pytest.raises(ValueError, match="rug file"):
                list(pr.RugReader.stream(io.BytesIO(content)).chunks())

    @pytest.mark.parametrize(("rows", "first"), [(1, 0), (0, (1 << 64) - 1), (0, 6), (0, 8)])
    def test_the_end(self, good, tmp_path, rows, first):
        header, _, _ = parts_of(good.read_bytes())
        content = sealed(header, [(b"CODE", CHUNK, 0, bytes(4 * K * CHUNK)), (b"DONE", rows, first, b"")])
        (tmp_path / "a.rug").write_bytes(content)
        with pr.RugReader(tmp_path / "a.rug") as reader, pytest.raises(ValueError, match="no chunk"):
            reader.verify()
        with pytest.raises(ValueError, match="no chunk"):
            list(pr.RugReader.stream(io.BytesIO(content)).chunks())

    def test_a_true_one_is_read(self, good, tmp_path):
        header, _, records = parts_of(good.read_bytes())
        parts = [(*RECORD.unpack(one[: RECORD.size]), one[RECORD.size : -SEAL]) for one in records]
        assert sealed(json.dumps(header).encode(), parts) == good.read_bytes()


class TestOtherFiles:
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


def test_the_header_holds_a_source_of_one_number_feature_by_feature(tmp_path):
    sketch = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(N, K), 4)
    x = pr.SparseUniform(0.1).sample(5, N, seed=0).numpy()
    written(tmp_path / "a.rug", sketch.encode(x), sketch)
    with pr.RugReader(tmp_path / "a.rug") as reader:
        assert reader.sketch.source == replace(sketch.source, p=np.full(N, 0.1))
        assert reader.sketch.decode(reader[:]) == pytest.approx(sketch.decode(sketch.encode(x)), abs=1e-5)


def test_whole_chunks_are_in_the_file_at_once(tmp_path):
    # Not in a buffer of the process, which would take them with it.
    sketch = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(64, 16), None, "relu")
    rows = pr.SparseUniform(0.1).sample(20, 64, seed=0).numpy()
    writer = pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=5)
    for count in range(1, 21):
        writer.write(sketch.encode(rows[count - 1 : count]))
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert len(reader) == 5 * (count // 5)
    writer.close()


def test_noise_that_another_machine_rounds_otherwise_is_the_same(tmp_path):
    sketch = pr.Sketch(pr.SparseUniform(0.1), pr.Rug(64, 16), 6, "relu")
    codes = sketch.encode(pr.SparseUniform(0.1).sample(4, 64, seed=0).numpy())
    near, far = (
        pr.Codes(codes.values, codes.encoder, pr.Mixture(noise=factor * codes.mixture.noise), 6)
        for factor in (1 + 1e-12, 1.01)
    )
    with pr.RugWriter(tmp_path / "a.rug", sketch) as writer:
        writer.write(near)
        with pytest.raises(ValueError, match="codes are"):
            writer.write(far)
