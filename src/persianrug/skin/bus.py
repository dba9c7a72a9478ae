"""Buses that carry packets: a simulated one that loses, delays, doubles and damages them, and UDP."""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from persianrug._support import checks
from persianrug.skin.packets import MOST_BYTES

# Of what the system keeps for a receiver that is busy: seconds of most skins.
_ROOM = 1 << 21
# So many packets are given at once, so that a flood leaves time for work on them.
_AT_ONCE = 1024


class SimulatedBus:
    """A bus between two places, with what goes wrong on it.

    Losses follow Gilbert's model (Bell Syst. Tech. J. 39, 1960): the bus is good, and carries everything, or bad,
    and carries nothing, and changes from packet to packet at random.

    Parameters
    ----------
    loss : float in [0, 1)
        Share of packets that are lost.
    burst : float >= 1
        How many times as long a run of losses is on average as where each packet is lost by itself: 1 for that,
        or burst / (1 - loss) packets.
    delay : float >= 0
        Seconds from one end to the other.
    jitter : float >= 0
        Seconds: what comes on top of the delay, between 0 and this; packets overtake each other.
    duplicate, damage : float in [0, 1]
        Share of packets that come twice; of those that come with one to eight bits turned.
    seed : int >= 0

    Attributes
    ----------
    sent, lost : int
        How many packets.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(
        self,
        loss: float = 0.0,
        burst: float = 1.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        duplicate: float = 0.0,
        damage: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.loss = checks.not_negative("loss", loss)
        if self.loss >= 1:
            raise ValueError(f"loss is {checks.shown(loss)}; allowed: a number in [0, 1)")
        self.burst = checks.finite("burst", burst)
        if self.burst < 1:
            raise ValueError(f"burst is {checks.shown(burst)}; allowed: a number >= 1")
        self.delay = checks.not_negative("delay", delay)
        self.jitter = checks.not_negative("jitter", jitter)
        self.duplicate, self.damage = _share("duplicate", duplicate), _share("damage", damage)
        self._draw = np.random.default_rng(checks.seed(seed))
        self._bad = bool(self._draw.random() < self.loss)
        self._waiting: list[tuple[float, int, bytes]] = []
        self._number = itertools.count()
        self.sent = self.lost = 0

    def __repr__(self) -> str:
        return (
            f"SimulatedBus(loss={self.loss:g}, burst={self.burst:g}, delay={self.delay:g}, "
            f"jitter={self.jitter:g}, waiting={len(self._waiting)})"
        )

    def send(self, t: float, packet: bytes) -> None:
        """Put a packet on the bus at time t, in seconds."""
        t = checks.finite("t", t)
        self.sent += 1
        # From good to bad with loss / burst, and back with (1 - loss) / burst.
        change = (1 - self.loss if self._bad else self.loss) / self.burst
        if self._draw.random() < change:
            self._bad = not self._bad
        if self._bad:
            self.lost += 1
            return
        for _ in range(1 + (self._draw.random() < self.duplicate)):
            content = self._turned(packet) if self._draw.random() < self.damage else packet
            arrival = t + self.delay + self.jitter * self._draw.random()
            heapq.heappush(self._waiting, (arrival, next(self._number), content))

    def receive(self, t: float) -> list[bytes]:
        """The packets that have arrived until time t, in the order of their arrival; each is given once."""
        t = checks.finite("t", t)
        arrived = []
        while self._waiting and self._waiting[0][0] <= t:
            arrived.append(heapq.heappop(self._waiting)[2])
        return arrived

    def _turned(self, packet: bytes) -> bytes:
        content = bytearray(packet)
        count = min(int(self._draw.integers(1, 9)), 8 * len(content))
        places = self._draw.choice(8 * len(content), size=count, replace=False)
        for place in places:
            content[place >> 3] ^= 1 << (place & 7)
        return bytes(content)


class UdpSender:
    """Sends packets to a host and port, whether or not anyone listens there yet.

    Parameters
    ----------
    host : str
        A name or an address.
    port : int, 1 to 65,535

    Attributes
    ----------
    refused : int
        How many packets the system could not send, or had found nobody to take: they are lost, as on any bus.

    Raises
    ------
    ValueError
        If the host is not known, or the port is out of its range.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, checks.integer("port", port, 1, 65535)
        self._socket = _opened(host, self.port, socket.socket.connect, "the name or address of a computer")
        self._socket.setblocking(False)
        self.refused = 0

    def __repr__(self) -> str:
        return f"UdpSender({self.host!r}, {self.port})"

    def __enter__(self) -> UdpSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, packets: Iterable[bytes]) -> None:
        """Send packets; what cannot be sent is lost."""
        for packet in packets:
            try:
                try:
                    self._socket.send(packet)
                except ConnectionRefusedError:
                    # An earlier packet found nobody there, which says nothing of this one.
                    self.refused += 1
                    self._socket.send(packet)
            except OSError:
                self.refused += 1

    def receive(self, timeout: float = 0.0) -> list[bytes]:
        """What has come back within so many seconds, as requests for more rows; [] where nothing has."""
        return [content for content, _ in _receive(self._socket, timeout)]

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


class UdpReceiver:
    """Receives packets at a port.

    Parameters
    ----------
    port : int, 0 to 65,535
        0 for any that is free; the attribute says which.
    host : str
        The address to listen at; by default only this computer is heard. "0.0.0.0" hears all.

    Raises
    ------
    ValueError
        If the port is in use or not allowed to us, or the address is not of this computer.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        checks.integer("port", port, 0, 65535)
        self.host = host
        self._socket = _opened(host, port, socket.socket.bind, "an address of this computer")
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._sender: Any = None

    def __repr__(self) -> str:
        return f"UdpReceiver({self.port}, host={self.host!r})"

    def __enter__(self) -> UdpReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, timeout: float = 0.0) -> list[bytes]:
        """What has come, at once, or within so many seconds; [] where nothing has.

        What is longer than a packet comes without its end, as a damaged one.
        """
        arrived = _receive(self._socket, timeout)
        if arrived:
            self._sender = arrived[-1][1]
        return [content for content, _ in arrived]

    def reply(self, content: bytes) -> bool:
        """Send something back to where the last packet came from; whether there is such a place, and it left."""
        if self._sender is None:
            return False
        try:
            self._socket.sendto(content, self._sender)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def _share(name: str, value: float) -> float:
    number = checks.not_negative(name, value)
    if number > 1:
        raise ValueError(f"{name} is {checks.shown(value)}; allowed: a number in [0, 1]")
    return number


def _opened(host: str, port: int, how: Callable[[socket.socket, Any], None], allowed: str) -> socket.socket:
    """A socket bound, or connected, to an address."""
    try:
        # A name may be too long, or hold what no name does.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError, TypeError, ValueError):
        raise ValueError(f"host is {checks.shown(host)}, which is not known; allowed: {allowed}") from None
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        how(made, address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port is {port}, which is in use at {host}; allowed: a free port") from None
        if error.errno == errno.EACCES:
            raise ValueError(f"port is {port}, which this user may not use; allowed: 1024 to 65535") from None
        said = os.strerror(error.errno or 0).lower()
        raise ValueError(f"host is {checks.shown(host)}: {said}; allowed: {allowed}") from None
    return made


def _receive(of: socket.socket, timeout: float) -> list[tuple[bytes, Any]]:
    """What has come to a socket, waited for so long, and from where."""
    end = time.monotonic() + checks.not_negative("timeout", timeout)
    arrived: list[tuple[bytes, Any]] = []
    while len(arrived) < _AT_ONCE:
        try:
            arrived.append(of.recvfrom(MOST_BYTES + 1))
        except BlockingIOError:
            left = end - time.monotonic()
            if arrived or left <= 0:
                break
            select.select([of], [], [], left)
        except ConnectionError:
            # A packet that was sent found nobody there, which says nothing of those that come.
            continue
    return arrived
