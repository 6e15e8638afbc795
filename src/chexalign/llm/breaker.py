"""A circuit breaker: when the endpoint fails again and again, the next prompts do not each wait for it."""

from __future__ import annotations

import threading
import time

AFTER = 3  # failures in a row that open the circuit # our choice
PAUSE = 30.0  # seconds until one prompt may try whether it is back # our choice


class Breaker:
    """Closed: ask. Open: do not, and `why` says the reason. Shared by the threads of one endpoint."""

    def __init__(self, after: int = AFTER, pause: float = PAUSE):
        self.after = after
        self.pause = pause
        self.why = ""
        self.failures = 0
        self.ever_good = False
        self._opened: float | None = None
        self._lock = threading.Lock()

    def open(self) -> str | None:
        """The reason when nothing may be asked now, else None. After a pause one caller is let through."""
        with self._lock:
            if self._opened is None:
                return None
            if time.monotonic() - self._opened < self.pause:
                return self.why
            self._opened = time.monotonic()
            return None

    def good(self) -> None:
        """An answer came: the breaker closes and its count of failures begins again."""
        with self._lock:
            self.failures = 0
            self._opened = None
            self.ever_good = True

    def bad(self, why: str, at_once: bool = False) -> bool:
        """Count one failure; True when the circuit is open now."""
        with self._lock:
            self.failures += 1
            if at_once or self.failures >= self.after:
                self.why = why
                self._opened = time.monotonic()
            return self._opened is not None
