"""Taxels lie on the surfaces that collide, evenly, and look outward."""

import mujoco
import numpy as np
import pytest

from persianrug.robots.scene import robot_model
from persianrug.robots.spot.spec import SPEC
from persianrug.robots.taxels import Patch, geoms_of_patches, taxel_layout

GEOMS = """
<mujoco><asset><mesh name="tetra" vertex="0 0 0  .2 0 0  0 .2 0  0 0 .2"/></asset><worldbody>
  <body name="body"><freejoint/>
    <geom name="sphere" type="sphere" size=".1"/>
    <geom name="capsule" type="capsule" size=".05 .1" pos="1 0 0" euler="30 0 0"/>
    <geom name="box" type="box" size=".05 .1 .02" pos="2 0 0" euler="0 40 0"/>
    <geom name="cylinder" type="cylinder" size=".06 .08" pos="3 0 0"/>
    <geom name="ellipsoid" type="ellipsoid" size=".05 .1 .15" pos="4 0 0"/>
    <geom name="mesh" type="mesh" mesh="tetra" pos="5 0 0"/>
    <geom name="seen" type="box" size=".05 .1 .02" pos="6 0 0" contype="0" conaffinity="0"/>
  </body></worldbody></mujoco>
"""
# Of an ellipsoid by Thomsen's formula, which is right to 1.1%.
_P = 1.6075
ELLIPSOID = 4 * np.pi * (((0.05 * 0.1) ** _P + (0.05 * 0.15) ** _P + (0.1 * 0.15) ** _P) / 3) ** (1 / _P)
AREAS = {
    "sphere": 4 * np.pi * 0.1**2,
    "capsule": 4 * np.pi * 0.05**2 + 2 * np.pi * 0.05 * 0.2,
    "box": 8 * (0.05 * 0.1 + 0.05 * 0.02 + 0.1 * 0.02),
    "cylinder": 2 * np.pi * 0.06**2 + 2 * np.pi * 0.06 * 0.16,
    "ellipsoid": ELLIPSOID,
    "mesh": 3 * 0.2**2 / 2 + 3**0.5 / 4 * 2 * 0.2**2,
}


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(GEOMS)


def distance(model, name, points):
    """How far points are from a geom's surface, by MuJoCo itself: a small ball at each."""
    found = []
    for point in points:
        spec = mujoco.MjSpec.from_string(GEOMS)
        ball = spec.worldbody.add_body(name="ball", pos=point)
        ball.add_geom(name="ball", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[1e-3, 0, 0])
        scene = spec.compile()
        data = mujoco.MjData(scene)
        mujoco.mj_forward(scene, data)
        found.append(mujoco.mj_geomDistance(scene, data, scene.geom(name).id, scene.geom("ball").id, 1.0, None))
    return np.array(found) + 1e-3


@pytest.mark.parametrize("name", AREAS)
def test_on_the_surface(model, name):
    layout = taxel_layout(model, [Patch("patch", "body", 200, (name,))])
    assert layout.n_taxels == 200
    assert layout.axes == 3
    assert layout.area.sum() == pytest.approx(AREAS[name], rel=0.02)
    some = layout.position[::20].astype(float)
    assert np.abs(distance(model, name, some)).max() < 1e-4
    # A step along the normal is a step away from it, one against it is within.
    step = 2e-3 * layout.normal[::20]
    np.testing.assert_allclose(distance(model, name, some + step), 2e-3, atol=4e-4)
    # Even: nobody is alone, and nobody crowded.
    away = np.linalg.norm(layout.position[:, None] - layout.position[None], axis=2) + 9 * np.eye(200)
    pitch = (AREAS[name] / 200) ** 0.5
    assert 0.5 * pitch < away.min(axis=1).min()
    assert away.min(axis=1).max() < 2 * pitch


def test_same_seed_same_taxels(model):
    patches = [Patch("patch", "body", 50, ("box",))]
    one, same, other = (taxel_layout(model, patches, seed=seed) for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest


def test_what_is_inside_another_geom_is_left_out():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body name="b"><freejoint/><geom name="one" type="sphere" size=".1"/>'
        '<geom name="two" type="sphere" size=".1" pos=".1 0 0"/></body></worldbody></mujoco>'
    )
    layout = taxel_layout(model, [Patch("p", "b", 300)])
    for centre in ([0, 0, 0], [0.1, 0, 0]):
        assert np.linalg.norm(layout.position - centre, axis=1).min() > 0.0995
    # A lens of each is missing: of a sphere, the cap beyond x = 0.05.
    cap = 2 * np.pi * 0.1 * 0.05
    assert layout.area.sum() == pytest.approx(2 * (4 * np.pi * 0.01 - cap), rel=0.03)


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


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ([Patch("p", "nobody", 5)], r"patch 'p': body is 'nobody'; allowed"),
        ([Patch("p", "body", 5, ("nothing",))], r"patch 'p': geom is 'nothing'; allowed: geoms of body body"),
        ([Patch("p", "body", 5, ("box",)), Patch("p", "body", 5, ("mesh",))], "patch 'p' is there twice"),
        ([Patch("p", "body", 5, ("box",)), Patch("q", "body", 5, ("box",))], "geom box is of patch 'p' too"),
        ([Patch("p", "body", 0, ("box",))], "is 0; allowed"),
    ],
)
def test_bad_input(model, patches, message):
    with pytest.raises(ValueError, match=message):
        taxel_layout(model, patches)
