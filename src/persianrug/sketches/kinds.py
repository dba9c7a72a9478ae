"""Which kind of amplitudes the features of data have: the one that loses less on rows held out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.encoders import Rug
from persianrug.sketches.measured import losses, standard_error
from persianrug.sketches.sketch import Sketch
from persianrug.sources import FeatureMoments, Source, SparseGaussian, SparseLogNormal, SparseTruncatedNormal

# What is tried: a code of this many numbers a feature and bits, read at a look and by iterations, on rows of at
# most so many entries; iterations take their time.
_RATIO, _BITS = 0.25, 8
_TRIED, _ITERATED = 1 << 18, 1 << 16
# Fewer rows tell nothing of a standard error.
_FEW = 16
# Less is no gain: of a few numbers a code, it may come from a range of levels that suits by chance.
_LEAST_GAIN = 0.02
# Amplitudes of other sizes are not tried: codes of these have sums of squares beyond the range of 32 bits.
_LEAST, _MOST = 1e-15, checks.SQUARES_FIT


def fitted_source(
    moments: FeatureMoments, held_out: Any, groups: NDArray[np.int64] | None, least: float
) -> Source:
    """The source of these moments, of one kind for all features.

    Gaussian amplitudes where some are negative. Else normal ones that are cut at 0, or log-normal ones, of heavier
    tails: these where they lose less on the rows held out, by more than two standard errors and 2% when codes are
    read at a look, and less when read by iterations, which take 10 times as long with them.

    Parameters
    ----------
    moments : FeatureMoments
        Of rows that were fitted.
    held_out : csr_array (k, n_sparse), or None
    groups : array (k,), or None
        Which of these were held out together.
    least : float
        The least number of all rows.
    """
    if least < 0:
        return SparseGaussian.of_moments(moments)
    normal = SparseTruncatedNormal.of_moments(moments)
    if held_out is None:
        return normal
    other = SparseLogNormal.of_moments(moments)
    sizes = [normal.scale, other.scale, moments.means[moments.counts > 0]]
    if min(part.min() for part in sizes) < _LEAST or max(part.max() for part in sizes) > _MOST:
        return normal
    n_sparse = len(moments.counts)
    rug = Rug(n_sparse, max(1, round(_RATIO * n_sparse)))
    for decoder, most, errors, least_gain in (("bayes", _TRIED, 2.0, _LEAST_GAIN), ("oamp", _ITERATED, 0.0, 0.0)):
        rows = held_out[: max(_FEW, most // rug.n_sparse)]
        if rows.shape[0] < _FEW:
            return normal
        one, two = (losses(Sketch(source, rug, _BITS, decoder), rows) for source in (normal, other))
        gained = one - two
        doubt = errors * standard_error(gained, None if groups is None else groups[: len(gained)])
        if not float(gained.mean()) > max(doubt, least_gain * float(one.mean())):
            return normal
    return other
