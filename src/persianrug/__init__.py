"""Sparse data through a narrow linear bottleneck, solved.

import persianrug as pr

source = pr.SparseUniform(p=0.045)
rug = pr.Rug(n_sparse=8192, n_dense=2048, seed=0)
model = pr.Autoencoder(rug, pr.ReLU()).tune(source)
model.law(source)      # predicted loss per feature
model.measure(source)  # measured loss, with its standard error
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persianrug.autoencoder import Autoencoder, Measurement, load
    from persianrug.bounds import relu_bounds
    from persianrug.channel import Channel
    from persianrug.codes import Codes, Mixture
    from persianrug.decoders import (
        OAMP,
        Bayes,
        Decoder,
        Gated,
        JumpReLU,
        Linear,
        ProLU,
        ReLU,
        SoftThreshold,
        TopK,
        recovery_threshold,
    )
    from persianrug.encoders import Dense, Encoder, Gaussian, Rug, noise_level
    from persianrug.feature_laws import FeatureLaws, LawFitter
    from persianrug.files import read_rows
    from persianrug.gains import encoder_gains
    from persianrug.knots import Knot
    from persianrug.plan import Plan, make_plan
    from persianrug.rugfile import RugReader, RugWriter
    from persianrug.sketch import Sketch
    from persianrug.sketcher import Sketcher
    from persianrug.sources import (
        Empirical,
        Source,
        SparseConstant,
        SparseExponential,
        SparseGaussian,
        SparseHalfNormal,
        SparseTruncatedNormal,
        SparseUniform,
        zipf_rates,
    )
    from persianrug.symmetry import Symmetry, measure_symmetry
    from persianrug.weaves import KnottedRug

__all__ = [
    "OAMP",
    "Autoencoder",
    "Bayes",
    "Channel",
    "Codes",
    "Decoder",
    "Dense",
    "Empirical",
    "Encoder",
    "FeatureLaws",
    "Gated",
    "Gaussian",
    "JumpReLU",
    "Knot",
    "KnottedRug",
    "LawFitter",
    "Linear",
    "Measurement",
    "Mixture",
    "Plan",
    "ProLU",
    "ReLU",
    "Rug",
    "RugReader",
    "RugWriter",
    "Sketch",
    "Sketcher",
    "SoftThreshold",
    "Source",
    "SparseConstant",
    "SparseExponential",
    "SparseGaussian",
    "SparseHalfNormal",
    "SparseTruncatedNormal",
    "SparseUniform",
    "Symmetry",
    "TopK",
    "encoder_gains",
    "load",
    "make_plan",
    "measure_symmetry",
    "noise_level",
    "read_rows",
    "recovery_threshold",
    "relu_bounds",
    "zipf_rates",
]

__version__ = _version("persianrug")

# Searched in this order: those that import more than others come last.
_MODULES = (
    "autoencoder",
    "bounds",
    "channel",
    "decoders",
    "encoders",
    "files",
    "sources",
    "weaves",
    "knots",
    "gains",
    "symmetry",
    "codes",
    "feature_laws",
    "sketch",
    "plan",
    "rugfile",
    "sketcher",
)


# Names are imported when first used. PyTorch takes seconds to import, which a command that only prints its
# help, or an error, should not.
def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"persianrug.{module}"))
            if name in found:
                globals()[name] = found[name]
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
