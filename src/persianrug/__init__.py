"""Sparse data through a narrow linear bottleneck, solved.

import persianrug as pr

source = pr.SparseUniform(p=0.045)
rug = pr.Rug(n_sparse=8192, n_dense=2048, seed=0)
model = pr.Autoencoder(rug, pr.ReLU()).tune(source)
model.law(source)      # predicted loss per feature
model.measure(source)  # measured loss, with its standard error
"""

from importlib.metadata import version as _version
from typing import Any

import lazy_loader

from persianrug._support.renamed import warn_renamed

__version__ = _version("persianrug")

# Names are imported when first used. PyTorch takes seconds to import, which a command that only prints its
# help, or an error, should not.
_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_RENAMED = {"FeatureLaws": "Profile", "LawFitter": "ProfileFitter"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warn_renamed(f"persianrug.{name}", f"persianrug.{_RENAMED[name]}")
        name = _RENAMED[name]
    return _attached(name)
