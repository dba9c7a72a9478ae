"""Files: written whole or not at all; files from outside are not trusted."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from persianrug import read_rows
from persianrug._support.files import (
    check_writable,
    marked_temporaries,
    remove_temporaries,
    whole_file,
    write_whole,
)
from tests.conftest import forged_header, saved

ROWS = np.array([[0.0, 1.5, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.5], [1.0, 0.0, 3.0]])


def test_rows_of_every_kind_are_read(tmp_path):
    for dtype in (np.float64, np.float32, np.int64, np.uint8, bool, ">f4"):
        np.save(tmp_path / "a.npy", ROWS.astype(dtype))
        rows = read_rows(tmp_path / "a.npy")
        assert rows.dtype == np.float64
        assert np.array_equal(rows, ROWS.astype(dtype).astype(float))
    np.save(tmp_path / "a.npy", np.asfortranarray(ROWS))
    assert np.array_equal(read_rows(tmp_path / "a.npy"), ROWS)
    for order in "CF":
        np.savez_compressed(tmp_path / "a.npz", x=np.asarray(ROWS, order=order))
        assert np.array_equal(read_rows(tmp_path / "a.npz"), ROWS)
    for kind in ("csr", "csc", "coo", "bsr", "dia"):
        for matrix in (scipy.sparse.csr_matrix(ROWS).asformat(kind), scipy.sparse.csr_array(ROWS).asformat(kind)):
            scipy.sparse.save_npz(tmp_path / "a.npz", matrix)
            assert np.array_equal(read_rows(tmp_path / "a.npz").toarray(), ROWS)


def test_duplicate_entries_are_added(tmp_path):
    matrix = scipy.sparse.coo_array(([1.0, 2.0, 1.0], ([0, 0, 3], [1, 1, 0])), shape=(4, 2))
    scipy.sparse.save_npz(tmp_path / "a.npz", matrix)
    rows = read_rows(tmp_path / "a.npz")
    assert rows.nnz == 2
    assert rows.toarray()[0, 1] == 3.0


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (
            saved(np.array([[1, "a"], [None, 2]] * 2, dtype=object), allow_pickle=True),
            "Array can't be memory-mapped",
        ),
        (pickle.dumps(ROWS), "cannot be read"),
        (saved(ROWS)[:-1], "cannot be read"),
        (saved(ROWS)[:40], "cannot be read"),
        (b"", "cannot be read"),
        (b"hello", "cannot be read"),
        (forged_header((10**12, 10**6)), "cannot be read"),
        (forged_header((-3, 4)), "cannot be read"),
        (saved(np.array([["a", "b"]] * 4)), "of type <U1"),
        (saved(ROWS.astype(complex)), "of type complex128"),
        (saved(ROWS[0]), "has 1 dimensions; allowed: 2"),
        (saved(ROWS[None]), "has 3 dimensions; allowed: 2"),
        (saved(ROWS[:3]), r"shape \(3, 3\); allowed: at least 4 rows"),
        (saved(np.zeros((0, 5))), r"shape is \(0, 5\)"),
        (saved(ROWS[:, :1]), "2 features"),
        (saved(np.where(ROWS == 0.5, np.nan, ROWS)), "row 2 holds nan in column 2; allowed: finite"),
        (saved(np.where(ROWS == 0.5, -np.inf, ROWS)), "row 2 holds -inf in column 2; allowed: finite"),
        (saved(np.where(ROWS == 0.5, 1e40, ROWS)), "sizes from 1 to 1e"),
        (saved(np.where(ROWS == 0.5, 1e-40, ROWS)), "sizes from 1e-40 to 3"),
        (saved(ROWS).replace(b"(4, 3)", b"((4, 3"), "cannot be read"),
        (forged_header((10**30, 2)), "cannot be read"),
    ],
)
def test_bad_npy_files_are_refused(content, word, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=word) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)
    assert "allowed" in str(caught.value)


def sparse_file(path, **replaced):
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(ROWS))
    with np.load(path) as archive:
        parts = dict(archive) | replaced
    np.savez(path, **parts)


@pytest.mark.parametrize(
    "replaced",
    [
        {"indices": np.array([1, 0, 2, 0, 9])},
        {"indices": np.array([1, 0, 2, 0, -1])},
        {"indptr": np.array([0, 1, 2, 3, 50])},
        {"indptr": np.array([0, 3, 2, 3, 5])},
        {"shape": np.array([4, 1])},
        {"shape": np.array([-4, 3])},
        {"data": np.array([1.0, 2.0])},
        {"data": np.array(["a"] * 5)},
        {"data": np.array([1.0, 2.0, np.nan, 1.0, 3.0])},
        {"format": np.array(b"nope")},
        {"format": np.array(3)},
        {"format": np.array(b"dok")},
        {"indices": np.array([1.5, 0.0, 2.0, 0.0, 1.0])},
        {"indptr": np.array([0.0, 1.0, 2.0, 3.0, 5.0])},
        {"shape": np.array([2**64 - 1, 3], dtype=np.uint64)},
        {"shape": np.array([10**9, 3])},
        {"shape": np.array([4, 10**9])},
    ],
)
def test_bad_sparse_matrices_are_refused(replaced, tmp_path):
    sparse_file(tmp_path / "a.npz", **replaced)
    with pytest.raises(ValueError, match="allowed"):
        read_rows(tmp_path / "a.npz")


def test_npz_files_of_other_things_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, a=ROWS, b=ROWS)
    with pytest.raises(ValueError, match="it holds a, b; allowed: one array, or a SciPy sparse matrix"):
        read_rows(path)
    np.savez(path, format=np.array(b"csr"), data=np.array([None], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        read_rows(path)
    path.write_bytes(b"PK\x03\x04nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        read_rows(path)
    sparse_file(path)
    content = path.read_bytes()
    for length in (10, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read"):
            read_rows(path)
    # A byte of the data: the archive's checksum notices.
    damaged = bytearray(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged[archive.getinfo("data.npy").header_offset + 160] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="cannot be read"):
        read_rows(path)
    # A part that claims more than it holds.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("format.npy", saved(np.array(b"csr")))
        archive.writestr("data.npy", forged_header((10**12,)))
    with pytest.raises(ValueError, match="not the size that its header says"):
        read_rows(path)
    path.write_bytes(content)
    monkeypatch.setattr("persianrug._support.npy._MOST_UNPACKED", 100)
    with pytest.raises(ValueError, match="unpacks to"):
        read_rows(path)


def test_other_paths_are_refused(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    for name, word in [("none.npy", "No such file"), ("a.csv", "ends in .csv"), ("a", "ends in nothing"),
                       ("folder.npy", "not a regular file")]:  # fmt: skip
        with pytest.raises(ValueError, match=word):
            read_rows(tmp_path / name)


class TestWriting:
    def test_a_file_is_replaced_whole(self, tmp_path):
        path = tmp_path / "a.bin"
        for content in (b"one", b"another"):
            write_whole(path, content)
            assert path.read_bytes() == content
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]

    def test_a_failure_leaves_what_was_there(self, tmp_path, monkeypatch):
        path = tmp_path / "a.bin"
        write_whole(path, b"before")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, b"after")
        assert path.read_bytes() == b"before"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]

    def test_a_link_stays_a_link_and_permissions_follow_the_umask(self, tmp_path):
        (tmp_path / "real.bin").write_bytes(b"before")
        (tmp_path / "link.bin").symlink_to(tmp_path / "real.bin")
        write_whole(tmp_path / "link.bin", b"after")
        assert (tmp_path / "link.bin").is_symlink()
        assert (tmp_path / "real.bin").read_bytes() == b"after"
        umask = os.umask(0o022)
        os.umask(umask)
        assert (tmp_path / "real.bin").stat().st_mode & 0o777 == 0o666 & ~umask

    def test_folders_devices_and_missing_folders_are_refused(self, tmp_path):
        for path, word in [(tmp_path, "not a regular file"), ("/dev/null", "not a regular file"),
                           (tmp_path / "none" / "a", "is missing")]:  # fmt: skip
            with pytest.raises(ValueError, match=f"{word}; allowed"):
                check_writable(path)


def test_what_ended_processes_left_is_known_by_a_mark(tmp_path):
    with marked_temporaries("mine"), whole_file(tmp_path / "a") as first:
        with marked_temporaries("other"), whole_file(tmp_path / "b") as second:
            remove_temporaries(tmp_path, "mine")
            assert not Path(first.name).exists()
            assert Path(second.name).exists()
        Path(first.name).touch()
    with whole_file(tmp_path / "c") as third:
        assert not {"mine", "other"} & {*third.name.replace("-", ".").split(".")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
