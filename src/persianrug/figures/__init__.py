"""Figures: pictures that users draw, of data that they bring."""

import lazy_loader

# Imported when first used: they take Matplotlib.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
