"""What ends a command from outside: an interrupt, SIGINT, and with it SIGTERM and SIGHUP, by one way out."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[..., Any]

# Seconds within which a second signal is the same one again: `timeout` sends it to a process and to its group.
_AGAIN = 5.0


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
    """With SIGTERM and SIGHUP handled as interrupts are at the time, so that all is cleaned up.

    Attributes
    ----------
    signal : int or None
        That which came first.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._replaced: list[int] = []
        self._came = 0.0

    def __enter__(self) -> Terminations:
        if on_main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                # What is ignored, as by nohup, stays so.
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._terminate)
                    self._replaced.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._replaced:
            signal.signal(number, signal.SIG_DFL)

    def _terminate(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self.signal is not None and now - self._came < _AGAIN:
            # It would only break into the cleaning up.
            return
        if self.signal is None:
            self.signal = number
        self._came = now
        _handler(number, frame)
