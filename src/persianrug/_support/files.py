"""Files: written whole or not at all, and read without trust."""

from __future__ import annotations

import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from persianrug._support import checks


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be written, before any work is done for it.

    Raises
    ------
    ValueError
        If its folder is missing or not writable, or it exists and is no regular file.
    """
    target = Path(checks.path("path", path))
    if target.exists() and not target.is_file():
        raise ValueError(f"output {path} is not a regular file; allowed: a new or an existing file")
    # Behind a symbolic link, so that the link stays one.
    target = target.resolve()
    if not target.parent.is_dir():
        raise ValueError(f"output folder {target.parent} is missing; allowed: an existing folder")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(f"output folder {target.parent} is not writable; allowed: a writable folder")
    return target


# Part of the names of temporary files, for those who clean up after a process that they have ended.
_mark = ""


@contextmanager
def marked_temporaries(mark: str) -> Iterator[None]:
    """With temporary files that `remove_temporaries` knows by a mark, of letters and digits."""
    global _mark
    before, _mark = _mark, f"{mark}-"
    try:
        yield
    finally:
        _mark = before


def remove_temporaries(folder: Path, mark: str) -> None:
    """Remove what processes that were ended have left of files with a mark."""
    for path in folder.glob(f".*.{mark}-*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to under a temporary name beside the path, renamed in the end: whole, or as it was before.

    Raises
    ------
    ValueError
        As `check_writable`.
    OSError
        If writing fails.
    """
    target = check_writable(path)
    # Of a part of the name, which alone may be as long as names can be.
    temporary = target.with_name(f".{target.name[:40]}.{_mark}{secrets.token_hex(6)}.tmp")
    try:
        # HDF5 reads what it writes.
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file at once, as `whole_file`; errors as there."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def untrusted(what: str, path: str | os.PathLike[str], kinds: dict[str, str]) -> Iterator[Path]:
    """The path of a file from outside, while it is read: whatever that raises, a ValueError says of which file.

    Parameters
    ----------
    what : str
        What messages call the file.
    path : str or path
    kinds : dict
        The endings that are allowed, and what a file of each holds.

    Raises
    ------
    ValueError
        If the file has another ending, is no regular file, or anything is raised while it is read.
    """
    target = Path(checks.path("path", path))
    suffix = target.suffix.lower()
    if suffix not in kinds:
        raise ValueError(f"{what} file {path} ends in {suffix or 'nothing'}; allowed: {', '.join(kinds)}")
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise ValueError("it is not a regular file")
        # Whatever a damaged or forged file makes libraries raise, or warn of, is the file's fault.
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            yield target
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        hint = "" if "allowed: " in reason else f"; allowed: {kinds[suffix]}, without pickles"
        raise ValueError(f"{what} file {path} cannot be read: {reason}{hint}") from None
