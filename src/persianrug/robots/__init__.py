"""Simulated robots that feel through a skin: their touch goes through a code and over a bus that loses packets."""

import lazy_loader

# Imported when first used: MuJoCo is an extra.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
