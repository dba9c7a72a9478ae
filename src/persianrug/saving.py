"""Loads whatever model was saved: an autoencoder or a network."""

from __future__ import annotations

import os

from persianrug._support.tensors import stored_kind
from persianrug.autoencoder import Autoencoder
from persianrug.networks import network
from persianrug.networks.network import Network


def load(path: str | os.PathLike[str]) -> Autoencoder | Network:
    """Load what `Autoencoder.save`, `solve --save`, `Network.save` or `train` wrote.

    Raises
    ------
    ValueError
        If the file cannot be read, is damaged, or is of another format or version.
    """
    return Network.load(path) if stored_kind(path) == network.FORMAT else Autoencoder.load(path)
