"""The picture of W."""

import numpy as np
import pytest

import persianrug as pr
from persianrug.figures.phase import phase
from persianrug.figures.style import files
from persianrug.figures.trained import trained
from persianrug.figures.weave import palette, weave
from persianrug.figures.weights import weights


def test_pixels_are_entries_of_W():
    encoder = pr.Rug(64, 16, signs=False)
    picture = np.asarray(weave(encoder))
    W = encoder.W().numpy()
    off = ~np.eye(64, dtype=bool)
    assert (picture[~off] == 255).all()
    # The palette's index grows with the entry.
    order = np.argsort(W[off], kind="stable")
    assert (np.diff(picture[off][order].astype(int)) >= 0).all()
    assert np.unique(picture).size > 5
    # Entries of a Hadamard rug depend on i ^ j alone: that is the pattern.
    index = np.arange(64)
    assert (picture == picture[0][index[:, None] ^ index]).all()


def test_an_entry_is_a_square_of_pixels():
    encoder = pr.Rug(9, 4)
    small, large = (np.asarray(weave(encoder, pixels)) for pixels in (1, 3))
    assert (large == np.kron(small, np.ones((3, 3), dtype=np.uint8))).all()


def test_blocks_of_rows_make_one_picture(monkeypatch):
    encoder = pr.Rug(100, 30)
    whole = np.asarray(weave(encoder))
    monkeypatch.setattr("persianrug.figures.weave._BLOCK", 7)
    assert (np.asarray(weave(encoder)) == whole).all()


def test_a_rug_that_keeps_everything_and_given_weights_are_drawn():
    assert np.asarray(weave(pr.Rug(16, 16))).shape == (16, 16)
    weights = np.random.default_rng(0).normal(size=(4, 10))
    assert np.asarray(weave(pr.Dense(weights))).shape == (10, 10)


def test_the_palette_runs_from_indigo_over_madder_to_ivory():
    colours = palette()
    assert colours.shape == (256, 3)
    assert colours[0].tolist() == [0x10, 0x20, 0x4D]
    assert colours[255].tolist() == [0xFB, 0xF0, 0xD4]
    assert np.abs(np.diff(colours.astype(int), axis=0)).max() <= 4


@pytest.mark.parametrize(("n", "pixels"), [(16, 0), (16, 2000), (8192, 3), (9000, 1)])
def test_pictures_without_or_beyond_measure_are_refused(n, pixels):
    with pytest.raises(ValueError, match=r"(pixels|n_sparse) is"):
        weave(pr.Rug(n, n // 2), pixels)


def test_the_plane_is_that_of_state_evolution():
    from persianrug.figures.phase import fixed_points

    for source in (pr.SparseUniform(0.05), pr.SparseGaussian(0.1), pr.SparseExponential(0.3)):
        ratios = np.array([0.03, 0.1, 0.2, 0.5, 0.9])
        losses, threshold = fixed_points(source, ratios)
        assert threshold == pytest.approx(pr.recovery_threshold(source), rel=1e-3)
        for ratio, loss in zip(ratios, losses, strict=True):
            model = pr.Autoencoder(pr.Rug.of_ratio(1 << 20, ratio), pr.OAMP(iterations=500)).tune(source)
            assert (loss == 0) == (ratio > threshold)
            # Which stops where an iteration gains less than 1%.
            assert model.limit(source) == pytest.approx(loss, rel=0.05, abs=1e-9)


def test_trained_networks_are_drawn_beside_the_laws():
    laws = {
        0.1: {"linear": 2.0, "rug": 1.0, "pair": 0.8, "OAMP on the rug": 1e-9},
        0.3: {"linear": 2.0, "rug": 1.5},
    }
    rows = [{"p": 0.1, "n_sparse": n, "loss": 0.5 + n / 1000, "stderr": 0.01} for n in (128, 64)]
    figure = trained(rows, laws, 0.25)
    first, second = figure.axes
    lines = {line.get_label(): np.unique(line.get_ydata()) for line in first.lines if line.get_label()[0] != "_"}
    assert {name: float(y[0]) for name, y in lines.items() if len(y)} == {"linear": 2.0, "rug": 1.0, "pair": 0.8}
    assert "OAMP recovers all" in first.get_title()
    assert "OAMP" not in second.get_title()
    (points,) = first.containers
    assert points[0].get_xdata().tolist() == [64, 128]
    assert points[0].get_ydata() == pytest.approx([0.564, 0.628])
    assert not second.containers


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_matrices_is_drawn(count):
    rng = np.random.default_rng(0)
    matrices = [(f"net {place}", rng.normal(size=(40, 40)), rng.normal(size=40)) for place in range(count)]
    figure = weights(matrices)
    *corners, diagonals, others, bar = figure.axes
    assert [axes.get_title() for axes in corners] == [f"net {place}: W of 30 features" for place in range(count)]
    for (_, W, bias), axes in zip(matrices, corners, strict=True):
        shown = np.asarray(axes.images[0].get_array())
        assert np.array_equal(shown[:, :30], W[:30, :30])
        assert np.array_equal(shown[:, -1], bias[:30])
    for axes in (diagonals, others):
        assert len(axes.get_legend().get_texts()) == count
    assert files(figure)["png"].startswith(b"\x89PNG")
    assert bar.get_ylabel() == "W_ij or bias_i"


def test_no_matrices_are_refused():
    with pytest.raises(ValueError, match=r"matrices is empty; allowed: at least one of \(name, W, bias\)"):
        weights([])


def test_the_plane_is_drawn_with_and_without_progress(monkeypatch):
    monkeypatch.setattr("persianrug.figures.phase._SIDE", 4)
    monkeypatch.setattr("persianrug.figures.phase._RATIOS", (0.25,))
    monkeypatch.setattr("persianrug.figures.phase._N_SPARSE", 64)
    monkeypatch.setattr("persianrug.figures.phase._SAMPLES", 4)
    seen = []
    for arguments in ((), (lambda done, whole: seen.append((done, whole)),)):
        plane, cut, *_ = phase(pr.SparseUniform, 0.1, *arguments).axes
        assert plane.get_title() == "uniform source"
        assert cut.get_title() == "laws (lines) at p = 0.1"
    assert seen == [(1, 8)] * 8
