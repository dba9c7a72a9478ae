"""The model of the robot on wheels: what is published of it, its halves, its masses, its skin and its standing."""

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")

from persianrug.robots.handle.spec import SPEC  # noqa: E402
from persianrug.robots.scene import footprint, robot_model, standing  # noqa: E402
from persianrug.robots.spec import Kind  # noqa: E402
from persianrug.robots.taxels import geoms_of_patches, taxel_layout  # noqa: E402

BODIES = ("hip_link", "thigh", "shank", "wheel_link", "arm")
JOINTS = ("roll", "hip", "knee", "wheel", "shoulder")
MIRROR = np.array([1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def model():
    return robot_model(SPEC)


def test_joints_and_motors(model):
    """The free joint is first; then those of the left side and those of the right, with motors of their names."""
    names = [f"{side}_{joint}" for side in ("l", "r") for joint in JOINTS]
    assert [model.joint(k).name for k in range(model.njnt)] == ["root", *names]
    assert [model.actuator(k).name for k in range(model.nu)] == names
    assert (model.actuator_trnid[:, 0] == np.arange(1, model.njnt)).all()
    assert (model.jnt_type[1:] == mujoco.mjtJoint.mjJNT_HINGE).all()
    assert model.body(SPEC.base).jntadr[0] == 0
    assert model.site("imu").bodyid[0] == model.body(SPEC.base).id
    for name in names:
        roll = name.endswith("roll")
        assert (model.joint(name).axis == [roll, not roll, 0]).all()
        assert bool(model.jnt_limited[model.joint(name).id]) == (not name.endswith("wheel"))


def test_sides_are_alike(model):
    """Left and right have the same masses, ends and motors, and are mirrored, all that is seen as well."""
    for part in BODIES:
        left, right = (model.body(f"{side}_{part}") for side in ("l", "r"))
        assert right.pos == pytest.approx(left.pos * MIRROR)
        assert right.ipos == pytest.approx(left.ipos * MIRROR)
        assert right.mass[0] == left.mass[0]
        assert right.inertia == pytest.approx(left.inertia)
        assert right.geomnum[0] == left.geomnum[0]
        for k in range(left.geomnum[0]):
            one, other = (model.geom(body.geomadr[0] + k) for body in (left, right))
            assert other.type[0] == one.type[0]
            assert (other.size == one.size).all()
            assert other.pos == pytest.approx(one.pos * MIRROR)
            assert other.matid[0] == one.matid[0]
    for joint in JOINTS:
        left, right = (model.joint(f"{side}_{joint}") for side in ("l", "r"))
        assert (right.range == left.range).all()
        assert (right.axis == left.axis).all()
        assert right.armature[0] == left.armature[0]
        assert right.damping[0] == left.damping[0]
        one, other = (model.actuator(f"{side}_{joint}") for side in ("l", "r"))
        assert (other.ctrlrange == one.ctrlrange).all()


def test_masses_are_given(model):
    """Each body has its own mass and an inertia that solids can have; geoms weigh nothing."""
    for i in range(1, model.nbody):
        a, b, c = sorted(model.body_inertia[i])
        assert model.body_mass[i] > 0
        assert a > 0
        assert c <= a + b
    assert model.body_subtreemass[0] == pytest.approx(105.0)


def test_looks_do_not_collide(model):
    """What collides is what the robot's skin is on, and nothing of it collides with the robot itself."""
    covered = {geom for geoms in geoms_of_patches(model, SPEC.patches) for geom in geoms}
    for i in range(model.ngeom):
        kinds = (int(model.geom_contype[i]), int(model.geom_conaffinity[i]))
        assert kinds == ((1, 2) if i in covered else (0, 0))
        assert model.geom_group[i] in (2, 3)
    data = mujoco.MjData(model)
    random = np.random.default_rng(0)
    low, high = model.jnt_range[1:].T
    for _ in range(20):
        data.qpos[7:] = random.uniform(low, high)
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


def test_wheels_touch_smoothly(model):
    """One contact of a wheel: an ellipsoid that turns about its y axis, in the middle of its body."""
    for foot in SPEC.feet:
        assert foot.kind is Kind.WHEEL
        tire = model.geom(foot.geom)
        assert tire.type[0] == mujoco.mjtGeom.mjGEOM_ELLIPSOID
        assert tire.size[0] == tire.size[2]
        assert (tire.pos == 0).all()
        assert (tire.quat == [1, 0, 0, 0]).all()
        assert tire.condim[0] == 4
        assert tire.priority[0] == 1
        wheel = model.joint(foot.joints[-1])
        assert wheel.bodyid[0] == tire.bodyid[0]


def test_skin(model):
    """All patches can be covered; the wheels share a code."""
    layout = taxel_layout(model, SPEC.patches)
    assert len(layout.position) == sum(patch.taxels for patch in SPEC.patches) == 4096
    assert {name for code in SPEC.codes for name in code} == {foot.patch for foot in SPEC.feet}
    assert {foot.patch for foot in SPEC.feet} <= {patch.name for patch in SPEC.patches}


def test_stands(model):
    """Both wheels are on the ground, below the centre of mass, with the hips as high as is said."""
    data = mujoco.MjData(model)
    data.qpos[:] = standing(model, SPEC)
    mujoco.mj_forward(model, data)
    assert data.qpos[2] == pytest.approx(SPEC.height, abs=1e-3)
    for foot in SPEC.feet:
        assert data.geom(foot.geom).xpos[2] == pytest.approx(model.geom(foot.geom).size[2], abs=1e-9)
        assert abs(data.geom(foot.geom).xpos[0] - data.subtree_com[0, 0]) < 0.01
    assert data.subtree_com[0, 1] == pytest.approx(0.0, abs=1e-9)
    left, right = footprint(model, SPEC)
    assert left - right == pytest.approx([0.0, 0.6])
    for joint, angle in SPEC.posture.items():
        low, high = model.joint(joint).range
        assert low < angle < high
