"""What stands around robots."""

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")

from persianrug.robots import objects  # noqa: E402


def furnished():
    spec = mujoco.MjSpec()
    objects.add_floor(spec, 0.7)
    objects.add_bar(spec, 1.0, 0.1, 0.12, 0.6)
    objects.add_stand(spec, 2.0, 0.5, 0.4)
    objects.add_can(spec, 2.0, 0.5, 0.4 + objects.CAN_HALF, 0.37)
    objects.add_person(spec)
    return spec


@pytest.fixture(scope="module")
def model():
    return furnished().compile()


def meet(model, one, other):
    """Whether two geoms can touch."""
    return bool((one.contype & other.conaffinity) | (other.contype & one.conaffinity))


def test_names(model):
    for name in ("floor", "bar", "stand", "can", "palm"):
        assert model.geom(name).name == name
    assert model.joint("can").type[0] == mujoco.mjtJoint.mjJNT_FREE
    for name in ("person_x", "person_y", "person_z", "person_top", "person_bottom"):
        assert model.joint(name).type[0] == mujoco.mjtJoint.mjJNT_SLIDE
        assert model.actuator(name).trnid[0] == model.joint(name).id


def test_what_is_only_seen_weighs_nothing(model):
    assert model.body("can").mass[0] == pytest.approx(0.37)
    assert model.body_subtreemass[model.body("person").id] == pytest.approx(0.7)


def test_what_touches_what(model):
    """A can is held by its sides and ends, and stands on balls along its rims; a robot's geoms are 1 and 2."""
    assert meet(model, model.geom("can"), model.geom("palm"))
    assert meet(model, model.geom("can"), model.geom("person_top"))
    assert not meet(model, model.geom("can"), model.geom("stand"))
    assert (model.geom("can").conaffinity[0] & 1, model.geom("can").contype[0] & 2) == (1, 0)
    balls = [
        g for g in map(model.geom, range(model.ngeom)) if g.bodyid[0] == model.body("can").id and g.type[0] == 2
    ]
    assert len(balls) == 16
    for ball in balls:
        assert meet(model, ball, model.geom("stand"))
        assert meet(model, ball, model.geom("floor"))
        assert not meet(model, ball, model.geom("palm"))
        assert (ball.conaffinity[0] & 1, ball.contype[0]) == (0, 0)
        assert np.hypot(*ball.pos[:2]) + ball.size[0] == pytest.approx(objects.CAN_RADIUS)
        assert abs(ball.pos[2]) + ball.size[0] == pytest.approx(objects.CAN_HALF)
    # The floor, the bar, the stand and the hand touch a robot.
    for name in ("floor", "bar", "stand", "palm"):
        assert model.geom(name).conaffinity[0] & 1
        assert model.geom(name).contype[0] & 2


def test_places(model):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.body("stand_top").xpos == pytest.approx([2.0, 0.5, 0.4])
    assert data.body("can").xpos == pytest.approx([2.0, 0.5, 0.4575])
    assert data.geom("bar").xpos == pytest.approx([1.05, 0.0, 0.06])
    assert model.geom("bar").size[[0, 2]] == pytest.approx([0.05, 0.06])
    assert model.geom("floor").friction[0] == 0.7
    assert model.geom("bar").friction[0] == 0.6


def test_sizes(model):
    """A can of 330 ml; a person's hand of 400 N/m, 25 N s/m and 25 N."""
    assert 2000 * model.geom("can").size[:2] == pytest.approx([66.0, 115.0])
    assert 2 * model.geom("stand").size[:2] == pytest.approx([0.24, 0.4])
    assert (model.geom("can").condim[0], model.geom("can").friction[0]) == (4, 0.8)
    for axis in "xyz":
        motor = model.actuator(f"person_{axis}")
        assert motor.gainprm[0] == -motor.biasprm[1] == 400.0
        assert motor.forcerange == pytest.approx([-25.0, 25.0])
        assert model.joint(f"person_{axis}").damping[0] == 25.0
    for body in ("person", "person_top", "person_bottom"):
        assert model.body_gravcomp[model.body(body).id] == 1.0


def test_can_stands(model):
    data = mujoco.MjData(model)
    data.qpos[model.joint("person_x").qposadr[0]] = 5.0
    data.ctrl[model.actuator("person_x").id] = 5.0
    for _ in range(500):
        mujoco.mj_step(model, data)
    assert data.body("can").xpos == pytest.approx([2.0, 0.5, 0.4575], abs=1e-3)
    assert data.body("can").xmat[8] == pytest.approx(1.0, abs=1e-6)


def test_hand_grips_a_can(model):
    """It comes to where it should, its fingers close on the can's ends, and it lifts it."""
    data = mujoco.MjData(model)
    hand = [model.actuator(f"person_{axis}").id for axis in "xyz"]
    fingers = [model.actuator(f"person_{name}").id for name in ("top", "bottom")]
    can = model.joint("can").qposadr[0]
    # On nothing, and caught as it begins to fall.
    data.qpos[can : can + 3] = data.ctrl[hand] = [4.0, 0.0, 1.0]
    for axis, value in zip("xyz", (4.0, 0.0, 1.0), strict=True):
        data.qpos[model.joint(f"person_{axis}").qposadr[0]] = value
    for name in ("top", "bottom"):
        data.qpos[model.joint(f"person_{name}").qposadr[0]] = 0.0143
    data.ctrl[fingers] = 20.0
    for _ in range(500):
        mujoco.mj_step(model, data)
    data.ctrl[hand[2]] = 1.2
    for _ in range(1000):
        mujoco.mj_step(model, data)
    assert data.body("can").xpos[2] == pytest.approx(1.2, abs=0.03)
    assert np.linalg.norm(data.body("can").xpos - data.body("person").xpos) < 0.02
    closed = sum(data.joint(f"person_{name}").qpos[0] for name in ("top", "bottom"))
    assert closed == pytest.approx(0.029, abs=0.003)


def test_hand_is_weak(model):
    data = mujoco.MjData(model)
    data.ctrl[model.actuator("person_x").id] = 10.0
    mujoco.mj_forward(model, data)
    assert data.actuator("person_x").force[0] == pytest.approx(25.0)


def test_fingers_stop(model):
    """They close on a can's ends and not on what is much shorter."""
    data = mujoco.MjData(model)
    data.qpos[model.joint("person_z").qposadr[0]] = data.ctrl[model.actuator("person_z").id] = 2.0
    for name in ("person_top", "person_bottom"):
        data.ctrl[model.actuator(name).id] = 20.0
    for _ in range(500):
        mujoco.mj_step(model, data)
    apart = data.geom("person_top").xpos[2] - data.geom("person_bottom").xpos[2] - 0.016
    # With what the joints' ends give way.
    assert 2 * objects.CAN_HALF - 0.026 < apart < 2 * objects.CAN_HALF


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda spec: objects.add_floor(spec, 0.0), "friction is 0.0; allowed: a finite number > 0"),
        (lambda spec: objects.add_floor(spec, float("nan")), "friction is nan"),
        (lambda spec: objects.add_bar(spec, "near", 0.1, 0.1, 1.0), "front is 'near'"),
        (lambda spec: objects.add_bar(spec, 1.0, -0.1, 0.1, 1.0), "depth is -0.1"),
        (lambda spec: objects.add_bar(spec, 1.0, 0.1, 0, 1.0), "height is 0"),
        (lambda spec: objects.add_stand(spec, float("inf"), 0, 0.4), "x is inf"),
        (lambda spec: objects.add_stand(spec, 0, 0, 0), "height is 0"),
        (lambda spec: objects.add_can(spec, 0, None, 0, 0.3), "y is None"),
        (lambda spec: objects.add_can(spec, 0, 0, 0.4, 0), "mass is 0"),
    ],
)
def test_refused(call, said):
    spec = mujoco.MjSpec()
    with pytest.raises(ValueError, match=said):
        call(spec)
    # Nothing was added.
    assert len(spec.geoms) == 0


@pytest.mark.parametrize(
    ("add", "arguments"),
    [("floor", (0.7,)), ("bar", (1.0, 0.1, 0.1, 0.7)), ("stand", (0, 0, 0.4)), ("can", (0, 0, 0.4, 0.3)),
     ("person", ())],
)  # fmt: skip
def test_no_spec(add, arguments):
    with pytest.raises(ValueError, match="spec is 3; allowed: a MjSpec"):
        getattr(objects, f"add_{add}")(3, *arguments)


def test_written(model):
    """As MJCF and read again, a scene is the same."""
    again = mujoco.MjModel.from_xml_string(furnished().to_xml())
    assert again.nu == model.nu
    assert again.geom_size == pytest.approx(model.geom_size, abs=1e-6)
    assert again.actuator_forcerange == pytest.approx(model.actuator_forcerange)
    assert again.geom_solimp == pytest.approx(model.geom_solimp)
    assert again.geom_solmix == pytest.approx(model.geom_solmix)
    assert again.jnt_range == pytest.approx(model.jnt_range, abs=1e-6)
