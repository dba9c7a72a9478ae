"""What the commands print with: a progress bar, a console, and how far something is off."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# A prediction that fails by more says nothing but that.
_MOST_TIMES = 100


class progress_bar:
    """A progress bar on stderr, if that is a terminal."""

    def __init__(self, total: int, what: str) -> None:
        terminal = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=terminal,
            transient=True,
            disable=not terminal.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> progress_bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: float, whole: float, what: str | None = None) -> None:
        self._bar.update(self._task, advance=done / whole, description=what)

    def reach(self, done: float, whole: float, what: str | None = None) -> None:
        """Show so much of the whole as done."""
        self._bar.update(self._task, completed=done, total=whole, description=what)

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar if there is one."""
        self._bar.console.print(line, soft_wrap=True, highlight=False)


def console() -> Console:
    """Where tables and sentences are printed."""
    found = Console(highlight=False, soft_wrap=True)
    if not found.is_terminal:
        # What reads it has no width.
        found.width = 120
    return found


def off_by(found: float, predicted: float, digits: int = 1) -> str | None:
    """How far what was found is from what was predicted; None where that is 0, so that there is no ratio."""
    if not predicted:
        return None
    times = found / predicted
    return f"{times - 1:+.{digits}%}" if times <= _MOST_TIMES else f">{_MOST_TIMES}x"
