"""What a store holds, as rows and as files."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from persianrug._support import checks
from persianrug._support.files import check_writable, write_whole
from persianrug.sweeps.store import Store
from persianrug.sweeps.sweep import Sweep


def rows(sweep: Sweep, where: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a store holds of the runs of a sweep: a dict a run, with what was asked for and what was found.

    Keys are those of `Run`, state and error, and of runs that are done

    - n_dense;
    - limit, predicted: laws, for infinitely many features and for this encoder; of trained networks those of the
      ReLU on a rug of this size;
    - measured, stderr, samples, seconds;
    - parameters of the decoder; or of trained networks the closure of their weights, verdict, and the statistics
      of `Symmetry`;
    - weights: the name of the file that holds them, where they were asked for.

    Raises
    ------
    ValueError
        If there is no such store or sweep.
    """
    store = Store(where, reading=True)
    try:
        found = [row["id"] for row in store.sweeps() if row["digest"] == sweep.digest]
        if not found:
            raise ValueError(f"store {store.name} has no sweep {sweep.name!r}; allowed: one that was run")
        return store.rows(found[0])
    finally:
        store.close()


def export(where: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write all runs of a store as a table, `.parquet` or `.csv`, and return their number.

    Raises
    ------
    ValueError
        If the store cannot be read, or the file is of another kind or cannot be written.
    """
    target = Path(checks.path("out", out))
    suffix = target.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out is {out}; allowed: a file that ends in .parquet or .csv")
    check_writable(target)
    store = Store(where, reading=True)
    try:
        found = [{"sweep": sweep["name"], **row} for sweep in store.sweeps() for row in store.rows(sweep["id"])]
    finally:
        store.close()
    columns = list(dict.fromkeys(name for row in found for name in row))
    content = io.BytesIO()
    if suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        content.write(text.getvalue().encode())
    else:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({name: [row.get(name) for row in found] for name in columns})
        pyarrow.parquet.write_table(table, content)
    write_whole(target, content.getvalue())
    return len(found)
