"""What a store holds, as rows, CSV and Parquet."""

import csv
import math

import numpy as np
import pyarrow.parquet
import pytest

from persianrug.sweeps.running import run_sweep
from persianrug.sweeps.store import Outcome, Store
from persianrug.sweeps.sweep import Sweep
from persianrug.sweeps.tables import export, rows
from tests.sweeps.helpers import SMALL


class TestResults:
    def test_of_what_was_not_run(self, tmp_path):
        run_sweep(Sweep(**SMALL), tmp_path / "s")
        with pytest.raises(ValueError, match="has no sweep 'other'; allowed: one that was run"):
            rows(Sweep(p=0.5, ratio=0.5, name="other"), tmp_path / "s")
        with pytest.raises(ValueError, match="is missing; allowed"):
            rows(Sweep(**SMALL), tmp_path / "none")


class TestExport:
    @pytest.fixture
    def filled(self, where):
        """A store of two sweeps with all kinds of numbers, and its rows."""
        store = Store(where)
        results = [
            {"measured": 1 / 3, "closure": None, "kind": 'rug, or "knot"\nor é', "samples": 2**60 + 1},
            {"measured": math.nan, "closure": math.inf, "ok": True},
            {"measured": -math.inf, "closure": 1e-300, "kind": "", "samples": 3},
        ]
        for digest, count in (("a", 3), ("b", 2)):
            sweep = store.add(
                digest * 64, digest, {}, [[{"number": k, "steps": None, "p": 0.1 * k}] for k in range(count)]
            )
            for result in results[:count]:
                batch = store.claim(sweep, "o")
                store.finish(batch, {run: Outcome(result) for run in batch.asked})
        store.add("c" * 64, "c", {}, [[{"number": 0, "steps": 5, "p": 1.0}]])
        found = [{"sweep": one["name"], **row} for one in store.sweeps() for row in store.rows(one["id"])]
        store.close()
        return where, found

    def test_csv(self, filled, tmp_path):
        where, found = filled
        assert export(where, tmp_path / "runs.CSV") == 6
        with (tmp_path / "runs.CSV").open(newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        assert [row["sweep"] for row in read] == ["a", "a", "a", "b", "b", "c"]
        columns = list(dict.fromkeys(key for row in found for key in row))
        for row, wanted in zip(read, found, strict=True):
            assert list(row) == columns
            for key in columns:
                value = wanted.get(key)
                if isinstance(value, float):
                    np.testing.assert_equal(float(row[key]), value)
                else:
                    assert row[key] == ("" if value is None else str(value))

    def test_parquet(self, filled, tmp_path):
        where, found = filled
        assert export(where, tmp_path / "runs.parquet") == 6
        table = pyarrow.parquet.read_table(tmp_path / "runs.parquet")
        columns = list(dict.fromkeys(key for row in found for key in row))
        assert table.column_names == columns
        read = table.to_pylist()
        for row, wanted in zip(read, found, strict=True):
            for key in columns:
                np.testing.assert_equal(row[key], wanted.get(key))
        assert str(table.schema.field("measured").type) == "double"
        assert str(table.schema.field("samples").type) == "int64"

    def test_of_a_real_sweep(self, tmp_path):
        sweep = Sweep(**SMALL, method=("relu", "oamp", "knot", "sampled"), source=("uniform", "gaussian"), steps=3,
                      batch=8, samples=8, name="all")  # fmt: skip
        run_sweep(sweep, tmp_path / "s")
        found = rows(sweep, tmp_path / "s")
        assert export(tmp_path / "s", tmp_path / "t.parquet") == len(sweep)
        for row, wanted in zip(pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist(), found, strict=True):
            assert {key: value for key, value in row.items() if value is not None} == {
                "sweep": "all", **{key: value for key, value in wanted.items() if value is not None}
            }  # fmt: skip

    def test_of_an_empty_store(self, tmp_path):
        Store(tmp_path / "s").close()
        for name in ("t.csv", "t.parquet"):
            assert export(tmp_path / "s", tmp_path / name) == 0
        assert pyarrow.parquet.read_table(tmp_path / "t.parquet").num_rows == 0

    @pytest.mark.parametrize(
        ("out", "said"),
        [
            ("t.xlsx", "--out is .*t.xlsx; allowed: a file that ends in .parquet or .csv"),
            ("t", "allowed: a file that ends in .parquet or .csv"),
            ("none/t.csv", "none is missing; allowed: an existing folder"),
            ("folder.csv", "is not a regular file; allowed"),
        ],
    )
    def test_what_is_refused(self, tmp_path, out, said):
        Store(tmp_path / "s").close()
        (tmp_path / "folder.csv").mkdir()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=said):
            export(tmp_path / "s", tmp_path / out)
        with pytest.raises(ValueError, match="is missing; allowed: a store that a sweep has written"):
            export(tmp_path / "none", tmp_path / "t.csv")
        assert sorted(tmp_path.rglob("*")) == before
