"""Encoders: the linear bottleneck, what it leaves between features, and a fast way to apply it."""

from persianrug.encoders.base import Encoder, kept_entries
from persianrug.encoders.knotted import KnottedRug
from persianrug.encoders.matrix import Dense, Gaussian
from persianrug.encoders.registry import from_recipe
from persianrug.encoders.rug import Rug, noise_level

__all__ = ["Dense", "Encoder", "Gaussian", "KnottedRug", "Rug", "from_recipe", "kept_entries", "noise_level"]
