"""Files of rows, kind by kind: what each can hold, and what is refused of it."""

import io
import pickle
import sys
import warnings
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from persianrug.sketches import rows as rows_module
from persianrug.sketches.rows import open_rows
from tests.conftest import forged_header, saved
from tests.sketches.helpers.rows import (
    BLOCKS,
    COUNT,
    NAMES,
    ROWS,
    N,
    peak_below,
    read,
    refused,
    save_h5ad,
    save_parts,
    save_table,
    save_zeros,
)

with warnings.catch_warnings(action="ignore"):
    import anndata
    import pandas


class TestNpy:
    @pytest.mark.parametrize("shape", [(1, 5), (7, 2), (1, 2)])
    def test_few_rows(self, shape, tmp_path):
        x = np.arange(shape[0] * shape[1], dtype="f4").reshape(shape)
        np.save(tmp_path / "x.npy", x)
        assert np.array_equal(read(tmp_path / "x.npy"), x)

    def test_later_versions_of_the_format(self, tmp_path):
        for version in ((2, 0), (3, 0)):
            with (tmp_path / "x.npy").open("wb") as file:
                np.lib.format.write_array(file, ROWS.astype("f4"), version=version)
            assert np.array_equal(read(tmp_path / "x.npy"), ROWS)
            content = io.BytesIO((tmp_path / "x.npy").read_bytes())
            assert np.array_equal(read("pipe", content), ROWS)

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            (b"", "cannot be read"),
            (b"hello", "cannot be read"),
            (pickle.dumps(ROWS), "cannot be read"),
            (saved(np.array([[1, None], ["a", 2]], dtype=object), allow_pickle=True), "cannot be read"),
            (saved(np.array([["a", "b"]] * 4)), "of type <U1"),
            (saved(ROWS.astype(complex)), "of type complex128"),
            (saved(ROWS.astype("M8[s]")), "of type datetime64"),
            (saved(ROWS[0]), "has 1 dimensions; allowed: 2"),
            (saved(np.array(3.0)), "has 0 dimensions; allowed: 2"),
            (saved(ROWS[None]), "has 3 dimensions; allowed: 2"),
            (saved(np.zeros((0, 5))), r"\(0, 5\); allowed: at least one row and 2 features"),
            (saved(ROWS[:, :1]), r"\(23, 1\); allowed: at least one row and 2 features"),
            (saved(np.zeros((4, 0))), r"\(4, 0\); allowed: at least one row and 2 features"),
            (forged_header((10**12, 10**6)), "cannot be read"),
            (forged_header((10**12, 2)), "cannot be read"),
            (forged_header((2, 10**12)), "cannot be read"),
            (forged_header((10**30, 2)), "cannot be read"),
            (forged_header((2, 10**30)), "cannot be read"),
            (forged_header((-3, 4)), "cannot be read"),
            (forged_header((-3, -4)), "cannot be read"),
        ],
    )
    def test_other_content_is_refused_at_once(self, content, word, tmp_path):
        path = tmp_path / "x.npy"
        path.write_bytes(content)
        with peak_below(1 << 20):
            refused(path, word)
        with peak_below(1 << 20):
            refused("standard input", word, io.BytesIO(content))


class TestNpz:
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_an_array_that_is_packed_to_a_thousandth(self, order, tmp_path):
        # Zeros of a moderate size are read, whatever they are packed to; a row that would fill memory is not.
        np.savez_compressed(tmp_path / "x.npz", np.zeros((2000, 3000), "f4", order))
        assert not read(tmp_path / "x.npz").any()
        save_zeros(tmp_path / "x.npz", order == "F", x=(4, 1 << 22))
        with peak_below(1 << 20):
            refused(
                tmp_path / "x.npz", "claims 4194304 features, too many for its .* bytes; allowed: up to 1048576"
            )

    def test_a_header_that_claims_more_than_any_has(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + (1 << 26).to_bytes(4, "little") + bytes(1 << 26))
        with peak_below(1 << 20):
            refused(tmp_path / "x.npz", "its header claims 67108864 bytes")

    def test_several_arrays_are_refused_by_name(self, tmp_path):
        np.savez(tmp_path / "x.npz", one=ROWS, other=ROWS)
        refused(tmp_path / "x.npz", "holds one, other; allowed: one array, or a SciPy sparse matrix")

    def test_nothing_and_other_archives(self, tmp_path):
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w"):
            pass
        refused(path, "holds nothing; allowed")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "not an array, but a text of some length")
        refused(path, "cannot be read")

    @pytest.mark.parametrize(
        ("array", "word"),
        [
            (np.array([[None, 1]], dtype=object), "cannot be read"),
            (np.array([["a", "b"]]), "of type <U1"),
            (ROWS.astype(complex), "of type complex128"),
            (ROWS[0], "1 dimensions; allowed: 2"),
            (ROWS[:, :1], "at least one row and 2 features"),
            (ROWS[:0], "at least one row and 2 features"),
        ],
    )
    def test_other_arrays_are_refused(self, array, word, tmp_path):
        np.savez(tmp_path / "x.npz", array)
        refused(tmp_path / "x.npz", word)

    @pytest.mark.parametrize("shape", [(10**12, 2), (2, 10**12), (10**30, 4), (-3, 4)])
    @pytest.mark.parametrize("name", ["x.npy", "data.npy"])
    def test_an_array_that_claims_more_than_it_holds(self, shape, name, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr(name, forged_header(shape))
        with peak_below(1 << 20):
            refused(tmp_path / "x.npz", "cannot be read")

    def test_damage_is_noticed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", 5 * N)
        path = tmp_path / "x.npz"
        for write in (
            lambda: np.savez(path, ROWS),
            lambda: scipy.sparse.save_npz(path, scipy.sparse.csr_array(ROWS), compressed=False),
        ):
            write()
            content = path.read_bytes()
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if entry.file_size > 150]
            for entry in entries:
                damaged = bytearray(content)
                damaged[entry.header_offset + 30 + len(entry.filename) + 20 + 128 + 8] ^= 1
                path.write_bytes(damaged)
                refused(path, "cannot be read")


class TestSparse:
    """The places of csr matrices, which SciPy does not check where it writes them."""

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("wide", ["i4", "i8", "u4"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_entries_in_any_order(self, block, wide, compressed, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        save_parts(tmp_path / "x.npz", compressed, data=np.array([1.0, 2, 4, 5]),
                   indices=np.array([2, 0, 1, 0], wide), indptr=np.array([0, 2, 2, 4], wide))  # fmt: skip
        assert read(tmp_path / "x.npz").tolist() == [[2, 0, 1], [0, 0, 0], [5, 4, 0]]

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
    def test_duplicates_are_added(self, block, dtype, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        save_parts(tmp_path / "x.npz", data=np.array([1, 2, 4, 8, 5], dtype),
                   indices=np.array([0, 0, 1, 2, 1]), indptr=np.array([0, 2, 3, 5]))  # fmt: skip
        assert read(tmp_path / "x.npz").tolist() == [[3, 0, 0], [0, 4, 0], [0, 5, 8]]
        matrix = scipy.sparse.coo_array(([1, 2, 4], ([0, 0, 2], [1, 1, 0])), shape=(3, 3), dtype=dtype)
        scipy.sparse.save_npz(tmp_path / "x.npz", matrix)
        assert read(tmp_path / "x.npz").tolist() == [[0, 3, 0], [0, 0, 0], [4, 0, 0]]

    @pytest.mark.parametrize(
        ("dtype", "value"), [("u1", 200), ("i1", 100), ("?", 1), ("f2", 40000), ("u2", 60000)]
    )
    @pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
    def test_parts_of_an_entry_are_added_as_floats(self, kind, dtype, value, tmp_path):
        # Two parts of one entry, whose sum the type would not hold.
        data, row, column = np.array([value, value, 1], dtype), np.array([0, 0, 2]), np.array([1, 1, 2])
        parts = {
            "csr": {"data": data, "indices": column, "indptr": np.array([0, 2, 2, 3])},
            "csc": {"data": data, "indices": row, "indptr": np.array([0, 0, 2, 3])},
            "coo": {"data": data, "row": row, "col": column},
            "bsr": {"data": data[:, None, None], "indices": column, "indptr": np.array([0, 2, 2, 3])},
            "dia": {"data": data[None, :], "offsets": np.array([0])},
        }[kind]
        save_parts(tmp_path / "x.npz", format=np.array(kind.encode()), **parts)
        expected = np.diag([value, value, 1]) if kind == "dia" else [[0, 2 * value, 0], [0, 0, 0], [0, 0, 1]]
        assert np.array_equal(read(tmp_path / "x.npz"), expected)
        if kind in ("csr", "csc"):
            save_h5ad(tmp_path / "x.h5ad", scipy.sparse.csr_matrix(np.eye(3, dtype="f4")).asformat(kind))
            with h5py.File(tmp_path / "x.h5ad", "r+") as file:
                for name, part in parts.items():
                    del file["X"][name]
                    file["X"][name] = part
            assert np.array_equal(read(tmp_path / "x.h5ad"), expected)

    @pytest.mark.parametrize(
        ("kind", "shape", "word"),
        [
            ("csr", (3, 10**7), "features"), ("csc", (10**7, 3), "rows"), ("coo", (10**7, 3), "rows"),
            ("coo", (3, 10**7), "features"), ("dia", (10**7, 3), "rows"), ("bsr", (3, 10**7), "features"),
        ],
    )  # fmt: skip
    def test_a_few_bytes_that_claim_ten_millions(self, kind, shape, word, tmp_path):
        parts = {
            "coo": {"data": np.ones(1), "row": np.zeros(1, "i4"), "col": np.zeros(1, "i4")},
            "dia": {"data": np.ones((1, 1)), "offsets": np.zeros(1, "i4")},
            "bsr": {"data": np.ones((1, 1, 1)), "indices": np.zeros(1, "i4"), "indptr": np.array([0, 1, 1, 1])},
        }.get(kind, {"data": np.ones(1), "indices": np.zeros(1, "i4"), "indptr": np.array([0, 1, 1, 1])})
        save_parts(tmp_path / "x.npz", True, format=np.array(kind.encode()), shape=np.array(shape), **parts)
        with peak_below(1 << 20):
            refused(
                tmp_path / "x.npz", f"claims 10000000 {word}, too many for its .* bytes; allowed: up to 1048576"
            )

    def test_entries_that_are_packed_to_a_thousandth(self, tmp_path, monkeypatch):
        for kind, names in (("csr", ("data", "indices")), ("coo", ("data", "row", "col"))):
            parts = {"format": np.array(kind.encode()), "shape": np.array([3, 5])}
            parts["indptr"] = np.array([0, 1 << 23, 1 << 23, 1 << 23])
            save_zeros(tmp_path / "x.npz", parts=parts, **dict.fromkeys(names, (1 << 23,)))
            monkeypatch.setattr("persianrug._support.npy._FREELY_UNPACKED", 1 << 20)
            with peak_below(1 << 20):
                refused(tmp_path / "x.npz", "too many for its .* bytes; allowed: up to")

    def test_a_shape_of_many_sides(self, tmp_path):
        save_zeros(tmp_path / "x.npz", parts={"format": np.array(b"csr")}, shape=(1 << 22,))
        with peak_below(1 << 20):
            refused(tmp_path / "x.npz", "its shape has .* bytes")

    @pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
    def test_real_ones_that_are_packed_well_are_read(self, kind, tmp_path):
        rng = np.random.default_rng(0)
        for matrix in (
            scipy.sparse.random_array((700, 765), density=0.33, rng=rng),
            scipy.sparse.random_array(
                (100_000, 8192), density=0.0001, rng=rng, data_sampler=lambda size: np.ones(size)
            ),
            scipy.sparse.coo_array((100_000, 1 << 20)),
        ):
            scipy.sparse.save_npz(tmp_path / "x.npz", matrix.asformat(kind))
            file = open_rows(tmp_path / "x.npz")
            assert (file.rows, file.n_sparse) == matrix.shape
            assert next(file.blocks()).shape[1] == matrix.shape[1]

    def test_more_duplicates_than_features(self, tmp_path):
        save_parts(tmp_path / "x.npz", data=np.ones(7), indices=np.array([0, 1, 0, 1, 0, 2, 2]),
                   indptr=np.array([0, 5, 6, 7]))  # fmt: skip
        expected = scipy.sparse.load_npz(tmp_path / "x.npz").toarray()
        assert np.array_equal(read(tmp_path / "x.npz"), expected)

    @pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
    @pytest.mark.parametrize("block", BLOCKS)
    def test_nothing_stored(self, kind, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array((COUNT, N)).asformat(kind))
        assert np.array_equal(read(tmp_path / "x.npz"), np.zeros((COUNT, N)))

    def test_zeros_that_are_stored(self, tmp_path):
        save_parts(tmp_path / "x.npz", data=np.array([0.0, 2, 0]), indices=np.array([0, 1, 2]),
                   indptr=np.array([0, 1, 2, 3]))  # fmt: skip
        assert read(tmp_path / "x.npz").tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(
        "change",
        [
            {"indices": np.array([0, 3, 2])},
            {"indices": np.array([0, -1, 2])},
            {"indices": np.array([0, 10**12, 2])},
            {"indices": np.array([0.0, 1.0, 2.0])},
            {"indices": np.array([[0, 1, 2]])},
            {"indices": np.array([0, 1])},
            {"indptr": np.array([0, 2, 1, 3])},
            {"indptr": np.array([0, 1, 2, 50])},
            {"indptr": np.array([0, 1, 2, 10**18])},
            {"indptr": np.array([0, 1, 2, 2**63], dtype="u8")},
            {"indptr": np.array([0, -1, 2, 3])},
            {"indptr": np.array([1, 1, 2, 3])},
            {"indptr": np.array([-1, 1, 2, 3])},
            {"indptr": np.array([0, 1, 3])},
            {"indptr": np.array([0, 1, 2, 3, 3])},
            {"indptr": np.array([0.0, 1.0, 2.0, 3.0])},
            {"data": np.array([1.0, 2.0])},
            {"data": np.array([1.0, 2.0, np.nan])},
            {"data": np.array(["a", "b", "c"])},
            {"data": np.array([1, 2, 3], complex)},
            {"data": np.array([None, 1, 2], dtype=object)},
            {"shape": np.array([3, 1])},
            {"shape": np.array([2, 3])},
            {"shape": np.array([-3, 3])},
            {"shape": np.array([3, -3])},
            {"shape": np.array([3])},
            {"shape": np.array([3, 3, 3])},
            {"shape": np.array([3, 10**12])},
            {"shape": np.array([10**12, 3])},
            {"shape": np.array([2**64 - 1, 3], dtype="u8")},
            {"format": np.array(b"dok")},
            {"format": np.array(3)},
        ],
    )  # fmt: skip
    def test_impossible_ones_are_refused(self, change, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        true = {"data": np.array([1.0, 2, 3]), "indices": np.array([0, 1, 2]), "indptr": np.array([0, 1, 2, 3])}
        save_parts(tmp_path / "x.npz", **{**true, **change})
        with peak_below(2 << 20):
            refused(tmp_path / "x.npz", "cannot be read")
        save_parts(tmp_path / "x.npz", **true)
        assert np.array_equal(read(tmp_path / "x.npz"), np.diag([1, 2, 3]))

    def test_a_part_is_missing(self, tmp_path):
        save_parts(tmp_path / "x.npz", data=np.array([1.0, 2, 3]), indices=np.array([0, 1, 2]))
        refused(tmp_path / "x.npz", "cannot be read")

    @pytest.mark.parametrize("kind", ["csc", "coo"])
    def test_impossible_ones_of_other_formats(self, kind, tmp_path):
        places = {"csc": ("indices", "indptr"), "coo": ("row", "col")}[kind]
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(ROWS).asformat(kind))
        with np.load(tmp_path / "x.npz") as archive:
            parts = dict(archive)
        if kind == "coo" and "coords" in parts:
            places = ("coords",)
        for name in places:
            for value in (10**6, -1):
                changed = parts[name].copy()
                changed.flat[-1] = value
                np.savez(tmp_path / "x.npz", **{**parts, name: changed})
                refused(tmp_path / "x.npz", "cannot be read")


class TestH5ad:
    def test_without_anndata_the_extra_is_named(self, tmp_path, monkeypatch):
        save_h5ad(tmp_path / "x.h5ad", ROWS.astype("f4"))
        assert np.array_equal(read(tmp_path / "x.h5ad"), ROWS)
        monkeypatch.setitem(sys.modules, "h5py", None)
        refused(tmp_path / "x.h5ad", r"allowed: pip install '\.\[anndata\]' in a clone of persianrug")

    @pytest.mark.parametrize("kind", ["array", "csr"])
    @pytest.mark.parametrize(("rows", "n_sparse", "word"), [(4, 1 << 28, "features"), (1 << 40, 4, "rows")])
    def test_claims_that_take_no_bytes(self, kind, rows, n_sparse, word, tmp_path):
        # Of a dataset that is stored in chunks, those that were never written are not there.
        with h5py.File(tmp_path / "x.h5ad", "w") as file:
            for table, count in (("obs", rows), ("var", n_sparse)):
                file.create_group(table).attrs["_index"] = "_index"
                file[table].create_dataset("_index", (count,), h5py.string_dtype(), chunks=(4,))
            if kind == "array":
                file.create_dataset("X", (rows, n_sparse), "f4", chunks=(4, 4))
            else:
                file.create_group("X").attrs.update({"encoding-type": "csr_matrix", "shape": (rows, n_sparse)})
                for part, count in (("indptr", rows + 1), ("indices", 1 << 40), ("data", 1 << 40)):
                    file["X"].create_dataset(part, (count,), "i8", chunks=(4,))
        with peak_below(1 << 21):
            refused(tmp_path / "x.h5ad", f"claims .* {word}, too many for its .* bytes; allowed: up to 1048576")

    def test_entries_and_chunks_that_take_no_bytes(self, tmp_path):
        path = tmp_path / "x.h5ad"
        for chunk, claimed, word in ((4, 1 << 40, "claim 1099511627776 entries"), (1 << 28, 1, "in chunks of")):
            save_h5ad(path, scipy.sparse.csr_matrix(ROWS.astype("f4")))
            with h5py.File(path, "r+") as file:
                for part in ("indices", "data"):
                    del file["X"][part]
                    file["X"].create_dataset(part, (1 << 40,), "i8", chunks=(chunk,))
                del file["X"]["indptr"]
                file["X"]["indptr"] = np.array([0] + [claimed] * COUNT)
            with peak_below(1 << 21):
                refused(path, word)

    def test_without_a_matrix(self, tmp_path):
        anndata.AnnData(obs=pandas.DataFrame(index=["a", "b"]), var=pandas.DataFrame(index=["x", "y"])).write_h5ad(
            tmp_path / "x.h5ad"
        )
        refused(tmp_path / "x.h5ad", "cannot be read")

    def test_one_feature_and_no_rows(self, tmp_path):
        for name, x in (("a.h5ad", ROWS[:, :1]), ("b.h5ad", ROWS[:0])):
            save_h5ad(tmp_path / name, x.astype("f4"))
            refused(tmp_path / name, "at least one row and 2 features")

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "x.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
        refused(tmp_path / "x.h5ad", "cannot be read")


class TestParquet:
    def test_columns_of_several_types(self, tmp_path):
        columns = {"a": np.array([True, False, True]), "b": np.array([1, 2, 3], "i1"),
                   "c": np.array([0.5, 0, 1], "f4"), "d": np.array([0, 2**40 + 1, 0])}  # fmt: skip
        save_table(tmp_path / "x.parquet", columns)
        assert open_rows(tmp_path / "x.parquet").names == ("a", "b", "c", "d")
        expected = np.column_stack([column.astype("f8") for column in columns.values()])
        assert np.array_equal(read(tmp_path / "x.parquet"), expected)

    @pytest.mark.parametrize("block", BLOCKS)
    def test_booleans(self, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        save_table(tmp_path / "x.parquet", dict(zip(NAMES, (ROWS > 0).T, strict=True)))
        assert np.array_equal(read(tmp_path / "x.parquet"), ROWS > 0)

    @pytest.mark.parametrize("index", [[3, 7, 8], ["x", "y", "z"]])
    def test_an_index_of_pandas_is_no_feature(self, index, tmp_path):
        frame = pandas.DataFrame({"a": [1.0, 0, 2], "b": [0.0, 3, 4]}, index=index)
        frame.to_parquet(tmp_path / "x.parquet")
        assert open_rows(tmp_path / "x.parquet").names == ("a", "b")
        assert read(tmp_path / "x.parquet").tolist() == [[1, 0], [0, 3], [2, 4]]

    @pytest.mark.parametrize(
        "column",
        [["a", "b"], [b"a", b"b"], [[1], [2]], [None, None], pandas.to_datetime(["2020-01-01", "2020-01-02"])],
    )
    def test_columns_of_something_else_are_refused_by_name(self, column, tmp_path):
        save_table(tmp_path / "x.parquet", {"count": [1, 2], "the other": pyarrow.array(column), "last": [1, 2]})
        refused(tmp_path / "x.parquet", "column 'the other' is of type .*; allowed: columns of numbers alone")

    @pytest.mark.parametrize("column", [[1, None], [None, 0.5], [None, True]])
    def test_missing_values_are_refused_by_name(self, column, tmp_path):
        save_table(tmp_path / "x.parquet", {"count": [1, 2], "the other": column})
        refused(tmp_path / "x.parquet", "column 'the other' has missing values; allowed: numbers")

    def test_columns_that_are_packed_to_a_thousandth(self, tmp_path, monkeypatch):
        columns = {name: np.zeros(1 << 20) for name in "ab"}
        save_table(tmp_path / "x.parquet", columns, compression="zstd", use_dictionary=False)
        assert not read(tmp_path / "x.parquet").any()
        monkeypatch.setattr("persianrug._support.npy._FREELY_UNPACKED", 1 << 20)
        refused(tmp_path / "x.parquet", "unpacks to .* bytes, too many for its .* bytes; allowed: up to 1048576")

    def test_no_rows_and_one_column(self, tmp_path):
        for columns in ({"a": [1, 2]}, {"a": np.zeros(0), "b": np.zeros(0)}, {}):
            save_table(tmp_path / "x.parquet", columns)
            refused(tmp_path / "x.parquet", "at least one row and 2 features")


class TestSafetensors:
    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(
        "dtype", ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
    )
    def test_types(self, dtype, block, tmp_path, monkeypatch):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        x = torch.tensor(ROWS).to(getattr(torch, dtype)).clone()
        if dtype in ("int32", "int64"):
            x[0, 0] = 2**24 + 1
        if dtype == "float64":
            x[0, 0] = 1 / 3
        save_file({"acts": x}, tmp_path / "x.safetensors")
        assert np.array_equal(read(tmp_path / "x.safetensors"), x.double().numpy())

    @pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
    def test_unsigned_types_are_exact_too(self, dtype, tmp_path):
        x = ROWS.astype(dtype)
        x[0, 0] = 2**16 - 1 if dtype == "uint16" else 2**24 + 1
        save_file({"acts": torch.from_numpy(x)}, tmp_path / "x.safetensors")
        assert np.array_equal(read(tmp_path / "x.safetensors"), x)

    @pytest.mark.parametrize(
        ("tensors", "word"),
        [
            ({"one": torch.ones(3, 3), "other": torch.ones(3, 3)}, "holds one, other; allowed: one tensor"),
            ({"one": torch.ones(3)}, "has 1 dimensions; allowed: 2"),
            ({"one": torch.ones(3, 3, 3)}, "has 3 dimensions; allowed: 2"),
            ({}, "holds nothing; allowed: one tensor"),
            ({"one": torch.ones(3, 1)}, "at least one row and 2 features"),
            ({"one": torch.ones(0, 3)}, "at least one row and 2 features"),
            ({"one": torch.ones(3, 3, dtype=torch.complex64)}, "complex64"),
        ],
    )
    def test_others_are_refused(self, tensors, word, tmp_path):
        save_file(tensors, tmp_path / "x.safetensors")
        refused(tmp_path / "x.safetensors", word)

    def test_headers_that_claim_what_is_not_there(self, tmp_path):
        for text in (
            b'{"x":{"dtype":"F32","shape":[1000000000000,4],"data_offsets":[0,16000000000000]}}',
            b'{"x":{"dtype":"F32","shape":[1000000000000,4],"data_offsets":[0,64]}}',
            b"[]",
        ):
            (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
            with peak_below(1 << 20):
                refused(tmp_path / "x.safetensors", "cannot be read")
        (tmp_path / "x.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
        refused(tmp_path / "x.safetensors", "cannot be read")
