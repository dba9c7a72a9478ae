"""The scene of a log, drawn as it was at any time, by a camera that follows the robot."""

from __future__ import annotations

from types import TracebackType
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from persianrug._support import checks
from persianrug.robots.gl import make_context
from persianrug.robots.log import Log

Picture = NDArray[np.uint8]

# The camera: to the side of the robot and before it, and so many times its height away; degrees, and heights.
_AZIMUTH, _ELEVATION, _AWAY = 125.0, -14.0, 4.6
_LEAST_HEIGHT, _MOST_HEIGHT = 0.25, 1.2
# It looks at a place before the base, in heights, and follows it and its direction smoothly, in seconds.
_BEFORE = 0.45
_SMOOTH, _TURNING = 0.4, 1.2
# Geoms of these groups are seen.
_SEEN = 3
_MOST_GEOMS = 4000
# How dark shadows are on the ground, and the height at which they are half as dark, in metres.
_SHADE, _FADE = 0.45, 0.35
# Colours of the sky, at its top and below, and of the squares of the ground.
_SKY = [0.62, 0.74, 0.88], [0.94, 0.95, 0.97]
_GROUND = [0.56, 0.57, 0.60], [0.64, 0.65, 0.68]


def model_of(log: Log) -> mujoco.MjModel:
    """The model of a log's scene.

    Raises
    ------
    ValueError
        If the scene is none, reads other files, or has other joints than the log.
    """
    # MuJoCo would read whatever file a scene names, and scenes here come from files.
    try:
        # Python's parser takes entities neither from other files nor without a bound.
        parts = list(ElementTree.fromstring(log.scene).iter())  # noqa: S314
    except ElementTree.ParseError as error:
        raise ValueError(f"the log's scene cannot be read: {error}; allowed: MJCF") from None
    for part in parts:
        if part.tag in ("include", "plugin", "extension", "model") or any("file" in name for name in part.attrib):
            raise ValueError(f"the log's scene has a <{part.tag}> of another file; allowed: scenes without")
    try:
        spec = mujoco.MjSpec.from_string(log.scene)
        _dress(spec)
        model = spec.compile()
    except ValueError as error:
        raise ValueError(
            f"the log's scene cannot be read: {checks.shortened(str(error))}; allowed: MJCF"
        ) from None
    if len(log) and log["qpos"].shape[1] != model.nq:
        raise ValueError(
            f"the log has {log['qpos'].shape[1]} joint positions; allowed: {model.nq}, as its scene has"
        )
    return model


def _dress(spec: mujoco.MjSpec) -> None:
    """A sky, a light and a chequered ground, where a scene has none: what moves is seen against them."""
    if not any(one.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX for one in spec.textures):
        sky = spec.add_texture(name="stage_sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384)
        sky.builtin = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT
        sky.rgb1, sky.rgb2 = _SKY
    if not list(spec.lights):
        light = spec.worldbody.add_light(name="stage_light", pos=[0, 0, 4], dir=[0.3, 0.2, -1])
        light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        light.diffuse = [0.6, 0.6, 0.6]
        spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    bare = [one for one in spec.geoms if one.type == mujoco.mjtGeom.mjGEOM_PLANE and not one.material]
    if bare:
        ground = spec.add_texture(name="stage_ground", type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256)
        ground.builtin = mujoco.mjtBuiltin.mjBUILTIN_CHECKER
        ground.rgb1, ground.rgb2 = _GROUND
        names = [""] * mujoco.mjtTextureRole.mjNTEXROLE
        names[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "stage_ground"
        spec.add_material(name="stage_ground", textures=names, texuniform=True, texrepeat=[1, 1])
        for one in bare:
            one.material, one.rgba = "stage_ground", [1, 1, 1, 1]


class Stage:
    """Draws a log's scene; use it in a `with` statement.

    Parameters
    ----------
    log : Log
        Of one tick or more.
    width, height : int
        Of the pictures, in pixels.

    Raises
    ------
    NoPictures
        If there is no OpenGL here.
    ValueError
        If the scene cannot be read, or the log is empty.
    """

    def __init__(self, log: Log, width: int, height: int) -> None:
        self.log, self.model = log, model_of(log)
        if not len(log):
            raise ValueError("the log is empty; allowed: one tick or more")
        self.data = mujoco.MjData(self.model)
        self._path, self._azimuth, self._distance = _way(log, self.model)
        vis = self.model.vis
        vis.global_.offwidth, vis.global_.offheight, vis.quality.offsamples = width, height, 0
        self._context = make_context(width, height)
        self._scene = mujoco.MjvScene(self.model, _MOST_GEOMS)
        # Without a graphics card these take five times as long as all else.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[_SEEN:] = 0
        self._options.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._drawer = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawer)
        seen = (self.model.geom_group < _SEEN) & (self.model.geom_rgba[:, 3] > 0)
        self._shading = np.flatnonzero(seen & (self.model.body_weldid[self.model.geom_bodyid] > 0))
        self._half = self.model.geom_aabb[self._shading, 3:]
        self._pixels = np.empty((height, width, 3), dtype=np.uint8)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drawer.free()
        self._context.free()

    def draw(self, tick: int) -> Picture:
        """The picture (height, width, 3) of a tick."""
        data, camera = self.data, self._camera
        data.qpos[:] = self.log["qpos"][tick]
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_camlight(self.model, data)
        camera.lookat[:] = self._path[tick]
        camera.azimuth, camera.elevation = self._azimuth[tick], _ELEVATION
        camera.distance = self._distance
        mujoco.mjv_updateScene(
            self.model, data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        self._shade()
        mujoco.mjr_render(self._rect, self._scene, self._drawer)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._drawer)
        # OpenGL's pictures begin below.
        return self._pixels[::-1]

    def _shade(self) -> None:
        """Put a dark disc on the ground, at z = 0, below whatever moves: shadows as of a light from high above."""
        data, scene = self.data, self._scene
        place = data.geom_xpos[self._shading]
        axes = data.geom_xmat[self._shading].reshape(-1, 3, 3) * self._half[:, None, :]
        # An ellipsoid of these axes is as wide, seen from above, as the roots of this matrix.
        spread = np.einsum("gik,gjk->gij", axes[:, :2], axes[:, :2])
        width, turned = np.linalg.eigh(spread)
        for k in np.flatnonzero(place[:, 2] > 0):
            if scene.ngeom == scene.maxgeom:
                return
            frame = np.eye(3)
            frame[:2, :2] = turned[k]
            size = np.array([*np.sqrt(np.maximum(width[k], 1e-8)), 2e-5])
            fading = _SHADE / (1.0 + place[k, 2] / _FADE)
            # One above the other, so that none flickers through another.
            disc, colour = np.array([*place[k, :2], 1e-3 + 5e-5 * k]), np.array([0, 0, 0, fading], np.float32)
            kind = mujoco.mjtGeom.mjGEOM_ELLIPSOID
            mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, disc, frame.ravel(), colour)
            scene.ngeom += 1


def _way(log: Log, model: mujoco.MjModel) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Where a camera looks (ticks, 3) and from which side (ticks,) in degrees, and from how far, in metres."""
    place = 0
    try:
        body = model.body(log.worn.base)
        if int(model.body_jntnum[body.id]) and model.jnt_type[body.jntadr[0]] == mujoco.mjtJoint.mjJNT_FREE:
            place = int(model.jnt_qposadr[body.jntadr[0]])
    except KeyError:
        raise ValueError(
            f"the log's scene has no body {log.worn.base!r}; allowed: with the base of its robot"
        ) from None
    qpos = log["qpos"]
    if model.nq < place + 7:
        return np.zeros((len(log), 3)), np.full(len(log), _AZIMUTH), _AWAY
    x, y, z, w, i, j, k = qpos[:, place : place + 7].T
    yaw = np.unwrap(np.arctan2(2 * (w * k + i * j), 1 - 2 * (j * j + k * k)))
    height = float(np.clip(np.median(z), _LEAST_HEIGHT, _MOST_HEIGHT))
    tick = float(np.median(np.diff(log["time"]))) if len(log) > 1 else 1.0

    def smooth(values: Any, seconds: float) -> NDArray[np.float64]:
        return np.asarray(scipy.ndimage.gaussian_filter1d(values, seconds / max(tick, 1e-3), mode="nearest"))

    turned = smooth(yaw, _TURNING)
    look = np.stack(
        [
            smooth(x, _SMOOTH) + _BEFORE * height * np.cos(turned),
            smooth(y, _SMOOTH) + _BEFORE * height * np.sin(turned),
            np.full(len(x), 0.75 * height),
        ],
        axis=1,
    )
    return look, _AZIMUTH + np.degrees(turned), _AWAY * height


def picture(pixels: Any) -> Any:
    """A copy of pixels as a picture of Pillow."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))
