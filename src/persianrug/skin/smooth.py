"""Skins of which much is touched at once: mats and insoles, read by what their numbers have to do with each other.

Where more than a seventh of the taxels is touched, which ones matters less than that neighbours read alike. Frames
are then rows of a sketch (persianrug.sketches): the same codes, read by the decoder that loses least on frames
that were held out, mostly one that knows how numbers go together. Each frame is read by itself.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianrug.channel import Channel
from persianrug.encoders import Rug
from persianrug.encoders.transforms import forward
from persianrug.sketches.codes import Codes, Mixture
from persianrug.sketches.hold_out import HoldOut
from persianrug.sketches.plan import make_plan
from persianrug.sketches.profile import Profile, ProfileFitter
from persianrug.skin.frames import Frames
from persianrug.skin.hadamard import SignedHadamard
from persianrug.skin.paley import paley, size_for
from persianrug.sources import Each

Floats = NDArray[np.float32]

# Frames that are fitted at a time.
_CHUNK = 256
# Decoders are tuned to the deviation of a code's noise in steps of this factor.
_STEP = 2.0**0.5


class HadamardRug(Rug):
    """A rug with the signs and rows of a skin's transform of N numbers.

    Parameters
    ----------
    transform : SignedHadamard
    n_dense : int
        The first so many entries of its code.
    """

    def __init__(self, transform: SignedHadamard, n_dense: int) -> None:
        super().__init__(transform.size, n_dense, transform.seed)
        # Numbers first, and what is padded.
        padded = np.setdiff1d(np.arange(transform.size), transform.columns)
        self._columns = torch.from_numpy(np.concatenate([transform.columns, padded]))
        self._flips = torch.ones(transform.size, dtype=torch.float64)
        self._flips[: transform.n] = torch.from_numpy(transform.signs.astype(np.float64))
        self._places = torch.from_numpy(transform.order[:n_dense].copy())
        self._first = torch.from_numpy(paley(transform.base) * transform.base**-0.5)

    @property
    def inverse_participation(self) -> float:
        # That of Gaussian entries, as those of W nearly are.
        return 3 / (self.n_sparse - 1)

    def interference_of(self, variance: Each, channel: Channel) -> NDArray[np.float64]:
        # Of all numbers the same, up to what random signs leave.
        kept = channel.kept(self.n_dense)
        share = np.sum(variance) - variance if np.ndim(variance) else (self.n_sparse - 1) * variance
        return np.asarray(share * (self.n_sparse - kept) / kept / (self.n_sparse - 1))

    def _mixed(self, x: Tensor, first: Tensor) -> Tensor:
        """The orthonormal transform, with Paley's matrix or its transpose."""
        h = len(first)
        y = forward(x.reshape(*x.shape[:-1], h, self.n_sparse // h))
        return (first.to(y) @ y if h > 1 else y).reshape(x.shape)

    def _forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x).index_copy(-1, self._columns, x * self._flips.to(x))
        return self._mixed(y, self._first).index_select(-1, self._places)

    def _spread(self, z: Tensor, scale: float) -> Tensor:
        y = z.new_zeros(*z.shape[:-1], self.n_sparse).index_copy(-1, self._places, z)
        x = self._mixed(y, self._first.T).index_select(-1, self._columns)
        return x * (scale * self._flips.to(z))


def fit_rows(frames: Frames, numbers: NDArray[np.int64]) -> Profile:
    """The distribution of some numbers of frames, as rows padded to the length of their transform.

    Where frames follow each other, blocks of them are held out.
    """
    size, _ = size_for(len(numbers))
    fitter, hold_out = ProfileFitter(size), HoldOut("auto", len(frames))
    for start in range(0, len(frames), _CHUNK):
        part = [frames[k] for k in range(start, min(start + _CHUNK, len(frames)))]
        rows = np.zeros((len(part), size), np.float32)
        rows[:, : len(numbers)] = np.stack(part)[:, numbers]
        fitter.add(rows, hold_out.groups(start, rows))
    return fitter.profile()


class SmoothReader:
    """Reads codes of frames of a smooth skin.

    Parameters
    ----------
    rows : Profile
        As `fit_rows` makes it.
    transform : SignedHadamard
    n_dense : int
        How many entries a code has.

    Attributes
    ----------
    plan : Plan
        What it loses, and by which decoder.
    variance : array (n,)
        The expected squared error of every number.
    """

    def __init__(self, rows: Profile, transform: SignedHadamard, n_dense: int) -> None:
        self.transform, self.n_dense, self.rows = transform, n_dense, rows
        self.plan, sketch = make_plan(rows, n_dense=n_dense)
        self.sketch = replace(sketch, rug=HadamardRug(transform, n_dense))
        losses = self.sketch.losses()[: transform.n]
        expected = self.plan.loss * transform.size
        self.variance: Floats = (losses * (expected / max(losses.sum(), 1e-300))).astype(np.float32)

    def read(self, entries: NDArray[np.int64], z: Floats, noise: float) -> Floats:
        """The numbers (n,) that some entries of a code, in newtons, with noise of this variance, are of."""
        values = np.full((1, self.n_dense), np.nan, np.float32)
        here = entries < self.n_dense
        values[0, entries[here]] = z[here]
        level = _STEP ** round(math.log(max(noise, 1e-12)) / 2 / math.log(_STEP))
        codes = Codes(values, self.sketch.rug, Mixture(noise=level**2), None)
        with torch.inference_mode():
            return np.asarray(self.sketch.decode(codes))[0, : self.transform.n]

    def losses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Squared error that is expected of frames held out in the fit, and their energies (frames,).

        The plan says how much that is on average, by decoders that have not seen these frames; how it differs
        between them is told by one that has.
        """
        held_out = self.rows.held_out
        lost = self.sketch.laws_on(held_out)
        lost *= self.plan.loss * self.transform.size / max(float(lost.mean()), 1e-300)
        return lost, np.asarray(held_out.multiply(held_out).sum(axis=1)).ravel()
