"""A robot that is a box with a paddle: it is dropped on a floor, and that is its story."""

from types import SimpleNamespace
from typing import NamedTuple

import mujoco
import numpy as np

from persianrug._support import checks
from persianrug.robots.facts import Fact
from persianrug.robots.log import Log
from persianrug.skin import Estimate, Layout, RecordedCode

SCENE = """
<mujoco model="toy">
  <option timestep="0.002"/>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.9 0.9 0.9" rgb2="0.6 0.7 0.8" width="32" height="64"/>
  </asset>
  <worldbody>
    <light pos="0 0 3"/>
    <geom name="floor" type="plane" size="5 5 0.1" rgba="0.6 0.6 0.6 1"/>
    <body name="base" pos="0 0 0.5">
      <freejoint name="root"/>
      <geom name="box" type="box" size="0.2 0.15 0.1" mass="4" rgba="0.9 0.7 0.1 1"/>
      <body name="paddle" pos="0.2 0 0">
        <joint name="wave" axis="0 1 0" damping="0.5"/>
        <geom type="capsule" fromto="0 0 0 0.25 0 0.05" size="0.03" mass="0.3" rgba="0.1 0.1 0.1 1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="wave" joint="wave" ctrlrange="-3 3"/></actuator>
</mujoco>
"""
PATCHES = ("sole", "palm")
STEPS = 2


def make_layout():
    """A sole below the box, and a palm at the end of the paddle."""
    sole, palm = Layout.plane(8, 8, 0.04, axes=3), Layout.plane(4, 4, 0.012, axes=3)
    turn = np.diag([1.0, -1.0, -1.0])
    below, above = (sole.position - [0.14, 0.14, 0]) @ turn, palm.position
    position = np.concatenate([below - [0, 0, 0.1], np.add(above, [0.2, 0, 0.07])])
    normal = np.concatenate([sole.normal @ turn, palm.normal])
    tangents = np.concatenate([sole.tangents @ turn, palm.tangents])
    patch = np.repeat([0, 1], [sole.n_taxels, palm.n_taxels])
    return Layout(
        position, normal, np.concatenate([sole.area, palm.area]), patch, PATCHES, ("base", "paddle"), tangents
    )


class Sensor:
    """Feels the sole by what the floor carries, and the palm by what the paddle is told; a skin is a bit wrong."""

    patches = PATCHES

    def __init__(self, skin, seed=0):
        self.layout = make_layout() if skin else None
        self.rng, self.true, self.newest, self.frames = np.random.default_rng(seed), None, None, 0

    def sense(self, data):
        load = max(0.0, float(np.sum([contact.dist < 0 for contact in data.contact])) * 10.0)
        palm = abs(float(data.ctrl[0]))
        pressing = np.array([load, palm])
        force = np.array([[0.0, 0.0, load], [0.0, 0.0, -palm]])
        centre = np.array([[0.0, 0.0, -0.1], [0.22, 0.0, 0.07]])
        centre[pressing == 0] = np.nan
        self.true = SimpleNamespace(
            patches=PATCHES, time=data.time, pressing=pressing, force=force, centre=centre, area=pressing,
            valid=np.ones(2, bool),
        )  # fmt: skip
        if self.layout is None:
            return self.true
        if round(data.time / 0.002) % 5 == 0:
            self.newest = self._frame(data.time, load, palm)
        felt = dict(vars(self.true))
        felt |= {"pressing": pressing * 1.05, "force": force * 1.05}
        return SimpleNamespace(**felt)

    def _frame(self, time, load, palm):
        true = np.zeros((self.layout.n_taxels, 3), np.float32)
        true[20:28, 0], true[-10:-4, 0], true[-10:-4, 1] = load / 8, palm / 6, -palm / 30
        decoded = np.where(true != 0, true + self.rng.normal(0, 0.02, true.shape), 0.001).astype(np.float32)
        known = Estimate.certain(self.frames, decoded, 2)
        self.frames += 1
        code = [
            RecordedCode(block, self.rng.integers(-99, 99, 4 + block).astype(np.int32), 3, 12)
            for block in range(2)
        ]
        return SimpleNamespace(time=time, true=true, estimate=known, code=code)

    def statistics(self):
        if self.layout is None:
            return {}
        return {
            "ratio": 0.0625, "frames": self.frames, "explained": 1.0, "packets_lost": 0.05,
            "bytes_per_second": 1e5, "force_error_predicted": 0.02, "force_error_measured": 0.05,
        }  # fmt: skip


SPEC = SimpleNamespace(
    name="toy", title="Box with a paddle", base="base", height=0.1,
    feet=(SimpleNamespace(name="sole", patch="sole"),),
    arm=SimpleNamespace(jaw_patch="palm", finger_patch="palm", finger="wave"),
    patches=(
        SimpleNamespace(name="sole", body="base", taxels=64),
        SimpleNamespace(name="palm", body="paddle", taxels=16),
    ),
)  # fmt: skip


def make(seed, touch, *, bar=None, force=1.0):
    """A scenario as those of robots that ship are made."""
    if bar is not None and not 0 < bar <= 0.2:
        raise ValueError(f"bar is {bar:g}; allowed: metres, up to 0.2")
    return make_scenario(checks.seed(seed), touch.skin, bar=bar, force=force)


ROBOTS = {
    "spot": SimpleNamespace(
        spec=SPEC, facts=(Fact("mass", 4.3, "kg", "ours"),), trials={
            "drop": SimpleNamespace(
                what="is dropped", make=make, options={"bar": None, "force": 1.0}, counts="it lies"
            ),
            "lie": SimpleNamespace(what="lies there", make=make, options={}, counts="it lies"),
        },
    )
}  # fmt: skip


def make_scenario(seed=0, skin="stiff", **options):
    return SimpleNamespace(
        name="drop", spec=SPEC, seed=seed, model=mujoco.MjModel.from_xml_string(SCENE), xml=SCENE,
        sensor=Sensor(skin != "truth", seed), controller=SimpleNamespace(
            plan=SimpleNamespace(stance=np.ones(1, bool)), grip=SimpleNamespace(target=-0.2)
        ), parts=("fall", "let go"), options=options,
    )  # fmt: skip


class Runner:
    """As the real one: its log is given every tick, and ends with the world."""

    # Seconds of its story, and what happens at some time instead.
    seconds, happens = 1.0, None

    def __init__(self, scenario, log=None):
        self.scenario, self.log = scenario, log
        self.data = mujoco.MjData(scenario.model)
        self.body = SimpleNamespace(state=SimpleNamespace(q=self.data.qpos), events=[], parts={}, pull=0.0)

    def tick(self):
        data, body = self.data, self.body
        self.reading = self.scenario.sensor.sense(data)
        data.ctrl[0] = 2 * np.sin(6 * data.time)
        body.pull = max(0.0, 20 * (data.time - 0.7))
        if self.reading.pressing[0] > 0 and "fall" not in body.parts:
            body.parts["fall"] = (True, data.time)
            body.events.append((data.time, "feels the floor"))
        if data.time > 0.902 and "let go" not in body.parts:
            body.parts["let go"] = (True, data.time)
            body.events.append((data.time, "feels a pull of 6.1 N"))
        if self.log is not None:
            self.log.append(self)
        mujoco.mj_step(self.scenario.model, data, STEPS)

    def run(self, on_part=None, on_event=None):
        told, reason = set(), ""
        while self.data.time < self.seconds and not reason:
            self.tick()
            if self.happens is not None and self.data.time > 0.402:
                reason = self.happens()
            for name, (done, at) in self.body.parts.items():
                if on_part is not None and name not in told:
                    on_part(Part(name, done, at))
                told.add(name)
        if on_event is not None:
            for event in self.body.events:
                on_event(*event)
        parts = [Part(name, *self.body.parts.get(name, (False, None))) for name in self.scenario.parts]
        reached = all(part.done for part in parts)
        timing = {"wall": 0.5, "real_time": 2.0, "control_p99": 0.001, "steps_per_second": 12000.0}
        reason = reason or ("" if reached else "too short")
        return SimpleNamespace(
            succeeded=reached, seconds=self.data.time, parts=parts, reason=reason,
            skin=self.scenario.sensor.statistics(), timing=timing, drawn={"mass": np.float64(1.1)},
        )  # fmt: skip


class Part(NamedTuple):
    name: str
    done: bool
    at: float | None


def make_log(seconds=1.0, skin="stiff", seed=0):
    """The log of a run of so many seconds."""
    scenario = make_scenario(seed, skin)
    log = Log.of(scenario, {"pull_threshold": 6.0, "options": {"skin": skin}})
    runner = Runner(scenario, log)
    while runner.data.time < seconds:
        runner.tick()
    return log
