""".rug files as they are written: at once, appended to, and after crashes."""

from dataclasses import replace

import numpy as np
import pytest

import persianrug as pr
from tests.sketches.helpers.rugs import CHUNK, ROWS, K, N, codes_of, parts_of, rows_of, sketch_of, written


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

    @pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e38])
    def test_codes_of_nothing_are_refused(self, bad, tmp_path):
        sketch = sketch_of()
        values = np.array(codes_of(sketch))
        values[5, 3] = bad
        with pr.RugWriter(tmp_path / "a.rug", sketch) as writer:
            with pytest.raises(ValueError, match=r"codes holds (infinity|sizes up to 1e\+38); allowed: "):
                writer.write(sketch.codes(values))
            writer.write(codes_of(sketch))
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert reader.verify() == ROWS

    def test_missing_entries_are_kept_in_floats(self, tmp_path):
        sketch = sketch_of()
        codes = codes_of(sketch).erase(0.3)
        written(tmp_path / "a.rug", codes, sketch)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert np.array_equal(rows_of(reader), np.asarray(codes), equal_nan=True)
            assert (reader[:].missing == 5).all()


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
