""".rug files that are damaged, and headers that claim what cannot be."""

import io
import json
import math
import os
import resource
import struct
import tracemalloc
from contextlib import contextmanager
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import persianrug as pr
from tests.sketches.helpers.rugs import (
    CHUNK,
    MAGIC,
    RECORD,
    ROWS,
    SEAL,
    K,
    N,
    codes_of,
    parts_of,
    rows_of,
    sketch_of,
    written,
)


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


def rounded_claims(header):
    return {**header, "bits": 8, "step": 0.1, "centre": [0.0] * K, "recipe": {**header["recipe"], "bits": 8}}


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
    "a centre of NaN": both(rounded_claims, claims(centre=[math.nan] * K)),
    "a centre of infinity": both(rounded_claims, claims(centre=[math.inf] * K)),
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

    @pytest.mark.parametrize("bad", [math.inf, -math.inf, 1e38])
    def test_rows_of_nothing(self, good, tmp_path, bad):
        header, _, _ = parts_of(good.read_bytes())
        rows = [np.zeros(K, "<f4"), np.full(K, bad, "<f4")]
        records = [(b"CODE", 1, place, row.tobytes()) for place, row in enumerate(rows)]
        content = sealed(header, [*records, (b"DONE", 0, 2, b"")])
        (tmp_path / "a.rug").write_bytes(content)
        with pr.RugReader(tmp_path / "a.rug") as reader:
            assert len(reader[0]) == 1
            for read in (lambda: reader[1], reader.verify):
                with pytest.raises(ValueError, match=r"rug file .* in rows 1 to 2 holds .*; allowed: "):
                    read()
        with pytest.raises(ValueError, match=r"rug file - in rows 1 to 2 holds"):
            list(pr.RugReader.stream(io.BytesIO(content)).chunks())

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

    @pytest.mark.parametrize("change", [claims(version=4), claims(format="others"), claims(version="1")])
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
