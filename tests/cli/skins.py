"""A small skin that the tests of `persianrug skin` share: a mat, over which a ball rolls and is lifted off."""

from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
SIDE = 16
# At which its frames are read.
RATIO = ("--ratio", 4)


def blobs(count, start=0.0):
    """Pressures (count, SIDE * SIDE) in newtons; every sixth of a round the ball is off the mat."""
    y, x = np.divmod(np.arange(SIDE**2), SIDE)
    frames = np.zeros((count, SIDE**2), dtype=np.float32)
    for k in range(count):
        angle = start + 0.06 * k
        if np.cos(angle) > 0.87:
            continue
        distance = np.hypot(x - 7.5 - 5 * np.cos(angle), y - 7.5 - 5 * np.sin(2 * angle))
        frames[k] = np.maximum(3 * (1 - (distance / 1.9) ** 2), 0)
    return frames
