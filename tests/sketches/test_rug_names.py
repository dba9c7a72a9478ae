"""Names of rows in .rug files: they come back, damage is seen, and files without them are as they were."""

import io
import json
import struct
from hashlib import blake2b

import numpy as np
import pytest

import persianrug as pr
from tests.sketches.helpers.rugs import MAGIC, RECORD, ROWS, SEAL, codes_of, rows_of, sketch_of, written

NAMES = [f"cell {place}, größer \ud800"[: 6 + place % 12] for place in range(ROWS)]


@pytest.fixture(params=[None, 3])
def good(request, tmp_path):
    sketch = sketch_of(request.param)
    codes = codes_of(sketch)
    with pr.RugWriter(tmp_path / "a.rug", sketch, chunk_rows=7, named=True) as writer:
        for start in range(0, ROWS, 5):
            writer.write(codes[start : start + 5], NAMES[start : start + 5])
    return tmp_path / "a.rug"


def starts(content):
    """Where the header ends, and every record."""
    (length,) = struct.unpack("<Q", content[8:16])
    header = json.loads(content[16 : 16 + length])
    size = -(-header["n_dense"] * (header["bits"] or 32) // 8)
    places = [16 + length + SEAL]
    while places[-1] < len(content):
        place = places[-1]
        _, rows, _ = RECORD.unpack(content[place : place + RECORD.size])
        end = place + RECORD.size + rows * size
        text = 4 + struct.unpack("<I", content[end : end + 4])[0] if rows else 0
        places.append(end + text + SEAL)
    return places


def test_they_come_back(good):
    with pr.RugReader(good) as reader:
        assert (reader.named, reader.problem, len(reader)) == (True, None, ROWS)
        assert reader.row_names() == tuple(NAMES)
        assert reader.verify() == ROWS
        expected = rows_of(reader)
        assert np.array_equal(np.asarray(reader[9:23]), expected[9:23])
        for codes, names in reader.named_chunks():
            assert len(codes) == len(names)
    pipe = list(pr.RugReader.stream(io.BytesIO(good.read_bytes())).named_chunks())
    assert sum((names for _, names in pipe), ()) == tuple(NAMES)
    assert np.array_equal(np.concatenate([np.asarray(codes) for codes, _ in pipe]), expected)


def test_files_without_them_are_of_the_first_version(tmp_path):
    sketch = sketch_of()
    written(tmp_path / "a.rug", codes_of(sketch), sketch)
    content = (tmp_path / "a.rug").read_bytes()
    assert json.loads(content[16 : 16 + struct.unpack("<Q", content[8:16])[0]])["version"] == 1
    with pr.RugReader(tmp_path / "a.rug") as reader:
        assert (reader.named, reader.row_names()) == (False, None)
        assert all(names is None for _, names in reader.named_chunks())


def test_append_goes_on_with_them(good):
    with pr.RugReader(good) as reader:
        some = reader[:3]
    with pr.RugWriter.append(good) as writer:
        writer.write(some, ["x", "y", "z"])
    with pr.RugReader(good) as reader:
        assert reader.row_names() == (*NAMES, "x", "y", "z")


def test_as_many_as_rows(tmp_path):
    sketch = sketch_of()
    codes = codes_of(sketch)
    with pr.RugWriter(tmp_path / "a.rug", sketch, named=True) as writer:
        with pytest.raises(ValueError, match="names has 2 names; allowed: 40, one a row"):
            writer.write(codes, ["a", "b"])
        with pytest.raises(ValueError, match="names is None; allowed in this file: names of its rows"):
            writer.write(codes)
    with (
        pr.RugWriter(tmp_path / "b.rug", sketch) as writer,
        pytest.raises(ValueError, match="names is given; allowed in this file: none"),
    ):
        writer.write(codes, NAMES)


def test_cut_off_at_every_byte(good):
    content = good.read_bytes()
    places = starts(content)
    for cut in range(places[0], len(content)):
        good.write_bytes(content[:cut])
        with pr.RugReader(good) as reader:
            whole = min(ROWS, 7 * (sum(place <= cut for place in places) - 1))
            assert reader.cut_off
            assert reader.row_names() == tuple(NAMES[:whole])
        with pytest.raises(ValueError, match=r"cut off|damaged"):
            list(pr.RugReader.stream(io.BytesIO(content[:cut])).named_chunks())


def test_no_damage_gives_a_wrong_name(good):
    content = good.read_bytes()
    places = starts(content)
    rng = np.random.default_rng(0)
    for place in rng.integers(places[0], len(content), 400):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        good.write_bytes(damaged)
        with pr.RugReader(good) as reader, pytest.raises(ValueError, match="is damaged"):
            reader.verify()
        found = []
        with pytest.raises(ValueError, match=r"damaged|cut off"):  # noqa: PT012
            for _, names in pr.RugReader.stream(io.BytesIO(damaged)).named_chunks():
                found.extend(names)
        assert found == NAMES[: len(found)]


@pytest.mark.parametrize(
    "text",
    [
        b'["a"]',
        b'["a", "b", "c"]',
        b'["a", 5]',
        b'{"a": 1, "b": 2}',
        b"[",
        b"5",
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        None,
    ],
)
def test_forged_ones(good, text):
    # Two rows whose names are others, or claim to be longer than any are, with checksums that fit.
    content = good.read_bytes()
    start = starts(content)[0]
    seal = content[start - SEAL : start]
    assert content[:8] == MAGIC
    with pr.RugReader(good) as reader:
        size = reader._layout.row_bytes
    names = b"\xff\xff\xff\xff" if text is None else struct.pack("<I", len(text)) + text
    record = RECORD.pack(b"CODE", 2, 0) + bytes(2 * size) + names
    end = RECORD.pack(b"DONE", 0, 2)
    parts = (part + blake2b(seal + part, digest_size=SEAL).digest() for part in (record, end))
    forged = content[:start] + b"".join(parts)
    good.write_bytes(forged)
    with pr.RugReader(good) as reader, pytest.raises(ValueError, match=r"rug file .* is damaged"):
        reader.verify()
    with pytest.raises(ValueError, match=r"rug file .* is damaged"):
        list(pr.RugReader.stream(io.BytesIO(forged)).named_chunks())
