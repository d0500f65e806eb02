"""The request path: features, the version that is due, what stands in when it fails, and the record of it all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mainspring.clock import Clock
from mainspring.errors import MainspringError, ServingError
from mainspring.feature_store.online import OnlineStore
from mainspring.model_registry.deployment import Deployment
from mainspring.model_registry.registry import Registry
from mainspring.schema import Status
from mainspring.serving.answer import Answer, Interval, Reason, answer_type
from mainspring.serving.features import FeatureReader, FeatureRow
from mainspring.serving.versions import LoadedVersion, Versions
from mainspring.spec import PREVIOUS, System
from mainspring.storage.prediction_log import Prediction, PredictionWriter

_FLAGGED = (Status.EXPIRED, Status.UNKNOWN_KEY, Status.UNAVAILABLE)
REASONS = 3


class _Scored(NamedTuple):
    answered_by: str
    version: LoadedVersion
    score: float
    low: float | None
    high: float | None
    because: str | None


class PredictionService:
    """Answers requests for one System from the online store and the registry's live versions.

    The chain is: the version that is due, then what ``policy.fallback`` names. Every answer is in the prediction log before
    it is given. While a rollout runs, the version that does not answer scores the same request in shadow.
    """

    def __init__(self, system: System, registry: Registry, online: OnlineStore, writer: PredictionWriter, clock: Clock) -> None:
        self.system = system
        self._registry = registry
        self._writer = writer
        self._clock = clock
        self._features = FeatureReader(system, online)
        self._versions = Versions(system, registry)
        self._hash = system.hash
        self._answer_type = answer_type(system)
        self._names = [feature.name for feature in system.features]
        self._request = system.request.columns.names
        self._token = -1
        self._deployment = registry.deployment(system.name)

    @property
    def deployment(self) -> Deployment:
        """What the registry says is live now; read again whenever the registry has changed."""
        token = self._registry.token()
        if token != self._token:
            self._deployment = self._registry.deployment(self.system.name)
            live = (self._deployment.champion, self._deployment.previous, self._deployment.challenger)
            self._versions.keep([version for version in live if version is not None])
            self._token = token
        return self._deployment

    def ready(self) -> str | None:
        """None when a model or a rule can answer, else what is missing."""
        champion = self.deployment.champion
        if champion is None:
            return f"System '{self.system.name}' has no promoted version yet. Train and promote one: mainspring run {self.system.name}."
        version = self._versions.get(champion)
        return None if version.model is not None or version.rules else f"Version {champion} cannot be loaded: {version.problem}"

    def answer(self, row: Mapping[str, Any], *, request_id: str, explain: bool, variant: str) -> Answer:
        """Answer one valid request row.

        ``row`` holds the request's columns, derived ones included; ``variant`` is ``champion`` or ``challenger``.

        Raises:
            RequestError: a required key was never seen.
            ServingError: neither a version nor a rule of the fallback chain could answer.
        """
        started = time.perf_counter_ns()
        deployment = self.deployment
        features = self._features.read(row)
        scored = self._score(deployment, features, variant)
        shadow_version, shadow_score = self._shadow(deployment, features, variant)
        reasons = scored.version.reasons(features, REASONS) if explain and scored.answered_by in ("model", PREVIOUS) else []
        latency_us = (time.perf_counter_ns() - started) / 1_000
        self._writer.append(
            Prediction(
                request_id=request_id,
                as_of=row[self.system.request.event_time],
                answered_at=self._clock.now(),
                request=tuple([row[name] for name in self._request]),
                features=features.values,
                statuses=features.statuses,
                system=self._hash,
                version=scored.version.id,
                variant=variant,
                answered_by=scored.answered_by,
                score=scored.score,
                low=scored.low,
                high=scored.high,
                reasons=tuple(reasons),
                latency_us=latency_us,
                shadow_version=shadow_version,
                shadow_score=shadow_score,
            )
        )
        return self._compose(request_id, features, scored, variant, reasons)

    def metadata(self) -> dict[str, Any]:
        """What answers now: the live versions and the stage of the rollout."""
        deployment = self.deployment
        return {
            "champion": deployment.champion,
            "previous": deployment.previous,
            "challenger": deployment.challenger,
            "stage": deployment.stage,
            "challenger_share": deployment.share,
        }

    def _score(self, deployment: Deployment, features: FeatureRow, variant: str) -> _Scored:
        due = deployment.challenger if variant == "challenger" else deployment.champion
        because: str | None = None
        for answered_by, version in self._chain(due, deployment):
            try:
                score, low, high = version.predict(features) if answered_by in ("model", PREVIOUS) else version.rule(answered_by, features)
            except MainspringError as error:
                because = because or f"{version.id} could not answer: {error}"
                continue
            return _Scored(answered_by, version, *self._clip(score, low, high), because)
        raise ServingError(f"System '{self.system.name}': no model and no rule could answer. Train and promote a version.")

    def _chain(self, due: str | None, deployment: Deployment) -> list[tuple[str, LoadedVersion]]:
        """Who may answer, in order."""
        live = [version for version in dict.fromkeys((due, deployment.champion, deployment.previous)) if version is not None]
        chain = [("model", self._versions.get(live[0]))] if live else []
        for name in self.system.policy.fallback:
            chain += [(name, self._versions.get(version)) for version in (live[1:] if name == PREVIOUS else live)]
        return chain

    def _shadow(self, deployment: Deployment, features: FeatureRow, variant: str) -> tuple[str, float | None]:
        if deployment.challenger is None:
            return "", None
        other = deployment.champion if variant == "challenger" else deployment.challenger
        if other is None:
            return "", None
        try:
            return other, self._clip(*self._versions.get(other).predict(features))[0]
        except MainspringError:
            return other, None

    def _clip(self, score: float, low: float | None, high: float | None) -> tuple[float, float | None, float | None]:
        floor, ceiling = self.system.policy.floor, self.system.policy.ceiling
        clipped = [
            value if value is None else max(value, floor if floor is not None else value) if ceiling is None
            else min(max(value, floor if floor is not None else value), ceiling)
            for value in (score, low, high)
        ]  # fmt: skip
        return clipped[0], clipped[1], clipped[2]  # type: ignore[return-value]

    def _compose(
        self, request_id: str, features: FeatureRow, scored: _Scored, variant: str, reasons: Sequence[tuple[str, float]]
    ) -> Answer:
        quantiles = self.system.model.interval
        values = dict(zip(self._names, features.values, strict=True)) if reasons else {}
        flags = {
            name: Status(status).name.lower() for name, status in zip(self._names, features.statuses, strict=True) if status in _FLAGGED
        }
        return self._answer_type(
            request_id,
            self.system.name,
            scored.score,
            scored.answered_by,
            scored.version.id,
            variant,
            None if scored.low is None or scored.high is None or quantiles is None else Interval(scored.low, scored.high, quantiles),
            scored.because,
            tuple(_reason(name, values, effect) for name, effect in reasons),
            flags or None,
        )


def _reason(name: str, values: Mapping[str, Any], effect: float) -> Reason:
    """A feature with its value, or a word of a feature of free text."""
    if name in values:
        return Reason(name, values[name], effect)
    feature, word = name.split(": ", 1)
    return Reason(feature, word, effect)
