"""Sketches: real data as codes of fixed size that add up, with their loss known before."""

import lazy_loader

# Imported when first used: the estimator takes scikit-learn.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
