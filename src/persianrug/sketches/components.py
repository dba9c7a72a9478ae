"""What principal components lose: the best linear code that rows can teach, with which a sketch is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persianrug._support.threads import one_thread

Floats = NDArray[np.float64]


def component_losses(fitted: Any, held_out: Any, mean: Floats) -> Floats:
    """Squared error per feature of rows, rebuilt from their first 0, 1, ... principal components, (m + 1,).

    Parameters
    ----------
    fitted : csr_array (rows, n_sparse)
        What the m components are learned from.
    held_out : csr_array (k, n_sparse)
        The rows.
    mean : array (n_sparse,)
    """
    others, seen = _seen(fitted, held_out, mean)
    power = others.square().sum(dim=0).sum(dim=0, keepdim=True)
    losses = torch.cat([power, power - seen.square().sum(dim=0).cumsum(dim=0)])
    return np.asarray(losses.clamp(min=0.0) / others.numel())


def component_losses_by_row(fitted: Any, held_out: Any, mean: Floats, components: int) -> Floats:
    """The same of each of the rows, by so many components, (k,)."""
    others, seen = _seen(fitted, held_out, mean)
    losses = others.square().sum(dim=1) - seen[:, :components].square().sum(dim=1)
    return np.asarray(losses.clamp(min=0.0) / others.shape[1])


# SciPy's eigenvectors take seconds, not tenths of one, where other programs are at work: its threads are its own.
@one_thread()
def _seen(fitted: Any, held_out: Any, mean: Floats) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows about the mean, (k, n_sparse), and their principal components, (k, m).

    By eigenvectors of the Gram matrix of the rows that are fitted, or of features, whichever are fewer.
    """
    rows, others = (torch.from_numpy(part.toarray() - mean) for part in (fitted, held_out))
    if not len(rows):
        return others, others[:, :0]
    few = len(rows) <= rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if few else rows.T @ rows)
    values, vectors = values.flip(0), vectors.flip(1)
    real = values > 1e-10 * values[0]
    values, vectors = values[real], vectors[:, real]
    return others, others @ (rows.T @ vectors / values.sqrt() if few else vectors)
