"""What ends a command from outside: an interrupt, SIGINT, and with it SIGTERM and SIGHUP, by one way out."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[..., Any]

# Seconds within which a second signal is the same one again: `timeout` sends it to a process and to its group.
_AGAIN = 5.0

# Seconds after which one that was lost is raised again.
_LATER = 0.02


def on_main_thread() -> bool:
    """Whether this thread may set what signals do."""
    return threading.current_thread() is threading.main_thread()


def _raise(*_: object) -> None:
    raise KeyboardInterrupt


_handler: Handler = _raise


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """With interrupts handled by a function, and terminations too.

    SIGINT stays as it is where it does something else than by default, as where it is ignored in the background.
    """
    global _handler
    if not on_main_thread():
        yield
        return
    before, _handler = _handler, handler
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _handler = before


class Terminations:
    """With SIGTERM and SIGHUP handled as interrupts are at the time, so that all is cleaned up, and none lost.

    Python drops what is raised in a destructor or in a callback of a weak reference, as imports have them, and
    prints it. An interrupt that is raised there is raised again a moment later.

    Attributes
    ----------
    signal : int or None
        That which came first.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._replaced: list[int] = []
        self._came = 0.0
        self._unraisable = sys.unraisablehook
        self._again: threading.Timer | None = None
        self._ended = False

    def __enter__(self) -> Terminations:
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._lost
        if on_main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                # What is ignored, as by nohup, stays so.
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._terminate)
                    self._replaced.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._unraisable
        for number in self._replaced:
            signal.signal(number, signal.SIG_DFL)

    def end(self) -> None:
        """Let nothing more come, once nothing is left to clean up: one raised again would be one too many."""
        self._ended = True
        if self._again is not None:
            self._again.cancel()

    def _terminate(self, number: int, frame: object) -> None:
        if self._ended:
            return
        now = time.monotonic()
        if self.signal is not None and now - self._came < _AGAIN:
            # It would only break into the cleaning up.
            return
        if self.signal is None:
            self.signal = number
        self._came = now
        _handler(number, frame)

    def _lost(self, dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            self._unraisable(dropped)
        elif _handler is _raise and not self._ended:
            # Other handlers take note of what they raise.
            self._came = -_AGAIN
            self._again = threading.Timer(_LATER, _thread.interrupt_main, (self.signal or signal.SIGINT,))
            self._again.daemon = True
            self._again.start()
