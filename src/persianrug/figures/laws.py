"""Laws of decoders on a rug of the paper's source, for n_sparse -> infinity."""

from __future__ import annotations

from functools import lru_cache

from persianrug.decoders.base import Decoder
from persianrug.encoders import Rug, noise_level
from persianrug.sources import SparseUniform

# Of a rug whose n_dense / n_sparse is any ratio, to nine digits.
_HUGE = 1 << 30


@lru_cache(maxsize=1 << 14)
def limit(kind: type[Decoder], p: float, ratio: float) -> float:
    """The loss per feature of a kind of decoder, tuned."""
    source, encoder = SparseUniform(p), Rug.of_ratio(_HUGE, ratio)
    return float(kind().adapt(source, encoder).limit(source, encoder))


def noise(p: float, ratio: float) -> float:
    """Standard deviation of the interference on a feature."""
    return float(noise_level(float(SparseUniform(p).variance), ratio))
