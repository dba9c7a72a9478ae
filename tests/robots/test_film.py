"""Films and strips of pictures: they show what was logged; without OpenGL a message says what is missing."""

import sys

import av
import numpy as np
import pytest
from PIL import Image

from persianrug.robots import film, gl
from persianrug.robots.film import part_at, picture_strip, write_film
from persianrug.robots.gl import NoPictures
from persianrug.robots.log import Log, Worn
from persianrug.robots.stage import Stage, model_of
from tests.robots.toys import PATCHES, SCENE, make_log


@pytest.fixture(scope="module", autouse=True)
def _drawing():
    """Nothing here is drawn where there is no OpenGL; `.ci/run` installs it."""
    try:
        gl.kind_of_context()
    except NoPictures as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def log():
    return make_log(1.0)


def yellow(picture):
    """Where a picture shows the box: rows and columns of its pixels."""
    red, green, blue = (np.asarray(picture)[..., k].astype(int) for k in range(3))
    return np.nonzero((red > 2 * blue + 10) & (green > blue))


def test_a_film_is_as_long_as_the_run(log, tmp_path):
    seen = []
    count = write_film(log, tmp_path / "film.mp4", size=(320, 180), progress=lambda *done: seen.append(done))
    with av.open(tmp_path / "film.mp4") as film:
        stream = film.streams.video[0]
        pictures = [frame.to_image() for frame in film.decode(stream)]
        assert (stream.codec_context.name, stream.average_rate, stream.width, stream.height) == (
            "h264",
            25,
            320,
            180,
        )
    assert count == len(pictures) == 25
    assert seen == [(k + 1, 25) for k in range(25)]
    # The box falls: it is seen lower in the end.
    assert yellow(pictures[-1])[0].mean() > yellow(pictures[0])[0].mean() + 10


def test_pictures_follow_the_robot(log):
    away = make_log(1.0)
    away["qpos"][:, :2] += [3.0, -2.0]
    seen = []
    for one in (log, away):
        with Stage(one, 160, 120) as stage:
            seen.append(np.mean(yellow(stage.draw(200)), axis=1))
    assert seen[1] == pytest.approx(seen[0], abs=2)


def test_a_strip_has_a_picture_for_each_time(log, tmp_path):
    picture_strip(log, [0.0, 0.3, 0.9], tmp_path / "strip.png", size=(120, 80))
    strip = Image.open(tmp_path / "strip.png")
    assert strip.size == (3 * 120 + 2 * 6, 80)
    parts = [np.asarray(strip)[:, k * 126 : k * 126 + 120] for k in range(3)]
    assert not np.array_equal(parts[0], parts[1])


def test_bars_are_long_enough_for_what_feet_carry(log):
    caption = film._Caption(log, 960)
    foot = [name for name, _ in caption.rows].index("sole")
    assert caption.most[foot] == 300.0
    heavy = type("Heavy", (), {"worn": log.worn, "__getitem__": lambda self, name: 100 * log[name]})()
    carried = np.quantile(100 * log["pressing_true"][:, [log.worn.patches.index("sole")]], 0.98)
    assert film._Caption(heavy, 960).most[foot] == pytest.approx(carried)
    assert carried > 300


def test_what_it_is_at(log):
    # The box falls for 0.29 s, and says that it lets go after 0.9 s.
    assert [part_at(log, time) for time in (0.0, 0.2, 0.5, 0.95)] == ["fall", "fall", "let go", "let go"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"size": (321, 180)}, "even numbers"),
        ({"size": (32, 32)}, "size is 32"),
        ({"rate": 0}, "rate is 0"),
        ({"path": "film.avi"}, "ends in .mp4"),
    ],
)
def test_mistakes(log, tmp_path, arguments, why):
    path = tmp_path / arguments.pop("path", "film.mp4")
    with pytest.raises(ValueError, match=why):
        write_film(log, path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_strips(log, tmp_path):
    with pytest.raises(ValueError, match="times is empty"):
        picture_strip(log, [], tmp_path / "strip.png")
    with pytest.raises(ValueError, match=r"ends in \.png"):
        picture_strip(log, [0.0], tmp_path / "strip.gif")
    with pytest.raises(ValueError, match="the log is empty"):
        picture_strip(make_log(0.0), [0.0], tmp_path / "strip.png")


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        ("<mujoco", "cannot be read"),
        ("<mujoco><body/><what/></mujoco>", "cannot be read"),
        ('<mujoco><include file="/etc/passwd"/></mujoco>', "of another file"),
        ('<mujoco><asset><mesh name="m" file="/etc/passwd"/></asset></mujoco>', "of another file"),
        ('<mujoco><asset><texture type="skybox" fileup="/etc/passwd"/></asset></mujoco>', "of another file"),
    ],
)
def test_scenes_that_read_files_are_refused(scene, why):
    with pytest.raises(ValueError, match=why):
        model_of(Log(scene, Worn(PATCHES, ("base", "paddle"), "base")))


def test_a_scene_of_other_joints_is_refused():
    log = make_log(0.1)
    log.scene = SCENE.replace('<joint name="wave" axis="0 1 0" damping="0.5"/>', "").replace(
        '<actuator><motor name="wave" joint="wave" ctrlrange="-3 3"/></actuator>', ""
    )
    with pytest.raises(ValueError, match="the log has 8 joint positions; allowed: 7, as its scene has"):
        model_of(log)


class TestWithoutOpenGL:
    @pytest.fixture(autouse=True)
    def _forgotten(self):
        gl._works.cache_clear()
        yield
        gl._works.cache_clear()

    def test_it_says_what_installs_it(self, log, tmp_path, monkeypatch):
        monkeypatch.setattr(gl, "_works", lambda kind: f"{kind} is not there")
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        with pytest.raises(NoPictures) as caught:
            write_film(log, tmp_path / "film.mp4")
        assert str(caught.value) == (
            "no OpenGL draws pictures here (egl: egl is not there; osmesa: osmesa is not there; glfw: glfw is not "
            "there); allowed: after apt-get install libegl1 libosmesa6 libgl1-mesa-dri on Debian, as root"
        )
        assert list(tmp_path.iterdir()) == []

    def test_what_works_is_found_in_a_process_of_its_own(self, monkeypatch):
        monkeypatch.setattr(gl, "_TRIED", "import sys; sys.exit(sys.argv[1] == 'egl')")
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        assert gl.kind_of_context() == "osmesa"
        monkeypatch.setenv("MUJOCO_GL", "egl")
        with pytest.raises(NoPictures, match="egl: it ended with 1"):
            gl.kind_of_context()
        monkeypatch.setenv("MUJOCO_GL", "off")
        with pytest.raises(NoPictures, match="MUJOCO_GL is off: nothing is drawn"):
            gl.kind_of_context()

    def test_what_is_unknown_is_refused(self, monkeypatch):
        monkeypatch.setenv("MUJOCO_GL", "nonsense")
        with pytest.raises(
            ValueError, match=r"^MUJOCO_GL is 'nonsense'; allowed: egl, osmesa, glfw, or none of it$"
        ):
            gl.kind_of_context()

    def test_what_crashes_does_not_work(self, monkeypatch):
        monkeypatch.setattr(gl, "_TRIED", "import os; os.abort()")
        assert gl._works("egl") == "it ended with -6"


def test_without_av(log, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"films take the package av; allowed: after pip install '\.\[robots\]'"):
        write_film(log, tmp_path / "film.mp4")
