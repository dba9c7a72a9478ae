"""Models of robots, read from files."""

import pytest

pytest.importorskip("mujoco")

from persianrug.robots.models import read_model
from persianrug.robots.spot.spec import SPEC

ROBOT = """<mujoco><worldbody>{before}<body><freejoint/><geom size="0.1"/>
<body pos="0 0 0.2"><joint name="hinge"/>{inertia}<geom size="0.1"/></body></body></worldbody>
<actuator>{motors}</actuator></mujoco>"""
GOOD = {"before": "", "inertia": "", "motors": '<motor joint="hinge"/>'}


def write(tmp_path, **changes):
    path = tmp_path / "robot.xml"
    path.write_text(ROBOT.format(**(GOOD | changes)))
    return path


def test_ours():
    spec = read_model(SPEC.mjcf)
    model = spec.compile()
    assert model.nu == 19
    assert model.joint(0).name == "root"
    assert [model.joint(i).name for i in range(1, model.njnt)] == [
        model.joint(model.actuator(i).trnid[0]).name for i in range(model.nu)
    ]


def test_good(tmp_path):
    assert read_model(write(tmp_path)).compile().nu == 1
    assert read_model(str(write(tmp_path))).compile().nu == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"before": '<body><joint name="a"/><geom size="0.1"/></body>'}, "first joint is not free"),
        ({"motors": ""}, "without actuators"),
        ({"motors": '<motor joint="none"/>'}, "no model"),
        ({"inertia": '<inertial pos="0 0 0" mass="nan" diaginertia="1 1 1"/>'}, "no model|no numbers"),
        ({"before": "<body>"}, "no model"),
    ],
)
def test_refused(tmp_path, monkeypatch, changes, said):
    # MuJoCo leaves its warnings in a file where it runs.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said) as error:
        read_model(write(tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("path is ")


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="no file; allowed: an MJCF file"):
        read_model(tmp_path / "none.xml")
    with pytest.raises(ValueError, match="no file"):
        read_model(tmp_path)
    with pytest.raises(ValueError, match="path is a int"):
        read_model(3)


def test_too_large(tmp_path):
    path = tmp_path / "large.xml"
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ValueError, match="of 17825792 bytes"):
        read_model(path)


def test_no_mjcf(tmp_path):
    path = tmp_path / "rug.xml"
    path.write_text("<rug/>")
    with pytest.raises(ValueError, match="no model"):
        read_model(path)
    path.write_bytes(b"\0\1\2")
    with pytest.raises(ValueError, match="no model"):
        read_model(path)
