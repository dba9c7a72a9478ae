"""A robot's touch through a rug: taxels in, codes of a fixed size over a bus that loses packets, contacts out."""

import lazy_loader

# Imported when first used: what a receiver of packets needs is little.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
