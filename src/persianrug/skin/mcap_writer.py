"""MCAP files of ROS 2 messages, as they are written: whole in groups, whatever ends the process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import BinaryIO, Self

from persianrug._support import checks, files
from persianrug._support.extras import installing
from persianrug.skin import ros

# What is lost at most where a process is killed: so many bytes, or seconds. The frame that ends a chunk waits
# until that is packed, longer where it is larger.
_CHUNK_BYTES, _CHUNK_SECONDS = 1 << 18, 1.0
# Of the time of ROS 2.
_MOST_SECONDS = 2**31 - 1


class MessageWriter:
    """Writes messages to an MCAP file; use it in a `with` statement, or close it.

    Parameters
    ----------
    path : str or path
        A file that ends in .mcap; what was there is lost.
    file : open file, optional
        To write to instead, which is the caller's to close, and to rename to the path.

    Raises
    ------
    ValueError
        If the file cannot be written, or the extra `skin` is missing.
    OSError
        Then, and on every write, if the disk is full; what was written before can be read.
    """

    def __init__(self, path: str | os.PathLike[str], file: BinaryIO | None = None) -> None:
        try:
            from mcap.writer import Writer
        except ImportError:
            raise ValueError(f"recordings take the package mcap; allowed: after {installing('skin')}") from None
        if not os.fspath(checks.path("path", path)).lower().endswith(".mcap"):
            raise ValueError(f"path is {checks.shown(os.fspath(path))}; allowed: a name that ends in .mcap")
        self.path = files.check_writable(path)
        self._channels: dict[str, int] = {}
        self._flushed: int | None = None
        self._waiting, self._whole = 0, True
        self._whole_file, self._ended = file is not None, False
        self._file: BinaryIO = self.path.open("wb") if file is None else file
        # Chunks end where this says, between groups; the writer's own size is never reached.
        self._writer = Writer(self._file, chunk_size=1 << 62, enable_data_crcs=True)
        with self._told():
            self._writer.start(profile="ros2", library="persianrug")
            self._file.flush()

    def stamp(self, time: float) -> int:
        """A time in seconds, from 0 to 2^31, in nanoseconds; ValueError if it is none, or the file is closed."""
        if self._ended:
            raise ValueError(f"recording {self.path} is closed; allowed: frames before that")
        seconds = checks.not_negative("time", time)
        if seconds > _MOST_SECONDS:
            raise ValueError(f"time is {seconds:.6g} s; allowed: up to {_MOST_SECONDS} s")
        return round(seconds * 1e9)

    def add(self, messages: Sequence[tuple[str, str, bytes]], stamp: int, sequence: int = 0) -> None:
        """Add messages that are read together or not at all.

        Parameters
        ----------
        messages : sequence of (topic, kind, content)
            Of a kind that ros.DEFINITIONS has.
        stamp : int
            As `stamp` gives it.
        sequence : int >= 0
            Their number.

        Raises
        ------
        OSError
            If the disk is full.
        """
        with self._told():
            self._whole = False
            self._flushed = stamp if self._flushed is None else self._flushed
            for topic, kind, content in messages:
                self._add(topic, kind, content, stamp, sequence % (1 << 32))
            self._whole = True
            if self._waiting >= _CHUNK_BYTES or abs(stamp - self._flushed) >= _CHUNK_SECONDS * 1e9:
                self._writer.flush()  # type: ignore[no-untyped-call]
                self._waiting, self._flushed = 0, stamp

    def close(self) -> None:
        """End the recording; nothing where it has ended."""
        if not self._ended:
            with self._told():
                # An interrupt within a group leaves the file as a killed process does.
                if self._whole:
                    self._writer.finish()  # type: ignore[no-untyped-call]
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, topic: str, kind: str, content: bytes, stamp: int, sequence: int) -> None:
        if topic not in self._channels:
            schema = self._writer.register_schema(kind, "ros2msg", ros.DEFINITIONS[kind].encode())
            self._channels[topic] = self._writer.register_channel(topic, "cdr", schema)
        self._writer.add_message(self._channels[topic], stamp, content, stamp, sequence)
        self._waiting += len(content)

    def _end(self) -> None:
        self._ended = True
        if not self._whole_file:
            self._file.close()

    def _cut(self) -> str:
        """Where a recording ends that the disk has no room for."""
        return "ends here"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever the disk refuses ends the recording, and says so."""
        try:
            yield
        except OSError as error:
            # What waits in its buffer is refused again.
            with contextlib.suppress(OSError):
                self._end()
            cut = "is not written" if self._whole_file else self._cut()
            raise OSError(error.errno, f"{error.strerror}: recording {self.path} {cut}") from None
