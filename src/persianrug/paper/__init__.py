"""The reproduction of "The Persian Rug" (arXiv 2410.12101): its figures and claims from scratch."""

import lazy_loader

# Imported when first used: the figures take Matplotlib, and the runs a store.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
