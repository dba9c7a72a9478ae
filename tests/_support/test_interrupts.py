"""Terminations go where interrupts go, once."""

import signal
import sys
import time
import weakref

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


class _Plain:
    pass


class _Raising(_Plain):
    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def _in_destructor(number):
    return [_Raising(number)], None


def _in_callback(number):
    owned = [_Plain()]
    return owned, weakref.ref(owned[0], lambda _: signal.raise_signal(number))


def _drop(owned):
    owned.clear()
    # The interrupt comes while this waits, and is raised between two naps.
    for _ in range(2000):
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("make", [_in_destructor, _in_callback])
def test_one_that_python_drops_is_raised_again(number, make, capsys):
    before = sys.unraisablehook
    with interrupts.Terminations() as terminations:
        owned, reference = make(number)
        with pytest.raises(KeyboardInterrupt):
            _drop(owned)
        assert reference is None or reference() is None
    assert terminations.signal == (None if number == signal.SIGINT else number)
    assert sys.unraisablehook is before
    assert capsys.readouterr().err == ""


def test_one_that_its_handler_notes_is_not_raised_again(capsys):
    came = []

    def note(*_):
        came.append(1)
        raise KeyboardInterrupt

    with interrupts.Terminations(), interrupts.handled(note):
        owned = _Raising(signal.SIGTERM)
        del owned
        time.sleep(10 * interrupts._LATER)
    assert came == [1]
    assert capsys.readouterr().err == ""


def test_other_errors_that_python_drops_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: said.append(dropped.exc_type))

    class Faulty:
        def __del__(self):
            raise ZeroDivisionError

    with interrupts.Terminations():
        faulty = Faulty()
        del faulty
    assert said == [ZeroDivisionError]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("make", [_in_destructor, _in_callback])
def test_none_comes_after_the_end(number, make, capsys):
    """The first ended the command already, and one raised again would end it in another way."""
    with interrupts.Terminations() as terminations:
        owned, _ = make(number)
        owned.clear()
        terminations.end()
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10 * interrupts._LATER)
    assert capsys.readouterr().err == ""
