"""Interrupts while a store is at work: noted, and raised where they do no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def on_main_thread() -> bool:
    """Whether this thread may set what signals do."""
    return threading.current_thread() is threading.main_thread()


class Interrupts:
    """What becomes of interrupts while a sweep runs.

    One that comes while the store is at work may leave a lock behind for which another thread waits for ever. One
    in a destructor is lost, and one in an import may become another error. So all are noted, and raised where they
    do no harm.
    """

    def __init__(self) -> None:
        self._noted = self._at_once = False

    def check(self) -> None:
        """Raise what was noted."""
        if self._noted:
            raise KeyboardInterrupt

    def _interrupt(self, *_: object) -> None:
        # Who insists is heard.
        at_once = self._at_once or self._noted
        self._noted = True
        if at_once:
            raise KeyboardInterrupt

    @contextmanager
    def noted(self) -> Iterator[None]:
        """With interrupts noted, where they do what they do by default; raised at the end at the latest."""
        if not on_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.check()

    @contextmanager
    def raised(self) -> Iterator[None]:
        """With interrupts raised at once."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False
        self.check()


@contextmanager
def deaf() -> Iterator[None]:
    """With interrupts ignored, as they then are in all processes that are started."""
    if not on_main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
