"""What a run leaves behind: the state of the world, what the robot felt and did, tick by tick, in one file.

A film, a recording and a page are made of a log alone; it holds the scene, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persianrug._support import checks, files, npy
from persianrug.robots.taxel_log import TaxelLog, TouchFrame
from persianrug.skin.layout import Layout

_KINDS = {".npz": "the log of a robot's run"}
_VERSION = 1
# Ticks that there is room for in the beginning, which doubles whenever it is filled.
_ROOM = 4096
# Seconds from one frame of the skin to the next that is kept.
_FRAME = 0.04
# Of the texts in a file, in bytes.
_MOST_TEXT = 1 << 24

# What is kept of a tick, and its type: 32 bits but for what a film needs exactly. Forces are in the frames of the
# patches' bodies.
FIELDS: dict[str, Any] = {
    "time": np.float64,  # () s
    "qpos": np.float64,  # (nq,) of all joints of the scene, the robot's first
    "qvel": np.float32,  # (nv,)
    "ctrl": np.float32,  # (nu,) of all motors of the scene, the robot's first
    "estimate_qpos": np.float32,  # (nq of the robot,) where it takes itself to be
    "pressing_true": np.float32,  # (patches,) N
    "pressing_felt": np.float32,  # (patches,) N
    "force_true": np.float32,  # (patches, 3) N
    "force_felt": np.float32,  # (patches, 3) N
    "centre_felt": np.float32,  # (patches, 3) m, NaN where nothing presses
    "valid": np.bool_,  # (patches,) whether what is felt is to be believed
    "stance": np.bool_,  # (feet,) which feet carry, as the gait has it
    "pull": np.float32,  # () N, along the gripper
    "grip": np.float32,  # () rad, what the finger is told; NaN without one
}
# Those that have a number, or three, of each patch.
_OF_PATCHES = ("pressing_true", "pressing_felt", "valid", "force_true", "force_felt", "centre_felt")


class LogPart(NamedTuple):
    """A part of a story: whether it was done, and when, in seconds; None if it was never come to."""

    name: str
    done: bool
    at: float | None


@dataclass(frozen=True)
class Worn:
    """What a log says of the robot: which patches its skin has, and what they are for.

    Parameters
    ----------
    patches : tuple of str
        In the order of the readings.
    bodies : tuple of str
        The body of each.
    base : str
        The body with the free joint, which a camera follows.
    feet : tuple of str
        The patches that it stands on, in the order of `stance`.
    hands : tuple of str
        The patches that it grips with.
    """

    patches: tuple[str, ...]
    bodies: tuple[str, ...]
    base: str
    feet: tuple[str, ...] = ()
    hands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("patches", "bodies", "feet", "hands"):
            texts = tuple(getattr(self, name))
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{name} is {checks.shown(texts)}; allowed: names")
            object.__setattr__(self, name, texts)
        if len(self.patches) != len(self.bodies):
            raise ValueError(f"bodies has {len(self.bodies)} names; allowed: {len(self.patches)}, one a patch")
        for name in (*self.feet, *self.hands):
            checks.one_of("feet and hands", name, self.patches)


@dataclass(eq=False, repr=False)
class Log:
    """A run, tick by tick; `log["qpos"]` is (ticks, nq), and so are all of FIELDS.

    Parameters
    ----------
    scene : str
        The scene as MJCF, without other files.
    worn : Worn
    layout : Layout, optional
        Where the taxels are, of a robot that feels by its skin.
    meta : dict
        Whatever else is to be kept, for JSON: `robot`, `scenario`, `seed`, what was asked for, and how it ended.

    Attributes
    ----------
    parts : list of LogPart
    events : list of (float, str)
        What the robot said, and when, in seconds.
    frames : TaxelLog or None
        Frames of the skin, 25 a second.
    """

    scene: str
    worn: Worn
    layout: Layout | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts: list[LogPart] = []
        self.events: list[tuple[float, str]] = []
        self.frames = None if self.layout is None else TaxelLog(self.layout)
        self._count = 0
        self._columns: dict[str, NDArray[Any]] = {}

    @classmethod
    def of(cls, scenario: Any, meta: dict[str, Any] | None = None) -> Log:
        """An empty log of a scenario."""
        spec = scenario.spec
        hands = () if spec.arm is None else (spec.arm.jaw_patch, spec.arm.finger_patch)
        body = {one.name: one.body for one in spec.patches}
        patches = tuple(scenario.sensor.patches)
        feet = tuple(foot.patch for foot in spec.feet)
        worn = Worn(patches, tuple(body[name] for name in patches), spec.base, feet, hands)
        told = {"robot": spec.name, "title": spec.title, "scenario": scenario.name, "seed": scenario.seed}
        return cls(scenario.xml, worn, getattr(scenario.sensor, "layout", None), {**told, **(meta or {})})

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in FIELDS:
            # As mappings raise it.
            raise KeyError(f"name is {checks.shown(name)}; allowed: {', '.join(FIELDS)}")
        if not self._count:
            raise ValueError("the log is empty; allowed: one tick or more")
        return self._columns[name][: self._count]

    def append(self, runner: Any) -> None:
        """Keep a tick of a runner: the world before it moves on, what is felt in it, and what is done."""
        data, body, felt = runner.data, runner.body, runner.reading
        sensor, controller = runner.scenario.sensor, runner.scenario.controller
        true = sensor.true
        self.add(
            time=data.time,
            qpos=data.qpos,
            qvel=data.qvel,
            ctrl=data.ctrl,
            estimate_qpos=body.state.q,
            pressing_true=true.pressing,
            pressing_felt=felt.pressing,
            force_true=true.force,
            force_felt=felt.force,
            centre_felt=felt.centre,
            valid=felt.valid,
            stance=controller.plan.stance,
            pull=body.pull,
            grip=np.nan if controller.grip is None else controller.grip.target,
        )
        self.note(body)
        # What has a layout is a skin, whose frames are kept, too.
        newest: TouchFrame | None = None if self.frames is None else sensor.newest
        if newest is not None and self.frames is not None:
            last = self.frames.time[-1] if self.frames.time else -np.inf
            if newest.time >= last + _FRAME - 1e-6:
                self.frames.append(newest.time, newest.true, newest.estimate, newest.code)

    def add(self, **tick: Any) -> None:
        """Keep a tick: all of FIELDS, of the same shapes in every tick."""
        if not self._columns:
            if missing := [name for name in FIELDS if name not in tick]:
                raise ValueError(f"a tick has no {missing[0]}; allowed: all of {', '.join(FIELDS)}")
            self._columns = {
                name: np.empty((_ROOM, *np.shape(tick[name])), dtype=kind) for name, kind in FIELDS.items()
            }
        if self._count == len(self._columns["time"]):
            self._columns = {
                name: np.concatenate([part, np.empty_like(part)]) for name, part in self._columns.items()
            }
        count = self._count
        for name, column in self._columns.items():
            column[count] = tick[name]
        self._count = count + 1

    def note(self, body: Any) -> None:
        """Keep what a robot has said and done so far: its `events` and `parts`."""
        if len(body.events) > len(self.events):
            self.events.extend(body.events[len(self.events) :])
        if len(body.parts) > len(self.parts):
            self.parts = [LogPart(name, done, at) for name, (done, at) in body.parts.items()]

    def finish(self, parts: Sequence[tuple[str, bool, float | None]]) -> None:
        """Keep how all parts of the story ended, with their names, whether they were done, and when."""
        self.parts = [LogPart(*part) for part in parts]

    def when(self, time: float) -> int:
        """The tick at a time in seconds, or the last one before it."""
        return max(0, int(np.searchsorted(self["time"], time + 1e-9, side="right")) - 1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log to an .npz file, whole, or leave what was there.

        Raises
        ------
        ValueError
            If the name has another ending, or the file cannot be written.
        OSError
            If the disk is full.
        """
        told = {
            "version": _VERSION,
            "meta": self.meta,
            "parts": self.parts,
            "events": self.events,
            "worn": {name: getattr(self.worn, name) for name in ("patches", "bodies", "base", "feet", "hands")},
        }
        parts: dict[str, Any] = {"told": _packed(json.dumps(told)), "scene": _packed(self.scene)}
        if self._count:
            parts |= {name: self[name] for name in FIELDS}
        if self.layout is not None and self.frames is not None:
            parts |= {f"taxel_{name}": part for name, part in self.layout.arrays().items()} | self.frames.arrays()
        npy.write_arrays(path, parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Log:
        """Read a log that `save` wrote, also that of a run that was interrupted.

        Raises
        ------
        ValueError
            If the file is no log, or damaged.
        """
        with files.untrusted("log", path, _KINDS) as target:
            names = npy.names(target)
            found = npy.read_arrays(target, ["told", "scene", *FIELDS, *TaxelLog.names()])
            if missing := [name for name in ("told", "scene") if name not in found]:
                raise ValueError(f"it holds no array {missing[0]}")
            told = json.loads(_unpacked(found["told"]))
            if told["version"] != _VERSION:
                raise ValueError(f"its version is {checks.shown(told['version'])}; allowed: {_VERSION}")
            layout = Layout.of_arrays(target) if "taxel_pos" in names else None
            log = cls(_unpacked(found["scene"]), Worn(**told["worn"]), layout, dict(told["meta"]))
            log.parts = [LogPart(str(name), bool(done), _when(at)) for name, done, at in told["parts"]]
            log.events = [(float(time), str(text)) for time, text in told["events"]]
            if layout is not None:
                log.frames = TaxelLog.of_arrays(layout, found)
            if "time" in found:
                log._columns = _columns(found, log.worn)
                log._count = len(log._columns["time"])
        return log

    def __repr__(self) -> str:
        name = f"{self.meta.get('robot', 'a robot')} in {self.meta.get('scenario', 'a scene')}"
        seconds = f"{self['time'][-1]:.1f} s" if self._count else "empty"
        frames = 0 if self.frames is None else len(self.frames)
        return f"Log({name}: {seconds}, {self._count} ticks, {frames} frames of its skin)"


def _columns(found: dict[str, NDArray[Any]], worn: Worn) -> dict[str, NDArray[Any]]:
    """The columns of a file, checked: as many ticks in each, of the types and sizes that they should have."""
    ticks = len(found["time"])
    for name, kind in FIELDS.items():
        part = found[name]
        if part.dtype != kind or part.ndim == 0 or len(part) != ticks or part.ndim > 3:
            raise ValueError(
                f"{name} has shape {part.shape} of {part.dtype}; allowed: {ticks} ticks of {kind.__name__}"
            )
    for name in _OF_PATCHES:
        of_tick = found[name].shape[1:]
        if of_tick != (len(worn.patches), 3)[: 2 if name.startswith(("force", "centre")) else 1]:
            raise ValueError(f"{name} has {of_tick} in a tick; allowed: of {len(worn.patches)} patches")
    if found["stance"].shape != (ticks, len(worn.feet)):
        raise ValueError(f"stance has shape {found['stance'].shape}; allowed: {(ticks, len(worn.feet))}")
    time = found["time"]
    if time.ndim != 1 or not np.isfinite(time).all() or (np.diff(time) < 0).any():
        raise ValueError("its times are not in their order")
    return {name: found[name] for name in FIELDS}


def _when(at: Any) -> float | None:
    return None if at is None else float(at)


def _packed(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _unpacked(part: NDArray[Any]) -> str:
    if part.dtype != np.uint8 or part.ndim != 1 or len(part) > _MOST_TEXT:
        raise ValueError(f"a text has shape {part.shape} of {part.dtype}; allowed: up to {_MOST_TEXT} bytes")
    return part.tobytes().decode()
