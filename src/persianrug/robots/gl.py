"""OpenGL without a window, by whichever of its libraries works here."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from persianrug._support import checks

# MuJoCo's modules of contexts, in the order in which they are tried.
_KINDS = ("egl", "osmesa", "glfw")
# What else MuJoCo itself takes: nothing is drawn, by whichever works, or by the system's own, which GLFW finds.
_OFF = ("disable", "disabled", "off", "false", "0")
_ON = ("", "enable", "enabled", "on", "true", "1")
_SYSTEM = ("glx", "wgl", "cgl")
_INSTALLING = "apt-get install libegl1 libosmesa6 libgl1-mesa-dri on Debian, as root"
# In a process of its own: a library that is missing or broken may end it, or keep others from being tried.
_TRIED = """
import importlib, sys
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(16, 16)
context.make_current()
import mujoco
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
context.free()
"""
_SECONDS = 60.0


class NoPictures(ValueError):
    """Nothing here can draw: the message says what is missing, and what installs it."""


@contextmanager
def undrawn() -> Iterator[None]:
    """With MuJoCo imported without any OpenGL, which may be missing: nothing but pictures takes it."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before


@cache
def _works(kind: str) -> str:
    """Why a kind of context does not work; empty if it does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    try:
        tried = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _TRIED, kind],
            env={**environment, "MUJOCO_GL": "disabled"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = tried.stderr.strip().splitlines()
    return "" if tried.returncode == 0 else lines[-1] if lines else f"it ended with {tried.returncode}"


def asked_for() -> str:
    """What MUJOCO_GL says.

    Raises
    ------
    ValueError
        If it is nothing that is known.
    """
    said = os.environ.get("MUJOCO_GL", "")
    asked = said.strip().lower()
    if asked not in (*_KINDS, *_OFF, *_ON, *_SYSTEM):
        raise ValueError(f"MUJOCO_GL is {checks.shown(said)}; allowed: {', '.join(_KINDS)}, or none of it")
    return asked


def kind_of_context() -> str:
    """The kind of OpenGL that works here: what MUJOCO_GL says, or egl, osmesa or glfw.

    Raises
    ------
    NoPictures
        If none does.
    ValueError
        If MUJOCO_GL is nothing that is known.
    """
    asked = asked_for()
    if asked in _OFF:
        raise NoPictures(f"MUJOCO_GL is {asked}: nothing is drawn; allowed: {', '.join(_KINDS)}, or none of it")
    kinds = _KINDS if asked in _ON else ("glfw",) if asked in _SYSTEM else (asked,)
    why = {}
    for kind in kinds:
        why[kind] = _works(kind)
        if not why[kind]:
            return kind
    told = "; ".join(f"{kind}: {reason}" for kind, reason in why.items())
    raise NoPictures(f"no OpenGL draws pictures here ({told}); allowed: after {_INSTALLING}")


def make_context(width: int, height: int) -> Any:
    """A current context of that many pixels, with a method `free`; NoPictures if there can be none."""
    kind = kind_of_context()
    try:
        context = importlib.import_module(f"mujoco.{kind}").GLContext(width, height)
        context.make_current()
    except Exception as error:
        raise NoPictures(f"OpenGL by {kind} fails ({error}); allowed: after {_INSTALLING}") from None
    return context
