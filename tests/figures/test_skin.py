"""The picture of a frame on its taxels."""

import numpy as np
import pytest
from matplotlib.collections import EllipseCollection

from persianrug.figures.skin import skin
from persianrug.figures.style import files
from persianrug.skin import Layout
from tests.skin.conftest import frames, layout  # noqa: F401


def dots(figure):
    """For each panel: places of what is not touched, places of what is, and the forces there."""
    for axes in figure.axes[:-1]:
        plain, shaded = (one for one in axes.collections if isinstance(one, EllipseCollection))
        yield plain.get_offsets(), shaded.get_offsets(), np.asarray(shaded.get_array())


def test_true_and_decoded_forces_are_at_the_same_places(layout, frames):  # noqa: F811
    true = frames[150].reshape(-1, 3)
    decoded = 1.1 * true
    figure = skin(layout, true, decoded)
    (left, right) = dots(figure)
    for plain, places, forces in (left, right):
        assert len(plain) + len(places) == 4096
        assert len(forces) == (true != 0).any(axis=1).sum()
    assert np.array_equal(left[1], right[1])
    assert right[2] == pytest.approx(1.1 * left[2])
    assert np.sort(left[2]) == pytest.approx(np.sort(np.linalg.norm(true, axis=1)[(true != 0).any(axis=1)]))
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["true, 50 of 4096 taxels touched", "decoded, relative L2 error 0.1"]
    assert figure.axes[-1].get_ylabel() == "force on a taxel (N)"
    names = {text.get_text().split(",")[0] for text in figure.axes[0].texts}
    assert names == set(layout.patches)


def test_taxels_do_not_lie_on_each_other(layout, frames):  # noqa: F811
    """But for a few on slopes and in hollows: what is behind is drawn beside."""
    (panel,) = dots(skin(layout, frames[150]))
    places = np.concatenate(panel[:2])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert np.median(apart.min(axis=1)) > 0.5
    assert places[:, 0].min() >= 0


def test_a_mat_is_drawn_as_it_lies():
    mat = Layout.plane(3, 5, 0.02)
    force = np.arange(15.0)
    (panel,) = dots(skin(mat, force))
    # In the order of the taxels, of which the first alone is not touched.
    assert len(panel[0]) == 1
    assert panel[2] == pytest.approx(force[1:])
    steps = np.diff(panel[1][4:9], axis=0)
    assert steps == pytest.approx(np.tile([1.25, 0], (4, 1)))


def test_single_patches_are_drawn_and_nothing_too(layout):  # noqa: F811
    nothing = np.zeros(12288)
    figure = skin(layout, nothing, nothing, patches=["finger", "jaw"])
    for panel in dots(figure):
        assert (len(panel[0]), len(panel[1])) == (1024, 0)
    assert figure.axes[1].get_title() == "decoded, off by 0 N"
    content = files(figure)
    assert content["png"] == files(skin(layout, nothing, nothing, patches=["finger", "jaw"]))["png"]
    assert files(skin(Layout.plane(1, 1, 0.01), [1.0]))["png"]


def test_other_frames_are_refused(layout):  # noqa: F811
    for arguments, said in [
        ((np.zeros(100),), r"true has shape \(100,\); allowed: \(4096, axes\)"),
        ((np.full(4096, np.nan),), "true holds a number that is not finite"),
        ((np.zeros(4096), np.zeros(12288)), "decoded has 3 numbers a taxel; allowed: 1"),
    ]:
        with pytest.raises(ValueError, match=said):
            skin(layout, *arguments)
    with pytest.raises(ValueError, match="patches is 'tail'"):
        skin(layout, np.zeros(4096), patches=["tail"])
    with pytest.raises(ValueError, match="patches is empty"):
        skin(layout, np.zeros(4096), patches=[])
