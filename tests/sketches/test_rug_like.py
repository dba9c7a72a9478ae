"""Files of codes whose sketch is in another file beside them."""

import json

import numpy as np
import pytest

import persianrug as pr
from persianrug.sketches.rug_layout import LENGTH, MAGIC, SEAL, checksum

N = 200
SOURCE = pr.SparseTruncatedNormal(np.full(N, 0.1))
COVARIANCE = pr.Covariance(np.ones(N), np.random.default_rng(0).standard_normal((16, N)), np.ones(N))
SKETCH = pr.Sketch(SOURCE, pr.Rug(N, 50), 8, "lmmse", covariance=COVARIANCE)
NAMES = tuple(f"cell {place}" for place in range(N))
ROWS = SOURCE.sample(30, N, seed=1).numpy()


@pytest.fixture
def first(tmp_path):
    path = tmp_path / "first.rug"
    with pr.RugWriter(path, SKETCH, names=NAMES) as writer:
        writer.write(SKETCH.encode(ROWS[:10]))
    return path


def second(first, name="second.rug", sketch=SKETCH, **options):
    path = first.parent / name
    with pr.RugReader(first) as like, pr.RugWriter(path, sketch, like=like, **options) as writer:
        writer.write(sketch.encode(ROWS[10:]))
    return path


def header_of(path):
    content = path.read_bytes()
    (length,) = LENGTH.unpack(content[len(MAGIC) : len(MAGIC) + LENGTH.size])
    start = len(MAGIC) + LENGTH.size
    return json.loads(content[start : start + length]), content[start + length + SEAL :]


def write_header(path, header, records=b""):
    text = json.dumps(header).encode()
    start = MAGIC + LENGTH.pack(len(text)) + text
    path.write_bytes(start + checksum(start) + records)


def test_it_is_read_with_the_other_and_small(first):
    path = second(first)
    assert path.stat().st_size < 2000 < first.stat().st_size / 10
    with pr.RugReader(path) as reader, pr.RugReader(first) as other:
        assert (reader.like, other.like) == ("first.rug", None)
        assert (reader.names, reader.bits, len(reader), reader.digest) == (NAMES, 8, 20, other.digest)
        assert reader.verify() == 20
        expected = SKETCH.decode(SKETCH.encode(ROWS[10:]))
        assert np.allclose(reader.sketch.decode(reader[:]), expected, atol=1e-4)
        # Codes of both add up.
        assert len(reader[:10] + other[:]) == 10


def test_one_like_one_like_the_first_needs_the_first_alone(first):
    path = second(first)
    third = second(path, "third.rug")
    path.unlink()
    with pr.RugReader(third) as reader:
        assert reader.like == "first.rug"
        assert reader.verify() == 20


def test_rows_are_appended_and_named(first):
    path = second(first)
    with pr.RugWriter.append(path) as writer:
        writer.write(SKETCH.encode(ROWS[:5]))
    with pr.RugReader(path) as reader:
        assert len(reader) == 25
    with (
        pr.RugReader(first) as like,
        pr.RugWriter(first.parent / "named.rug", SKETCH, like=like, named=True) as writer,
    ):
        writer.write(SKETCH.encode(ROWS[:2]), ["one", "two"])
    with pr.RugReader(first.parent / "named.rug") as reader:
        assert (reader.row_names(), reader.names) == (("one", "two"), NAMES)


def test_both_must_be_there_and_the_same(first, tmp_path):
    path = second(first)
    content = first.read_bytes()
    first.unlink()
    with pytest.raises(
        ValueError,
        match=r"second.rug needs first.rug beside it, which is missing; allowed: both files in one folder$",
    ):
        pr.RugReader(path)
    with pr.RugWriter(first, SKETCH) as writer:
        writer.write(SKETCH.encode(ROWS))
    with pytest.raises(ValueError, match=r"second.rug was written with another first.rug; allowed: the file"):
        pr.RugReader(path)
    # More rows in it are no other sketch.
    first.write_bytes(content)
    with pr.RugWriter.append(first) as writer:
        writer.write(SKETCH.encode(ROWS))
    with pr.RugReader(path) as reader:
        assert reader.verify() == 20
    with path.open("rb") as file, pytest.raises(ValueError, match=r"is read with 'first.rug', which is beside it"):
        pr.RugReader.stream(file)


@pytest.mark.parametrize("name", ["../first.rug", "/etc/passwd", "", ".", "second.rug", 3, None])
def test_names_that_lead_elsewhere(first, name):
    path = second(first)
    header, records = header_of(path)
    header["like"]["file"] = name
    write_header(path, header, records)
    with pytest.raises(ValueError, match=r"^rug file .*second.rug .*; allowed: ") as caught:
        pr.RugReader(path)
    assert "\n" not in str(caught.value)


def test_two_that_are_like_each_other(first):
    """Neither has a sketch, and looking for one ends."""
    path = second(first)
    header, _ = header_of(path)
    for one, other in (("a.rug", "b.rug"), ("b.rug", "a.rug")):
        header["like"]["file"] = other
        write_header(first.parent / one, header)
    with pytest.raises(
        ValueError, match=r"has format persianrug codes, version 3; allowed: [^;]* version 1 or 2$"
    ):
        pr.RugReader(first.parent / "a.rug")


@pytest.mark.parametrize("part", ["like", "named", "chunk_rows"])
def test_parts_that_are_missing(first, part):
    path = second(first)
    header, records = header_of(path)
    del header[part]
    write_header(path, header, records)
    with pytest.raises(ValueError, match="has a header of no codes"):
        pr.RugReader(path)


@pytest.mark.parametrize(
    ("sketch", "what"),
    [
        (pr.Sketch(SOURCE, pr.Rug(N, 50), 7, "lmmse", covariance=COVARIANCE), "bits"),
        (pr.Sketch(SOURCE, pr.Rug(N, 50, 1), 8, "lmmse", covariance=COVARIANCE), "digest"),
        (pr.Sketch(SOURCE, pr.Rug(N, 50), 8, "bayes"), "recipe"),
    ],
)
def test_other_sketches_are_refused(first, sketch, what):
    with pytest.raises(
        ValueError, match=rf"like is first.rug, of another .*{what}.*; allowed: a file of the same"
    ):
        second(first, sketch=sketch)
    assert not (first.parent / "second.rug").exists()


def test_other_folders_are_refused(first, tmp_path):
    (tmp_path / "there").mkdir()
    with (
        pr.RugReader(first) as like,
        pytest.raises(ValueError, match=r"like is in .*; allowed: a file in the folder"),
    ):
        pr.RugWriter(tmp_path / "there" / "second.rug", SKETCH, like=like)
