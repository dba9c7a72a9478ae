"""Layouts: what they say, files of them, and what is refused."""

import numpy as np
import pytest

from persianrug.skin import Layout

from .conftest import DATA


def parts(**changed):
    """The arrays of a file of four taxels in two patches; None leaves one out."""
    found = {
        "pos": np.arange(12.0).reshape(4, 3),
        "normal": np.tile([0.0, 0, 1], (4, 1)),
        "t1": np.tile([1.0, 0, 0], (4, 1)),
        "t2": np.tile([0.0, 1, 0], (4, 1)),
        "area": np.ones(4),
        "patch": np.array([0, 0, 1, 1], dtype=np.int8),
        "patch_names": np.array(["hand", "foot"]),
        "patch_body": np.array(["arm", "leg"]),
    }
    return {name: value for name, value in (found | changed).items() if value is not None}


def read(tmp_path, **changed):
    np.savez(tmp_path / "taxels.npz", **parts(**changed))
    return Layout.read(tmp_path / "taxels.npz")


def test_the_example_is_a_robot(layout):
    assert (layout.n_taxels, layout.axes, layout.n_sparse) == (4096, 3, 12288)
    assert repr(layout) == "Layout(4096 taxels of pressure and two shears in 20 patches)"
    assert len(layout.of("jaw")) == len(layout.of("finger")) == 512
    assert layout.bodies[layout.patches.index("jaw")] == "a_g_stator"


def test_the_force_of_a_taxel_presses_against_its_normal(layout):
    assert layout.directions.shape == (4096, 3, 3)
    assert np.array_equal(layout.directions[:, 0], -layout.normal)
    assert np.array_equal(layout.directions[:, 1:], layout.tangents)


@pytest.mark.parametrize("axes", [1, 3])
def test_a_layout_is_read_as_it_was_saved(tmp_path, layout, axes):
    layout = layout if axes == 3 else layout.without_shear()
    layout.save(tmp_path / "one.npz")
    again = Layout.read(tmp_path / "one.npz")
    assert again.axes == axes
    assert again.digest == layout.digest
    assert (again.patches, again.bodies) == (layout.patches, layout.bodies)
    for name in ("position", "normal", "area", "patch"):
        assert np.array_equal(getattr(again, name), getattr(layout, name))


def test_the_digest_tells_layouts_apart_by_all_they_say(tmp_path):
    changes = [
        {}, {"pos": np.ones((4, 3))}, {"area": np.full(4, 2.0)}, {"patch": np.array([0, 1, 1, 1])},
        {"patch_names": np.array(["hand", "tail"])}, {"patch_body": np.array(["arm", "arm"])},
        {"t1": None, "t2": None}, {"t1": parts()["t2"], "t2": parts()["t1"]}, {"normal": -parts()["normal"]},
    ]  # fmt: skip
    assert len({read(tmp_path, **change).digest for change in changes}) == len(changes)
    # The same on every machine.
    assert read(tmp_path).digest == 1421521528


def test_a_plane_is_a_mat():
    mat = Layout.plane(2, 3, 0.01)
    assert (mat.axes, mat.patches) == (1, ("mat",))
    assert mat.position[4] == pytest.approx([0.01, 0.01, 0])
    assert mat.area == pytest.approx(1e-4)
    assert Layout.plane(2, 3, 0.01, axes=3).directions[0].tolist() == [[0, 0, -1], [1, 0, 0], [0, 1, 0]]


def test_frames_are_checked(layout):
    assert layout.frame(np.zeros(12288)).shape == (4096, 3)
    mat = Layout.plane(2, 2, 0.01)
    assert mat.frame([1, 2, 3, 4]).dtype == np.float32
    for values, said in [
        ([1, 2, 3], r"frame has shape \(3,\); allowed: \(4,\)"),
        ([1, np.nan, 3, 4], "frame holds nan at number 1"),
        ([1, 2, 1e300, 4], "frame holds inf at number 2"),
        ([1, 2, 3, -0.5], "frame holds the pressure -0.5 at taxel 3"),
        (["a", "b", "c", "d"], "frame has dtype"),
    ]:
        with pytest.raises(ValueError, match=said):
            mat.frame(values)


def test_files_may_say_less(tmp_path):
    pressure = read(tmp_path, t1=None, t2=None)
    assert pressure.axes == 1
    bodies = read(tmp_path, patch=None, body=np.array([7, 3, 7, 3]))
    assert (bodies.patches, bodies.patch.tolist()) == (("body3", "body7"), [1, 0, 1, 0])
    assert read(tmp_path, patch=None).patches == ("skin",)
    assert read(tmp_path, patch_body=None).bodies == ("hand", "foot")
    beside = {f"taxel_{name}": value for name, value in parts().items()}
    np.savez(tmp_path / "beside.npz", **beside)
    assert Layout.read(tmp_path / "beside.npz").digest == read(tmp_path).digest


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pos": None}, "it holds no array pos"),
        ({"area": None}, "it holds no array area"),
        ({"t2": None}, "it holds one of t1 and t2"),
        ({"patch_names": None}, "none of patch_names"),
        ({"pos": np.ones((4, 2))}, r"position has shape \(4, 2\)"),
        ({"pos": np.ones((0, 3))}, r"position has shape \(0, 3\)"),
        ({"normal": np.tile([0.0, 0, 1], (5, 1))}, r"normal has shape \(5, 3\); allowed: \(4, 3\)"),
        ({"area": np.ones(3)}, r"area has shape \(3,\); allowed: \(4,\)"),
        ({"t1": np.ones((3, 3))}, r"t1 has shape \(3, 3\)"),
        ({"pos": np.full((4, 3), np.nan)}, "position holds nan at taxel 0"),
        ({"area": np.array([1, 1, -1.0, 1])}, "area of taxel 2 is -1"),
        ({"normal": np.tile([0.0, 0, 1.1], (4, 1))}, "normal of taxel 0 has length 1.1; allowed: unit vectors"),
        ({"t2": np.tile([1.0, 0, 0], (4, 1))}, "t2 of taxel 0 leans on its t1"),
        ({"t1": np.tile([0.0, 0, 1], (4, 1))}, "t1 of taxel 0 leans on its normal"),
        ({"patch": np.array([0, 0, 1, 2])}, "patch of taxel 3 is 2; allowed: 0 to 1"),
        ({"patch": np.array([0, -1, 1, 1])}, "patch of taxel 1 is -1"),
        ({"patch": np.array([0, 0, 0, 0])}, "patch 'foot' has no taxel"),
        ({"patch": np.array([0.0, 0, 1, 1])}, "patch has shape .* of float64"),
        ({"patch": np.array([0, 1])}, r"patch has shape \(2,\)"),
        ({"patch_names": np.array(["foot", "foot"])}, "patches hold 'foot' twice"),
        ({"patch_names": np.array(["foot", ""])}, "patches is"),
        ({"patch_body": np.array(["arm"])}, "bodies has 1 names; allowed: 2"),
        ({"patch_names": np.array([1, 2])}, "patch_names has shape .* of int64"),
        ({"patch_names": np.array(["hand", "foot"], dtype=object)}, "patch_names.npy holds Python objects"),
        ({"pos": np.array([["a"] * 3] * 4)}, "position is"),
    ],
)  # fmt: skip
def test_files_that_are_no_layouts_are_refused(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        read(tmp_path, **changed)


def test_other_files_are_refused(tmp_path, layout):
    for name, content in [("a.npz", b"PK"), ("a.txt", b""), ("b.npz", (DATA / "taxels.npz").read_bytes()[:5000])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="layout file"):
            Layout.read(tmp_path / name)
    with pytest.raises(ValueError, match="No such file"):
        Layout.read(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"allowed: a name that ends in \.npz"):
        layout.save(tmp_path / "one.npy")
    with pytest.raises(ValueError, match="patch is 'tail'; allowed: fl_foot, "):
        layout.of("tail")
    for arguments in [(0, 3, 1.0), (2, 3, 0.0), (1 << 16, 1 << 16, 1.0)]:
        with pytest.raises(ValueError, match="allowed: "):
            Layout.plane(*arguments)
    with pytest.raises(ValueError, match="axes is 2; allowed: 1, 3"):
        Layout.plane(2, 2, 1.0, axes=2)
