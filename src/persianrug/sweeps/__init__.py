"""Sweeps: many runs over a grid, kept in a database and gone on with where they were stopped."""

import lazy_loader

# Imported when first used: the store takes SQLAlchemy.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
