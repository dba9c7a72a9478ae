"""Skins: the touch of thousands of taxels through codes of fixed size, frame by frame."""

import lazy_loader

# Imported when first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
