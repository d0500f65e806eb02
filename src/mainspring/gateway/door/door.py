"""The door: who asks, whether it may, how much, and in time; what came of it is counted and written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from mainspring.clock import Clock, SystemClock
from mainspring.errors import RequestError
from mainspring.gateway.door.access import Gatekeeper, missing_role
from mainspring.gateway.door.access_log import AccessLog, Line
from mainspring.gateway.door.admission import Admission
from mainspring.gateway.door.cors import Origins
from mainspring.gateway.door.identity import identify
from mainspring.gateway.door.limits import Exceeded, LocalLimits, Terms
from mainspring.gateway.door.refusal import Refusal
from mainspring.gateway.door.tls import Certificate
from mainspring.gateway.door.traces import Finished, Tracer, sampled
from mainspring.gateway.door.visit import Visit
from mainspring.gateway.door.wire import Wire
from mainspring.gateway.http import Head, Headers, Reply, error_reply
from mainspring.gateway.metrics import Metrics
from mainspring.gateway.processes.shared_counts import SharedCounts
from mainspring.gateway.routes import rule_of
from mainspring.gateway.settings import Priority, Rate, Settings
from mainspring.serving.pending import Pending

_CLASSES: dict[bytes, Priority] = {b"critical": "critical", b"default": "default", b"sheddable": "sheddable"}
_ORDER: list[Priority] = ["sheddable", "default", "critical"]


class Shared(Protocol):
    """Limits that are counted elsewhere."""

    fallbacks: int

    async def take(self, key: str, rate: Rate, terms: Terms | None, now: int) -> Exceeded | None:
        """Count one request; what is exceeded, None for nothing."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Door:
    """Everything between the socket and the handler, for one process.

    Args:
        settings: the deployment's.
        gatekeeper: who may come in; by the settings' keys alone without it.
        shared: limits that are counted elsewhere; in this process without it.
        log: where requests are written down.
        counts: what the other processes of the server have counted.
        certificate: what speaks TLS.
        tracer: where spans go.
        clock: instants, for expiry and quotas.
        timer: seconds that only go forward, for delays.
        random: draws ids.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        gatekeeper: Gatekeeper | None = None,
        shared: Shared | None = None,
        log: AccessLog | None = None,
        counts: SharedCounts | None = None,
        certificate: Certificate | None = None,
        tracer: Tracer | None = None,
        clock: Clock | None = None,
        timer: Callable[[], float] = time.perf_counter,
        random: Random | None = None,
    ) -> None:
        self.metrics = Metrics(counts, gauges=self._gauges)
        self.admission = Admission(settings.overload)
        self.certificate = certificate
        renew = (lambda: None) if certificate is None else certificate.renew
        self.wire = Wire(settings.timeouts, settings.limits, lambda reason: self.metrics.reject("connection", reason), renew)
        self.settings = settings
        self._limits = LocalLimits()
        self._shared = shared
        self._gatekeeper = gatekeeper or Gatekeeper(settings.access)
        self._log = log
        self._tracer = tracer
        self._origins = Origins(settings.cors)
        self._clock = clock or SystemClock()
        self._timer = timer
        draw = (random or Random()).getrandbits
        self._new_id: Callable[[], str] = lambda: f"{draw(128):032x}"
        self._rates: dict[str, tuple[Rate, Terms | None] | None] = {}

    def enter(self, head: Head, route: str | None) -> Visit:
        """Note that a request has come; ``route`` is None where there is nothing at its path."""
        rule = rule_of(head.method, route or "/")
        identity = identify(head.headers, self._new_id)
        if self._tracer is not None:
            identity = sampled(identity, self._tracer.ratio)
        visit = Visit(identity, rule, head, route or "other", self._timer())
        if self._tracer is not None and identity.flags == "01":
            visit.marks = []
        return visit

    def check(self, visit: Visit) -> Reply | Pending[Reply | None] | None:
        """None when the request may go on to its handler, else the answer that turns it away; it waits for limits that others share.

        Raises:
            RequestError: a header that limits what is done for the request cannot be understood.
        """
        if visit.head.method == "OPTIONS" and self._origins.some and b"access-control-request-method" in visit.head.headers:
            return self._origins.preflight()
        refusal = self._unknown_or_may_not(visit)
        if refusal is None and visit.rule.guarded:
            exceeded = self._exceeded(visit)
            if isinstance(exceeded, Pending):
                return exceeded.then(lambda found: self._turned_away(visit, found or self._too_late(visit)))
            refusal = exceeded or self._too_late(visit)
        return self._turned_away(visit, refusal)

    def body_limit(self, route: str) -> int:
        """The most bytes that a body of this route may have."""
        limits = self.settings.limits
        return limits.bodies.get(route, limits.body)

    def leave(self, visit: Visit, reply: Reply) -> Headers:
        """Count the request and write it down; gives the headers that its answer carries because of who asked."""
        now = self._timer()
        seconds = now - visit.started
        if visit.admitted:
            self.admission.finished()
        self.metrics.count(visit.route, reply.status, seconds, reply.answered_by, reply.version, reply.variant)
        if self._log is not None:
            self._log.write(self._line(visit, reply, seconds))
        more = [(b"x-request-id", visit.identity.request_id.encode())]
        if self._origins.some:
            more += self._origins.headers(visit.head.headers.get(b"origin"))
        if self._tracer is not None:
            self._trace(self._tracer, visit, reply, now)
            more.append((b"traceparent", visit.identity.traceparent.encode()))
        return more

    async def close(self) -> None:
        """Let go of the server of the limits, and write what is still to be written."""
        self.wire.stop()
        if self._shared is not None:
            await self._shared.close()
        if self._log is not None:
            self._log.close()
        if self._tracer is not None:
            self._tracer.close()

    def _turned_away(self, visit: Visit, refusal: Refusal | None) -> Reply | None:
        if refusal is None:
            return None
        self.metrics.reject(visit.route, refusal.reason)
        return error_reply(refusal.status, refusal.message, visit.identity.request_id, headers=refusal.headers)

    def _unknown_or_may_not(self, visit: Visit) -> Refusal | None:
        rule = visit.rule
        if not rule.verb:
            return None
        found = self._gatekeeper.identify(visit.head.headers, visit.head.certificate, self._clock.now())
        if isinstance(found, Refusal):
            return found
        visit.client = found
        if rule.verb == "answer":
            visit.may_explain = missing_role(found, rule.system, "explain") is None
        return missing_role(found, rule.system, rule.verb)

    def _exceeded(self, visit: Visit) -> Refusal | Pending[Refusal | None] | None:
        name = visit.client.name
        if name not in self._rates:
            rate = self.settings.limits.of(name)
            self._rates[name] = None if rate == Rate() else (rate, Terms.of(rate))
        found = self._rates[name]
        if found is None:
            return None
        key, now = f"{name} {visit.rule.system}", self._clock.now()
        if self._shared is not None:
            return Pending.of(self._shared.take(key, *found, now)).then(_refusal)
        return _refusal(self._limits.take(key, *found, now))

    def _too_late(self, visit: Visit) -> Refusal | None:
        waited = visit.head.waited
        given = visit.head.headers.get(b"x-deadline-ms")
        now = self._timer()
        if given is not None:
            visit.deadline = now - waited + _milliseconds(given)
        refusal = self.admission.admit(now, waited, _priority(visit), visit.deadline)
        visit.admitted = refusal is None
        return refusal

    def _trace(self, tracer: Tracer, visit: Visit, reply: Reply, now: float) -> None:
        if visit.marks is not None:
            began, ended, system, client = int(visit.started * 1e9), int(now * 1e9), visit.rule.system, visit.client.name
            done = Finished(visit.identity, visit.head.method, visit.route, system, client, reply, began, ended, tuple(visit.marks))
            tracer.record(done, self._clock.now())

    def _line(self, visit: Visit, reply: Reply, seconds: float) -> Line:
        identity, client, system = visit.identity, visit.client.name, visit.rule.system
        return Line(
            self._clock.now(),
            client,
            system,
            visit.route,
            reply.status,
            seconds,
            reply.version,
            reply.variant,
            reply.answered_by,
            identity.request_id,
            identity.trace_id,
        )

    def _gauges(self) -> dict[str, float]:
        return {
            "in_flight": self.admission.in_flight,
            "queue_delay_seconds": self.admission.delay,
            "overloaded": self.admission.standing,
            "loop_lag_seconds": self.wire.lag,
            "connections": len(self.wire.open),
            "limit_fallbacks_total": 0 if self._shared is None else self._shared.fallbacks,
            "access_log_dropped_total": 0 if self._log is None else self._log.dropped,
        }


def open_door(settings: Settings, counts: SharedCounts | None = None) -> Door:
    """The door that the settings describe, with what it needs from extras; ``counts`` as in `Door`.

    Raises:
        MissingExtraError: a package that a setting needs is not installed.
        DeclarationError: a file that a setting names cannot be used.
    """
    access, store = settings.access, settings.limits.store
    tokens = shared = tracer = None
    if access.jwt is not None:
        from mainspring.gateway.adapters.jwt import JwksVerifier

        tokens = JwksVerifier(access.jwt)
    if store:
        from mainspring.gateway.adapters.redis_limits import SharedLimits

        shared = SharedLimits(store, LocalLimits())
    if settings.traces.endpoint:
        from mainspring.gateway.adapters.otel import OtlpTracer

        tracer = OtlpTracer(settings.traces)
    return Door(
        settings,
        gatekeeper=Gatekeeper(access, tokens),
        shared=shared,
        log=AccessLog(settings.log, Random()) if settings.log.file else None,
        counts=counts,
        certificate=None if settings.tls is None else Certificate(settings.tls),
        tracer=tracer,
    )


def _refusal(exceeded: Exceeded | None) -> Refusal | None:
    return None if exceeded is None else exceeded.refusal()


def _priority(visit: Visit) -> Priority:
    """The client's own class; a header may only lower it."""
    own = visit.client.priority
    asked = _CLASSES.get(visit.head.headers.get(b"x-priority", b""), own)
    return min(own, asked, key=_ORDER.index)


def _milliseconds(given: bytes) -> float:
    if not given.isdigit() or len(given) > 9:
        raise RequestError("x-deadline-ms", "must be a whole number of milliseconds, for example 200", 400)
    return int(given) / 1000
