"""What sketches lose on rows, with the standard error of the mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.sketches.sketch import BLOCK, Sketch

Floats = NDArray[np.float64]


def losses(sketch: Sketch, rows: Any) -> Any:
    """Measured loss per feature of each of some rows, (rows,), an array or a SciPy sparse matrix."""
    checks.instance("sketch", sketch, Sketch)
    checks.rows("rows", rows, sketch.rug.n_sparse)
    found = []
    step = max(1, BLOCK // sketch.rug.n_sparse)
    for start in range(0, rows.shape[0], step):
        part = rows[start : start + step]
        x = np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)
        found.append(np.square(sketch.decode(sketch.encode(x)) - x).mean(axis=1))
    return np.concatenate(found)


def standard_error(found: Floats, groups: NDArray[np.int64] | None) -> float:
    """Standard error of the mean, of rows that are independent or of groups that are."""
    if groups is not None:
        # It takes a third of a second to import.
        import scipy.stats

        _, group = np.unique(groups, return_inverse=True)
        counts = np.bincount(group)
        if len(counts) > 1:
            means = np.bincount(group, found) / counts
            # Twice it is to hold as often as of many groups.
            few = float(scipy.stats.t.ppf(0.975, len(counts) - 1) / scipy.stats.norm.ppf(0.975))
            return few * float(means.std(ddof=1)) / math.sqrt(len(counts))
    return float(found.std(ddof=1)) / math.sqrt(len(found))
