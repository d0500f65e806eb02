"""Limits that several servers share, on a server of the Redis protocol: one script, one round trip a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mainspring.clock import SECOND
from mainspring.errors import DeclarationError, MissingExtraError
from mainspring.gateway.door.limits import Exceeded, LocalLimits, Terms, periods
from mainspring.gateway.settings import Rate

_WAIT_SECONDS = 0.05
_AWAY_SECONDS = 1.0
_SCRIPT = """
local now, step, ahead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full_at = 0
if step > 0 then
  full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + step
  local wait = full_at - now - ahead
  if wait > 0.000001 then return {'rate', tostring(wait)} end
end
for place, period in ipairs({'day', 'month'}) do
  local allowed = tonumber(ARGV[2 + 2 * place])
  if allowed > 0 and tonumber(redis.call('GET', KEYS[1 + place]) or '0') >= allowed then return {period, ARGV[3 + 2 * place]} end
end
for place = 1, 2 do
  if tonumber(ARGV[2 + 2 * place]) > 0 then
    redis.call('INCR', KEYS[1 + place])
    redis.call('EXPIRE', KEYS[1 + place], math.ceil(tonumber(ARGV[3 + 2 * place])) + 60)
  end
end
if step > 0 then redis.call('SET', KEYS[1], string.format('%.6f', full_at), 'PX', math.ceil((full_at - now) * 1000) + 1000) end
return {}
"""


class SharedLimits:
    """Limits on a server of the Redis protocol. While it is away each process counts for itself, and ``fallbacks`` says how often.

    Args:
        url: ``redis://user:password@host:port/database``, ``rediss://`` with TLS, ``unix://`` for a socket.
        local: what counts while the server is away.
        timer: seconds that only go forward.

    Raises:
        MissingExtraError: the package ``redis`` is not installed.
        DeclarationError: the address is none.
    """

    def __init__(self, url: str, local: LocalLimits, *, timer: Callable[[], float] = time.monotonic) -> None:
        try:
            import redis.asyncio
            import redis.exceptions
        except ImportError as error:
            raise MissingExtraError("Limits on Redis", "redis", "redis") from error
        try:
            self._client: Any = redis.asyncio.Redis.from_url(
                url, socket_timeout=_WAIT_SECONDS, socket_connect_timeout=_WAIT_SECONDS, retry=None, decode_responses=True
            )
        except ValueError as error:
            raise DeclarationError(f"Settings, limits.store: {url!r} is no address ({error}). Write redis://HOST:PORT/DATABASE.") from error
        self._script = self._client.register_script(_SCRIPT)
        self._errors = (redis.exceptions.RedisError, OSError, TimeoutError)
        self._local = local
        self._timer = timer
        self._away_until = 0.0
        self.fallbacks = 0

    async def take(self, key: str, rate: Rate, terms: Terms | None, now: int) -> Exceeded | None:
        """Count one request of ``key`` at the instant ``now``; what is refused is not counted."""
        if self._timer() >= self._away_until:
            try:
                return await self._ask(key, rate, terms, now)
            except self._errors:
                self._away_until = self._timer() + _AWAY_SECONDS
        self.fallbacks += 1
        return self._local.take(key, rate, terms, now)

    async def _ask(self, key: str, rate: Rate, terms: Terms | None, now: int) -> Exceeded | None:
        ends = periods(now)
        names = [f"mainspring:limit:{{{key}}}", *(f"mainspring:{period}:{number}:{{{key}}}" for period, (number, _) in ends.items())]
        left = {period: (end - now) / SECOND for period, (_, end) in ends.items()}
        step, ahead = (0.0, 0.0) if terms is None else (terms.step, terms.ahead)
        arguments = [now / SECOND, step, ahead, rate.day or 0, left["day"], rate.month or 0, left["month"]]
        found = await self._script(keys=names, args=arguments)
        if not found:
            return None
        limit, wait = found[0], float(found[1])
        if limit == "rate" and terms is not None:
            return Exceeded("rate", terms.burst, terms.ahead, wait)
        return Exceeded("day" if limit == "day" else "month", (rate.day if limit == "day" else rate.month) or 0, wait, wait)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
