"""How often may somebody try: lockout after failures, and a limit on requests. In memory, bounded.

Counts live as long as the process; whoever starts it can come in by the link it prints.
"""

import ipaddress
import threading
import time
from collections import deque

KEYS = 10_000  # so many are remembered; beyond, the oldest are forgotten first


class Throttle:
    """At most `limit` marks of a key in `seconds`; beyond, the key waits until `seconds` after its last mark."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._marks: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def wait(self, key: str) -> float:
        """Seconds until this key may try again; 0.0 when it may try now."""
        with self._lock:
            marks = self._recent(key)
            if len(marks) < self.limit:
                return 0.0
            return max(0.0, marks[-1] + self.seconds - time.monotonic())

    def mark(self, key: str) -> None:
        """Count one more."""
        with self._lock:
            marks = self._recent(key)
            marks.append(time.monotonic())
            self._marks.pop(key, None)
            self._marks[key] = marks  # last in the order, so the first one is the oldest
            while len(self._marks) > KEYS:
                del self._marks[next(iter(self._marks))]

    def clear(self, key: str) -> None:
        """Start afresh."""
        with self._lock:
            self._marks.pop(key, None)

    def forgive(self, key: str) -> None:
        """Take the last mark back."""
        with self._lock:
            marks = self._recent(key)
            if len(marks) > 1:
                marks.pop()
            else:
                self._marks.pop(key, None)

    def _recent(self, key: str) -> deque[float]:
        marks = self._marks.get(key)
        if marks is None or marks[-1] < time.monotonic() - self.seconds:
            return deque(maxlen=self.limit)
        if len(marks) < self.limit:
            while marks[0] < time.monotonic() - self.seconds:
                marks.popleft()
        return marks


def plain(address: str) -> str:
    """An IPv4 address that a socket for both kinds tells as IPv6, as IPv4; everything else as it is."""
    try:
        mapped = getattr(ipaddress.ip_address(address), "ipv4_mapped", None)
    except ValueError:
        return address
    return address if mapped is None else str(mapped)


def network_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or the /64 that one IPv6 household has."""
    try:
        found = ipaddress.ip_address(plain(address))
    except ValueError:
        return address[:64]
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
