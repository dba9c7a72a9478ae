import numpy as np
import pytest

from persianrug.robots.flaws import Flaws, Mending
from persianrug.robots.taxels import taxel_layout
from tests.robots.helpers import PATCHES, world


def test_flaws_are_as_large_as_they_say():
    flaws = Flaws(4000, noise=0.05, gain=0.1, dead=0.02, seed=3)
    assert (flaws.gains == 0).sum() == 80
    alive = flaws.gains[flaws.gains > 0]
    assert alive.std() == pytest.approx(0.1, rel=0.1)
    frames = np.stack([flaws.apply(np.zeros((4000, 3))) for _ in range(20)])
    assert frames[:, flaws.gains > 0].std() == pytest.approx(0.05, rel=0.02)
    assert not frames[:, flaws.gains == 0].any()
    # Not the same noise again, nor the same shifted.
    assert abs(np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]) < 0.05
    pressed = flaws.apply(np.full((4000, 3), 10.0))
    np.testing.assert_allclose(pressed, 10 * flaws.gains[:, None] * np.ones(3), atol=0.3)


def test_dead_taxels_are_others_with_another_seed():
    first, again, other = (Flaws(500, dead=0.1, seed=seed).gains for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert ((first == 0) != (other == 0)).any()


@pytest.fixture(scope="module")
def layout():
    return taxel_layout(world()[0], PATCHES)


def test_a_dead_taxel_is_taken_to_feel_what_its_neighbours_feel(layout):
    # The same force vector on all taxels of a ball, whichever way these face.
    force = np.array([1.0, 2.0, 3.0])
    frame = np.einsum("c,tca->ta", force, np.linalg.inv(layout.directions)).astype(np.float32)
    whole = frame.copy()
    dead = np.zeros(layout.n_taxels, dtype=bool)
    dead[[3, 50, 51, 200, 800]] = True
    frame[dead] = 0
    Mending(layout, dead).mend(frame)
    np.testing.assert_allclose(frame, whole, atol=1e-5)


def test_only_neighbours_count(layout):
    frame = np.zeros((layout.n_taxels, 3), dtype=np.float32)
    dead = np.arange(layout.n_taxels) == 7
    away = np.linalg.norm(layout.position - layout.position[7], axis=1)
    near = np.flatnonzero(layout.patch == 0)[np.argsort(away[layout.patch == 0])][1:]
    frame[near[12:]] = 5.0
    frame[layout.patch != 0] = 5.0
    Mending(layout, dead).mend(frame)
    assert not frame[7].any()
    frame[near[:6]] = 1.0
    Mending(layout, dead).mend(frame)
    assert frame[7].any()


def test_where_all_of_a_patch_is_dead_it_reads_nothing(layout):
    dead = layout.patch == 1
    frame = np.where(dead[:, None], 0, np.ones((1, 3))).astype(np.float32)
    Mending(layout, dead).mend(frame)
    assert not frame[dead].any()
    Mending(layout, np.zeros(layout.n_taxels, dtype=bool)).mend(frame)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"noise": -1}, "noise is -1"),
        ({"gain": -1}, "gain is -1"),
        ({"dead": 1.5}, "dead is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_mistakes_are_told(given, said):
    with pytest.raises(ValueError, match=said):
        Flaws(10, **given)
