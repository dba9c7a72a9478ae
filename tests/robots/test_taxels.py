import numpy as np
import pytest

from persianrug.robots.scene import robot_model
from persianrug.robots.spot.spec import SPEC
from persianrug.robots.surfaces import Surface
from persianrug.robots.taxels import Patch, geoms_of_patches, taxel_layout
from tests.robots.helpers import PATCHES, world


def _of_ellipsoid(a, b, c, p=1.6075):
    """Its area, by Knud Thomsen's formula, exact to about 1%."""
    return 4 * np.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)


@pytest.fixture(scope="module")
def model():
    return world()[0]


@pytest.fixture(scope="module")
def layout(model):
    return taxel_layout(model, PATCHES)


def test_patches_have_their_taxels_in_order(layout):
    assert layout.patches == ("left", "right", "trunk", "arm")
    assert layout.bodies == ("trunk", "trunk", "trunk", "arm")
    assert np.bincount(layout.patch).tolist() == [192, 192, 320, 192]
    assert layout.axes == 3
    assert (np.diff(layout.patch) >= 0).all()


def test_a_sphere_is_covered_evenly(layout):
    taxels = layout.of("left")
    away = layout.position[taxels] - [0.1, 0.08, -0.08]
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), 0.04, atol=1e-6)
    np.testing.assert_allclose(layout.normal[taxels], away / 0.04, atol=1e-5)
    assert np.linalg.norm(away.mean(axis=0)) < 0.002
    # Those on a lattice of triangles would be this far apart.
    spacing = np.sqrt(2 / np.sqrt(3) * layout.area[taxels[0]])
    gap = np.linalg.norm(layout.position[taxels][:, None] - layout.position[taxels], axis=2)
    np.fill_diagonal(gap, 1)
    assert gap.min() > 0.6 * spacing
    assert gap.min(axis=1).max() < 1.3 * spacing
    assert 0.9 < layout.area[taxels].sum() / (4 * np.pi * 0.04**2) <= 1.001


def test_what_other_geoms_of_a_patch_hide_has_no_taxels(model, layout):
    taxels = layout.of("arm")
    rod, cap = (Surface(model, model.geom(name).id) for name in ("rod", "cap"))
    out = layout.position[taxels] + 1e-3 * layout.normal[taxels]
    assert not rod.contains(out).any()
    assert not cap.contains(out).any()
    assert layout.area[taxels].sum() < 0.95 * (rod.area + cap.area)


def test_a_geom_that_is_there_twice_counts_once():
    xml = """<mujoco><worldbody><body name="b"><joint/>
      <geom type="box" size=".1 .1 .1"/><geom type="box" size=".1 .1 .1"/></body></worldbody></mujoco>"""
    layout = taxel_layout(world(xml)[0], [Patch("p", "b", 96)])
    assert layout.area.sum() == pytest.approx(0.24, rel=0.02)


@pytest.mark.parametrize(
    ("geom", "area"),
    [
        ('type="sphere" size=".1"', 4 * np.pi * 0.01),
        ('type="capsule" size=".05 .1"', 4 * np.pi * 0.05 * 0.15),
        ('type="cylinder" size=".05 .1"', 2 * np.pi * 0.05 * 0.25),
        ('type="box" size=".1 .2 .05"', 8 * (0.02 + 0.01 + 0.005)),
        ('type="ellipsoid" size=".1 .05 .02"', _of_ellipsoid(0.1, 0.05, 0.02)),
    ],
)  # fmt: skip
def test_points_are_uniform_on_surfaces_and_normals_point_outward(geom, area):
    xml = f"""<mujoco><worldbody><body name="b"><joint/><geom {geom} pos=".1 .2 .3" euler="20 40 60"/></body>
      </worldbody></mujoco>"""
    surface = Surface(world(xml)[0], 0)
    assert surface.area == pytest.approx(area, rel=0.01)
    place, normal = surface.sample(40_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-9)
    assert surface.contains(place - 1e-6 * normal).all()
    assert not surface.contains(place + 1e-6 * normal).any()
    # Gauss: the normals of a closed surface sum to 0, and its volume is a third of what they are times places.
    assert np.abs(normal.mean(axis=0)).max() < 0.02
    volume = {
        "sphere": 4 / 3 * np.pi * 1e-3,
        "capsule": np.pi * 0.05**2 * (0.2 + 4 / 3 * 0.05),
        "cylinder": np.pi * 0.05**2 * 0.2,
        "box": 8e-3,
        "ellipsoid": 4 / 3 * np.pi * 1e-4,
    }[surface.kind]
    away = place - [0.1, 0.2, 0.3]
    assert (away * normal).sum(axis=1).mean() * area / 3 == pytest.approx(volume, rel=0.03)


def test_the_same_seed_gives_the_same_taxels(model, layout):
    again = taxel_layout(model, PATCHES)
    assert again.digest == layout.digest
    assert taxel_layout(model, PATCHES, seed=1).digest != layout.digest


def test_unnamed_geoms_are_those_that_collide_and_no_other_patch_names(model):
    names = [[model.geom(geom).name for geom in geoms] for geoms in geoms_of_patches(model, PATCHES)]
    assert names == [["left"], ["right"], ["box"], ["rod", "cap"]]


@pytest.mark.parametrize(
    ("patches", "said"),
    [
        ([Patch("p", "leg", 9)], "patch 'p': body is 'leg'"),
        ([Patch("p", "arm", 9, ("left",))], "patch 'p': geom is 'left'"),
        ([Patch("p", "arm", 9, ("nose",))], "patch 'p': geom is 'nose'"),
        ([Patch("p", "arm", 0)], "patch 'p': taxels is 0"),
        ([Patch("p", "arm", 9), Patch("p", "trunk", 9)], "patch 'p' is there twice"),
        ([Patch("p", "arm", 9), Patch("q", "arm", 9)], "patch 'q' covers no geom"),
        ([Patch("p", "arm", 9, ("rod",)), Patch("q", "arm", 9, ("rod",))], "'q': geom rod is of patch 'p' too"),
        ([Patch("p", "world", 9, ("floor",))], "patch 'p': its geom 0 is of kind plane"),
        ([], "patches are none"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_the_patch(model, patches, said):
    with pytest.raises(ValueError, match=said):
        taxel_layout(model, patches)


def test_a_geom_within_another_has_no_room_for_taxels():
    xml = """<mujoco><worldbody><body name="b"><joint/>
      <geom type="sphere" size=".1"/><geom type="box" size=".5 .5 .5"/></body></worldbody></mujoco>"""
    layout = taxel_layout(world(xml)[0], [Patch("p", "b", 60)])
    assert (np.abs(np.abs(layout.position).max(axis=1) - 0.5) < 1e-6).all()


def test_the_quadruped_wears_4096():
    model = robot_model(SPEC)
    layout = taxel_layout(model, SPEC.patches)
    assert layout.n_taxels == 4096
    assert layout.n_sparse == 12288
    assert layout.patches == tuple(patch.name for patch in SPEC.patches)
    # Feet and gripper are finer than the body.
    pitch = {name: float(layout.area[layout.of(name)].mean() ** 0.5) for name in layout.patches}
    assert pitch["fl_foot"] < 0.012
    assert pitch["jaw"] < 0.012
    assert 0.015 < pitch["trunk"] < 0.04
    covered = geoms_of_patches(model, SPEC.patches)
    assert len({geom for geoms in covered for geom in geoms}) == sum(map(len, covered))
