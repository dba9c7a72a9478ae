"""What is said of a robot has to fit its model: one line says what does not."""

from dataclasses import replace

import pytest

from persianrug.robots import scene
from persianrug.robots.registry import ROBOTS
from persianrug.robots.spec import EndEffector, Kind

SPEC = ROBOTS["cassie"].spec


def foot(**changes):
    return (replace(SPEC.feet[0], **changes), *SPEC.feet[1:])


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_that_ship_fit(name):
    assert scene.robot_model(ROBOTS[name].spec).nu > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "belly"}, "base is 'belly'; allowed: bodies of the model: world, pelvis"),
        ({"base": "l_foot"}, "base is 'l_foot'; allowed: the body with the free joint"),
        ({"feet": foot(geom="toe")}, "the geom of foot 'l' is 'toe'; allowed: geoms of the model: "),
        ({"feet": foot(kind=Kind.FLAT)}, "the geom of foot 'l' is 'l_foot'; allowed: a box of a flat"),
        ({"feet": foot(site="")}, "the site of foot 'l' is ''; allowed of a line: a site"),
        ({"feet": foot(site="nowhere")}, "the site of foot 'l' is 'nowhere'; allowed: sites of the model: "),
        ({"feet": foot(joints=("l_ankle",))}, "a joint of foot 'l' is 'l_ankle'; allowed: joints of the model: "),
        ({"feet": foot(patch="nothing")}, "the patch of foot 'l' is 'nothing'; allowed: "),
        ({"posture": {"neck": 0.1}}, "a joint of the posture is 'neck'; allowed: joints of the model: root, "),
        ({"ties": {"l_shin": {"neck": 1.0}}}, "a joint of a tie is 'neck'; allowed: joints of the model: "),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes, message):
    spec = replace(SPEC, **changes)
    for make in (lambda: scene.robot_model(spec), lambda: scene.build_scene(spec, lambda world: None)):
        with pytest.raises(ValueError, match="allowed") as caught:
            make()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_point_has_no_site():
    spec = replace(SPEC, feet=(EndEffector("l", Kind.POINT, "l_foot", (), "l_foot"),))
    with pytest.raises(ValueError, match="allowed: a sphere of a point"):
        scene.robot_model(spec)
