"""Integrations: each with one library of others, imported only when asked for."""

import lazy_loader

# Imported when first used: they take those libraries.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
