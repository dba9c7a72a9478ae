"""A run as an MCAP file of ROS 2 messages, which Foxglove, Rerun and ros2 bag open, made of its log alone.

Beside the skin's frames, as persianrug.skin.recording has them, 25 a second:

    /joint_states     JointState         angles, speeds, and torques of motors, of all joints that have one number
    /tf               TFMessage          all bodies, in the frame `world`
    /robot/contacts   PointCloud2        a point a patch, in `world`: forces felt and true, and valid
    /robot/story      String             parts that are done, and what the robot says

of which joints, bodies and contacts come 50 times a second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import mujoco
import numpy as np
from numpy.typing import NDArray

from persianrug._support import files
from persianrug.robots.log import Log
from persianrug.robots.stage import model_of
from persianrug.skin import ros
from persianrug.skin.contacts import Contact
from persianrug.skin.mcap_writer import MessageWriter
from persianrug.skin.recording import RecordingWriter

# Messages of joints, bodies and contacts a second.
_RATE = 50.0
_POINT = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z", "force_x", "force_y", "force_z")),
        *((name, "<f4") for name in ("true_force_x", "true_force_y", "true_force_z", "pressing", "true_pressing")),
        ("valid", "<i4"),
    ]
)  # fmt: skip
# A patch is in contact, as the messages have it, where so much presses, in newtons.
_TOUCHING = 1.0

_Message = tuple[str, str, bytes]


def write_recording(log: Log, path: str | os.PathLike[str]) -> int:
    """Write a run to an .mcap file.

    Returns
    -------
    count : int
        Of times at which there are messages.

    Raises
    ------
    ValueError
        If the file cannot be written, the log is empty or its scene is none.
    OSError
        If the disk is full; then, and if it is interrupted, what was there is as it was.
    """
    motion = _Motion(log)
    if not len(log):
        raise ValueError("the log is empty; allowed: one tick or more")
    frames = log.frames
    # Half a recording would look like all of a shorter run.
    with files.whole_file(path) as file, _writer(log, path, file) as writer:
        count = 0
        if frames is not None and isinstance(writer, RecordingWriter):
            # The first frame brings the layout, which must come before all else.
            for place in range(min(1, len(frames))):
                _write_frame(writer, log, place)
        told, framed = 0, 1
        story = _story(log)
        for tick in _ticks(log):
            time = float(log["time"][tick])
            while frames is not None and framed < len(frames) and frames.time[framed] <= time:
                _write_frame(writer, log, framed)
                framed += 1
            while told < len(story) and story[told][0] <= time:
                writer.add(
                    [("/robot/story", ros.STRING, ros.pack_text(story[told][1]))], writer.stamp(story[told][0])
                )
                told += 1
            stamp = writer.stamp(time)
            writer.add(list(motion.messages(tick, stamp)), stamp, count)
            count += 1
        for time, text in story[told:]:
            writer.add([("/robot/story", ros.STRING, ros.pack_text(text))], writer.stamp(time))
    return count


def _writer(log: Log, path: str | os.PathLike[str], file: BinaryIO) -> MessageWriter:
    return MessageWriter(path, file) if log.layout is None else RecordingWriter(path, log.layout, file)


def _ticks(log: Log) -> list[int]:
    time = log["time"]
    times = np.arange(time[0], time[-1] + 1e-9, 1 / _RATE)
    return sorted({log.when(one) for one in times})


def _story(log: Log) -> list[tuple[float, str]]:
    told: list[tuple[float, dict[str, Any]]] = [(time, {"event": text}) for time, text in log.events]
    told += [(part.at, {"part": part.name, "done": part.done}) for part in log.parts if part.at is not None]
    return [(time, json.dumps(one)) for time, one in sorted(told, key=lambda pair: pair[0])]


def _write_frame(writer: Any, log: Log, place: int) -> None:
    frames = log.frames
    assert frames is not None  # noqa: S101
    time = frames.time[place]
    tick = log.when(time)
    writer.write(time, frames.estimate(place), _contacts(log, tick), frames.code(place), frames.true(place))


def _contacts(log: Log, tick: int) -> list[Contact]:
    """What the skin's patches feel in a tick, as far as the log says: standard errors, areas and slip are NaN."""
    layout = log.layout
    assert layout is not None  # noqa: S101
    unknown, nothing = np.full(3, np.nan), float("nan")
    found = []
    for name in layout.patches:
        felt = name in log.worn.patches
        k = log.worn.patches.index(name) if felt else 0
        pressing = float(log["pressing_felt"][tick, k]) if felt else nothing
        force = log["force_felt"][tick, k].astype(np.float64) if felt else unknown
        centre = log["centre_felt"][tick, k].astype(np.float64) if felt else unknown
        valid = felt and bool(log["valid"][tick, k])
        found.append(
            Contact(
                name, pressing > _TOUCHING, pressing, nothing, force, unknown, centre, unknown, nothing, nothing,
                nothing, nothing, valid,
            )
        )  # fmt: skip
    return found


class _Motion:
    """Messages of how a robot moves and what it feels."""

    def __init__(self, log: Log) -> None:
        self.log, self.model = log, model_of(log)
        self.data = mujoco.MjData(self.model)
        model = self.model
        single = [k for k in range(model.njnt) if model.jnt_type[k] != mujoco.mjtJoint.mjJNT_FREE
                  and model.jnt_type[k] != mujoco.mjtJoint.mjJNT_BALL]  # fmt: skip
        self.joints = [model.joint(k).name or f"joint{k}" for k in single]
        self.places, self.dofs = model.jnt_qposadr[single], model.jnt_dofadr[single]
        # The world itself is no body of it.
        self.bodies = [model.body(k).name or f"body{k}" for k in range(1, model.nbody)]
        try:
            self.of_patches = [model.body(name).id for name in log.worn.bodies]
        except KeyError:
            raise ValueError("the log's scene lacks a body of its patches; allowed: with all of them") from None
        self.middles = _middles(log)
        self.pack = ros.PointPacker(_POINT, len(log.worn.patches), "world")

    def messages(self, tick: int, stamp: int) -> Iterator[_Message]:
        log, model, data = self.log, self.model, self.data
        data.qpos[:], data.qvel[:], data.ctrl[:] = log["qpos"][tick], log["qvel"][tick], log["ctrl"][tick]
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_fwdActuation(model, data)
        effort = data.qfrc_actuator[self.dofs]
        joints = ros.pack_joints(stamp, self.joints, data.qpos[self.places], data.qvel[self.dofs], effort)
        yield "/joint_states", ros.JOINTS, joints
        poses = np.concatenate([data.xpos[1:], data.xquat[1:]], axis=1)
        yield "/tf", ros.TRANSFORMS, ros.pack_transforms(stamp, "world", self.bodies, poses)
        yield "/robot/contacts", ros.POINTS, self.pack(stamp, self._points(tick))

    def _points(self, tick: int) -> NDArray[Any]:
        log, data = self.log, self.data
        points = np.zeros(len(self.of_patches), dtype=_POINT)
        turned = data.xmat[self.of_patches].reshape(-1, 3, 3)
        centre = log["centre_felt"][tick].astype(np.float64)
        centre = np.where(np.isfinite(centre), centre, self.middles)
        vectors = {
            ("x", "y", "z"): data.xpos[self.of_patches] + np.einsum("pij,pj->pi", turned, centre),
            ("force_x", "force_y", "force_z"): np.einsum("pij,pj->pi", turned, log["force_felt"][tick]),
            ("true_force_x", "true_force_y", "true_force_z"): np.einsum(
                "pij,pj->pi", turned, log["force_true"][tick]
            ),
        }
        for names, values in vectors.items():
            for name, column in zip(names, values.T, strict=True):
                points[name] = column
        points["pressing"], points["true_pressing"] = log["pressing_felt"][tick], log["pressing_true"][tick]
        points["valid"] = log["valid"][tick]
        return points


def _middles(log: Log) -> NDArray[np.float64]:
    """The middle of each patch's taxels in the frame of its body; its origin where there are none."""
    found = np.zeros((len(log.worn.patches), 3))
    if log.layout is not None:
        for k, name in enumerate(log.worn.patches):
            if name in log.layout.patches:
                found[k] = log.layout.position[log.layout.of(name)].mean(axis=0)
    return found
