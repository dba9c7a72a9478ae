"""docs/format.md: its reader of a few lines against the real one."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import persianrug as pr

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reader_source():
    return re.search(r"```python\n(.*?)```", (DOCS / "format.md").read_text(), re.DOTALL)[1]


@pytest.fixture(scope="module")
def read_rug(reader_source):
    names = {"__name__": "reader"}
    exec(compile(reader_source, "format.md", "exec"), names)
    return names["read_rug"]


@pytest.fixture(scope="module")
def source():
    return pr.SparseTruncatedNormal(pr.zipf_rates(96, 0.1), 0.5, 0.3)


def written(path, source, bits, dtype="float32"):
    sketch = pr.Sketch(source, pr.Rug(96, 37), bits, "relu")
    rows = source.sample(53, 96, seed=0).numpy().astype(dtype)
    with pr.RugWriter(path, sketch, dtype=dtype, chunk_rows=10) as writer:
        writer.write(sketch.encode(rows))
    return sketch.encode(rows)


def test_the_reader_has_thirty_lines_of_code_and_needs_only_numpy(reader_source):
    body = reader_source[reader_source.index("def read_rug") : reader_source.index("if __name__")]
    lines = [line for line in body.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 30
    assert set(re.findall(r"^import (.*)$", reader_source, re.MULTILINE)) == {
        "base64, hashlib, json, struct, sys",
        "numpy as np",
    }


@pytest.mark.parametrize(
    ("bits", "dtype"), [(None, "float32"), (None, "float64"), *((b, "float32") for b in range(1, 17))]
)
def test_it_reads_what_the_real_one_reads(read_rug, source, tmp_path, bits, dtype):
    codes = written(tmp_path / "a.rug", source, bits, dtype)
    header, values = read_rug(tmp_path / "a.rug")
    with pr.RugReader(tmp_path / "a.rug") as reader:
        assert np.array_equal(values, np.asarray(reader[:]))
    assert header["digest"] == codes.digest
    assert values.dtype == np.dtype(dtype)
    assert np.allclose(values, np.asarray(codes), rtol=0, atol=1e-6)


def test_it_reads_files_with_names_of_rows(read_rug, source, tmp_path):
    codes = written(tmp_path / "a.rug", source, 3)
    with pr.RugReader(tmp_path / "a.rug") as reader:
        sketch = reader.sketch
    with pr.RugWriter(tmp_path / "b.rug", sketch, named=True, chunk_rows=10) as writer:
        writer.write(codes, [f"größe {place}" for place in range(len(codes))])
    assert np.array_equal(read_rug(tmp_path / "a.rug")[1], read_rug(tmp_path / "b.rug")[1])
    content = bytearray((tmp_path / "b.rug").read_bytes())
    content[content.index(b"gr\\u00f6\\u00dfe 17")] ^= 1
    (tmp_path / "b.rug").write_bytes(content)
    with pytest.raises(AssertionError, match="damaged"):
        read_rug(tmp_path / "b.rug")


@pytest.mark.parametrize("place", [0, 9, 100, -1, -20, -40, -200])
def test_it_sees_damage(read_rug, source, tmp_path, place):
    written(tmp_path / "a.rug", source, None)
    content = bytearray((tmp_path / "a.rug").read_bytes())
    content[place] ^= 4
    (tmp_path / "a.rug").write_bytes(content)
    with pytest.raises((AssertionError, ValueError, OverflowError, KeyError)):
        read_rug(tmp_path / "a.rug")


def test_it_runs_without_persianrug(reader_source, source, tmp_path):
    codes = written(tmp_path / "a.rug", source, None)
    (tmp_path / "reader.py").write_text(
        "import sys\nsys.modules['persianrug'] = sys.modules['torch'] = None\n" + reader_source
    )
    result = subprocess.run(
        [sys.executable, "reader.py", "a.rug"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"{np.asarray(codes)[0, 0]:.4f}"[:5] in result.stdout
