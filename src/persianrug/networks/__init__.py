"""Networks: what gradient descent finds, and what its weights are."""

import lazy_loader

# Imported when first used: the tests of symmetry take SciPy's statistics.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
