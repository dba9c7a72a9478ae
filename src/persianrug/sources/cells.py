"""Features of nearly equal parameters, in cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Side of the cells in which features are taken to be nearly alike, in logarithms of their parameters.
_CELL = 0.15


def cells_of(coordinates: dict[str, Floats]) -> tuple[dict[str, Floats], NDArray[np.int64], Floats]:
    """Cells of features that differ by less than 0.15 in each of some coordinates, (n_sparse,) each.

    Returns
    -------
    places : arrays (cells,) by name
        The means of each cell.
    cell : array (n_sparse,)
        Which cell each feature is in.
    counts : array (cells,)
    """
    columns = np.stack(np.broadcast_arrays(*coordinates.values()), axis=1)
    _, cell, counts = np.unique(np.round(columns / _CELL), axis=0, return_inverse=True, return_counts=True)
    means = (np.bincount(cell, column) / counts for column in columns.T)
    return dict(zip(coordinates, means, strict=True)), cell, counts.astype(np.float64)
