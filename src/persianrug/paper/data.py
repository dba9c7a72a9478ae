"""What the runs of a plan gave."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from persianrug.paper.plan import BUDGETS, Plan, sweeps
from persianrug.sweeps.store import DONE, FAILED
from persianrug.sweeps.tables import rows

# Where runs and weights are kept in the folder of a reproduction.
STORE, WEIGHTS = "runs.sqlite", "weights"
# Runs that are few, and all needed.
_WHOLE = ("shown", *BUDGETS, "rare", "ladder")


class Data:
    """What the runs of a plan gave: `data[name]` has the rows of a sweep that are done."""

    def __init__(self, plan: Plan, folder: Path, names: Iterable[str]) -> None:
        self.plan, self.folder = plan, folder
        self.sweeps = {name: sweep for name, sweep in sweeps(plan).items() if name in set(names)}
        self._rows = {name: rows(sweep, folder / STORE) for name, sweep in self.sweeps.items()}

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self._rows[name] if row["state"] == DONE]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The rows of runs that failed."""
        return [row for found in self._rows.values() for row in found if row["state"] == FAILED]

    @property
    def every(self) -> list[dict[str, Any]]:
        """The rows of all runs that are done."""
        return [row for name in self._rows for row in self[name]]

    def check(self) -> None:
        """ValueError if so many runs failed that there is no figure or claim: all of a size, or one of a few."""
        for name, sweep in self.sweeps.items():
            failed = [row for row in self._rows[name] if row["state"] == FAILED]
            there = {(row["n_sparse"], row["method"]) for row in self[name]}
            wanted = set(itertools.product(sweep.n_sparse, sweep.method))
            if failed and (name in _WHOLE or there < wanted):
                raise ValueError(
                    f"{len(failed)} of {len(sweep)} runs for {name} failed, the first with: {failed[0]['error']}; "
                    "allowed: as many as leave something to draw; the next time they are tried again"
                )

    def network(self) -> Any:
        """The trained network whose weights are shown."""
        from persianrug.networks.network import Network

        return Network.load(self.folder / WEIGHTS / self["shown"][0]["weights"])
