"""Sources: how data is distributed, and what a noisy look at it tells."""

from persianrug.sources.atoms import Empirical, SparseConstant
from persianrug.sources.base import Each, Source
from persianrug.sources.covariance import Covariance
from persianrug.sources.exponential import SparseExponential
from persianrug.sources.groups import Groups
from persianrug.sources.lognormal import SparseLogNormal
from persianrug.sources.moments import FeatureMoments
from persianrug.sources.normal import SparseGaussian, SparseHalfNormal, SparseTruncatedNormal
from persianrug.sources.rates import zipf_rates
from persianrug.sources.registry import SOURCES, from_recipe
from persianrug.sources.second_moments import SecondMoments
from persianrug.sources.sums import sum_of
from persianrug.sources.uniform import SparseUniform

__all__ = [
    "SOURCES",
    "Covariance",
    "Each",
    "Empirical",
    "FeatureMoments",
    "Groups",
    "SecondMoments",
    "Source",
    "SparseConstant",
    "SparseExponential",
    "SparseGaussian",
    "SparseHalfNormal",
    "SparseLogNormal",
    "SparseTruncatedNormal",
    "SparseUniform",
    "from_recipe",
    "sum_of",
    "zipf_rates",
]
