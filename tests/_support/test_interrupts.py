"""Terminations go where interrupts go, once."""

import signal

import pytest

from persianrug._support import interrupts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_that_comes_twice_does_not_break_into_the_cleaning_up(number, monkeypatch):
    with interrupts.Terminations() as terminations:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        # As `timeout` does it, to a process and to its group.
        signal.raise_signal(number)
        assert terminations.signal == number
        # Who insists is heard.
        monkeypatch.setattr(interrupts, "_AGAIN", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_who_handles_interrupts_handles_terminations():
    came = []
    with interrupts.Terminations(), interrupts.handled(lambda number, _: came.append(number)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert came == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
