"""Interrupts while a store is at work: noted, and raised where they do no harm."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from persianrug._support.interrupts import handled


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
        """With interrupts noted; raised at the end at the latest."""
        with handled(self._interrupt):
            yield
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
    """With interrupts and terminations held back, as they are for good in all processes that are started."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
