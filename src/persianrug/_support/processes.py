"""Which process does something, as it is written down for others, and whether it still runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Of Linux; larger ones cannot be asked for.
_MOST_PID = 2**31 - 1


def this_process() -> dict[str, int | None]:
    """Which process we are, for JSON."""
    return {"pid": os.getpid(), "pid_begun": _begun(os.getpid())}


def alive(told: Mapping[str, Any]) -> bool:
    """Whether the process that `this_process` told of still runs, also where numbers were given out again."""
    pid, begun = told.get("pid"), told.get("pid_begun")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid <= _MOST_PID:
        return False
    # On Windows the same call would end it.
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It is another user's.
        pass
    return begun is None or _begun(pid) in (None, begun)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """With nobody else within the same for that folder, where the system can say so."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems of networks have no locks.
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _begun(pid: int) -> int | None:
    """When a process began, in ticks since the system did; None where that is not told."""
    try:
        # After its name, which may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
