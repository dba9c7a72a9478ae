"""An encoder's W, drawn as the rug that gave the paper its name."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from PIL import Image

from persianrug._support import checks
from persianrug.encoders.base import Encoder

# The picture has n_sparse^2 pixels.
MOST_FEATURES = 8192

# Rows of W that are computed at a time.
_BLOCK = 256

# Dyes from most negative to most positive: indigo, a lighter indigo, madder for the ground at 0, saffron, ivory.
_DYES = ((-1.0, "#10204d"), (-0.45, "#2b5a8c"), (0.0, "#8c1c22"), (0.45, "#d99a2b"), (1.0, "#fbf0d4"))


def weave(encoder: Encoder, pixels: int = 1) -> Image.Image:
    """Draw W = W_out W_in, one square of `pixels` x `pixels` an entry, in the colours of a rug.

    Off-diagonal entries run from indigo (negative) over madder red (zero) to ivory (positive); colours are
    saturated at three times their root mean square, which the diagonal, all ones, exceeds.

    Parameters
    ----------
    encoder : Encoder
        With n_sparse at most 8192.
    pixels : int >= 1

    Raises
    ------
    ValueError
        If an argument is out of its range, or the picture would have a side of more than 16384 pixels.
    """
    n = checks.integer("n_sparse", encoder.n_sparse, 2, MOST_FEATURES)
    pixels = checks.integer("pixels", pixels, 1, 2 * MOST_FEATURES // n)
    typical = float(np.sqrt(encoder.interference.mean() / (n - 1)))
    indices = np.empty((n, n), dtype=np.uint8)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        entries = encoder.W_rows(start, stop).numpy()
        # Without interference W is the identity, and any scale will do.
        scaled = np.clip(entries / (3 * typical or 1.0), -1, 1)
        indices[start:stop] = np.rint(127.5 + 127.5 * scaled)
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette(palette().tobytes())
    return picture.resize((n * pixels, n * pixels), Image.Resampling.NEAREST)


def palette() -> NDArray[np.uint8]:
    """256 colours (256, 3) between the dyes."""
    colours = LinearSegmentedColormap.from_list("rug", [((place + 1) / 2, dye) for place, dye in _DYES])
    return np.rint(255 * colours(np.arange(256))[:, :3]).astype(np.uint8)
