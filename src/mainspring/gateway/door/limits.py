"""How much one client may ask of one system: a token bucket, and quotas of whole UTC days and months."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mainspring.clock import DAY, SECOND, to_datetime
from mainspring.gateway.door.refusal import Refusal
from mainspring.gateway.settings import Rate

_MANY = 100_000


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which limit is reached, how much it allows in ``window`` seconds, and in how many seconds there is room again."""

    limit: Literal["rate", "day", "month"]
    allows: int
    window: float
    wait: float

    def refusal(self) -> Refusal:
        """429 with Retry-After and the RateLimit fields (draft-ietf-httpapi-ratelimit-headers)."""
        seconds = max(1, math.ceil(self.wait))
        headers = {
            "retry-after": str(seconds),
            "ratelimit-policy": f'"{self.limit}";q={self.allows};w={math.ceil(self.window)}',
            "ratelimit": f'"{self.limit}";r=0;t={seconds}',
        }
        what = "at once" if self.limit == "rate" else f"a {self.limit}"
        return Refusal(429, f"limit_{self.limit}", f"More than {self.allows} requests {what}. Come back in {seconds} s.", headers)


@dataclass(frozen=True, slots=True)
class Terms:
    """A rate in the terms of the generic cell rate algorithm: seconds a request takes, and how far it may run ahead."""

    step: float
    ahead: float
    burst: int

    @classmethod
    def of(cls, rate: Rate) -> Terms | None:
        """None where no rate is declared; without ``burst`` one second's worth may come at once."""
        if rate.rate is None:
            return None
        burst = rate.burst or max(1, math.ceil(rate.rate))
        return cls(1 / rate.rate, burst / rate.rate, burst)


def periods(now: int) -> dict[str, tuple[int, int]]:
    """The UTC day and month of an instant: a number that names it, and the instant at which it ends."""
    return _periods(now // DAY)


@lru_cache(maxsize=8)
def _periods(day: int) -> dict[str, tuple[int, int]]:
    moment = to_datetime(day * DAY)
    month = moment.year * 12 + moment.month
    following = moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1, day=1)
    return {"day": (day, (day + 1) * DAY), "month": (month, int(following.timestamp()) * SECOND)}


class LocalLimits:
    """The limits of this process alone; what is counted is gone when it ends.

    The bucket is kept as the one number of the generic cell rate algorithm (ITU-T I.371): the instant at which it would be
    full again.
    """

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}
        self._spent: dict[tuple[str, str], tuple[int, int]] = {}

    def take(self, key: str, rate: Rate, terms: Terms | None, now: int) -> Exceeded | None:
        """Count one request of ``key`` at the instant ``now``; what is refused is not counted."""
        seconds, full_at = now / SECOND, 0.0
        if terms is not None:
            full_at = max(self._full_at.get(key, 0.0), seconds) + terms.step
            wait = full_at - seconds - terms.ahead
            if wait > 1e-6:
                return Exceeded("rate", terms.burst, terms.ahead, wait)
        if rate.day is not None or rate.month is not None:
            exceeded = self._spend(key, rate, now)
            if exceeded is not None:
                return exceeded
        if terms is not None:
            if len(self._full_at) >= _MANY:
                self._full_at = {name: at for name, at in self._full_at.items() if at > seconds}
            self._full_at[key] = full_at
        return None

    def _spend(self, key: str, rate: Rate, now: int) -> Exceeded | None:
        spent: dict[tuple[str, str], tuple[int, int]] = {}
        for period, (number, end) in periods(now).items():
            allowed = rate.day if period == "day" else rate.month
            if allowed is None:
                continue
            before, count = self._spent.get((key, period), (number, 0))
            count = count + 1 if before == number else 1
            if count > allowed:
                return Exceeded("day" if period == "day" else "month", allowed, (end - now) / SECOND, (end - now) / SECOND)
            spent[key, period] = (number, count)
        self._spent.update(spent)
        return None
