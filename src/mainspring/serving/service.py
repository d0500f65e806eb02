"""The request path: features, the version that is due, what stands in when it fails, and the record of it all."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mainspring.breaker import Breaker
from mainspring.clock import Clock
from mainspring.errors import DeclarationError, MainspringError, ServingError
from mainspring.model_registry.deployment import Deployment
from mainspring.model_registry.registry import Registry
from mainspring.schema import Status
from mainspring.serving.answer import Answer, Ask, Interval, Mark, Reason, answer_type
from mainspring.serving.cache import ScoreCache
from mainspring.serving.features import FeatureRow, FeatureRows, values_of
from mainspring.serving.health import Health
from mainspring.serving.releases import Chain, Live, Releases
from mainspring.serving.versions import LoadedVersion, Scores
from mainspring.spec import PREVIOUS, System
from mainspring.storage.prediction_log import ASKED, Prediction

_log = logging.getLogger(__name__)
_CALM = bytes([Status.PRESENT, Status.NULL])
_FLAGGED = (Status.EXPIRED, Status.UNKNOWN_KEY, Status.UNAVAILABLE)
REASONS = 3
BY_MODEL = ("model", PREVIOUS)
LATE = "The model would not have answered in time."


class _Scored(msgspec.Struct, frozen=True, gc=False):
    answered_by: str
    version: LoadedVersion
    score: float
    low: float | None
    high: float | None
    because: str | None


class _Given(msgspec.Struct, frozen=True, gc=False):
    place: int
    ask: Ask
    variant: str
    features: FeatureRow
    scored: _Scored
    reasons: tuple[tuple[str, float], ...]
    shadow_version: str
    shadow_score: float | None


Split = Callable[[Deployment, Mapping[str, Any]], str]
"""Which version is due for a request row, ``champion`` or ``challenger``."""


class Features(Protocol):
    """Where the features of requests come from."""

    def read_many(self, rows: Sequence[Mapping[str, Any]]) -> FeatureRows:
        """The features of each row as of its event time, or the error where a required key was never seen."""
        ...


class Writer(Protocol):
    """Where answers are recorded before they are given."""

    def append_all(self, predictions: Sequence[Prediction]) -> None:
        """Record all of these, or none of them."""
        ...


class PredictionService:
    """Answers requests for one System from its features and the registry's live versions.

    The chain is: the version that is due, then what ``policy.fallback`` names. Every answer is in the prediction log before
    it is given. While a rollout runs, the version that does not answer scores the same request in shadow.
    """

    def __init__(
        self,
        system: System,
        registry: Registry,
        features: Features,
        writer: Writer,
        clock: Clock,
        split: Split,
        *,
        few: Features | None = None,
        breakers: Mapping[str, Breaker] | None = None,
    ) -> None:
        """``few`` are the features of late answers, ``features`` without it; ``breakers`` those of what it reads from, for `health`."""
        self.system = system
        self._breakers = breakers or {}
        self._unshadowed = 0
        self._split = split
        self._writer = writer
        self._clock = clock
        self._features = features
        self._few_features = few or features
        self._releases = Releases(system, registry)
        policy = system.policy
        self._cache = None if policy.cache_us is None else ScoreCache(policy.cache_us, policy.cache_rows)
        self._hash = system.hash
        self._answer_type = answer_type(system)
        self._names = [feature.name for feature in system.features]
        self._quantiles = system.model.interval
        ends = policy.floor, policy.ceiling
        self._bounds = (
            None if ends == (None, None) else (-math.inf if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1])
        )
        self._request = values_of(system.request.columns.names)
        self._event_time = system.request.event_time

    @property
    def deployment(self) -> Deployment:
        """What answers now: the registry's deployment, or the one before while its versions are being loaded."""
        return self._releases.current().deployment

    def ready(self) -> str | None:
        """None when a model or a rule can answer, else what is missing."""
        live = self._releases.current()
        champion = live.deployment.champion
        if champion is None:
            return f"System '{self.system.name}' has no promoted version yet. Train and promote one: mainspring run {self.system.name}."
        return None if live.answers() else f"Version {champion} cannot be loaded: {live.versions[champion].problem}"

    def answer_many(self, asks: Sequence[Ask], *, shadow: bool = True) -> list[Answer | MainspringError]:
        """The answer to each ask, or the error that stands in its place, in one pass; what one row breaks, breaks for that row alone.

        An error is a `RequestError` where a required key was never seen, a `ServingError` where neither a version nor a rule of the
        fallback chain could answer, or not in time. Without ``shadow`` the version that does not answer scores nothing.

        Raises:
            StorageError: the answers cannot be logged; none of them counts.
        """
        live = self._releases.current()
        if not shadow and live.deployment.challenger is not None:
            self._unshadowed += len(asks)
        return self._answer(asks, self._features, live, live.chains, shadow)

    def answer_by(self, chain: Chain, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        """Like `answer_many`, by these alone, whatever is live."""
        alone = Live(Deployment(), {}, {ASKED: chain})
        return self._answer(asks, self._features, alone, alone.chains, shadow=False, only=ASKED)

    def answer_late(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        """Like `answer_many`, by the rules of the fallback chain alone: for asks that the model cannot answer by their deadline.

        Functions that no rule reads may be what is slow: they are not called, and are logged as unavailable.
        """
        live = self._releases.current()
        rules = {variant: [one for one in chain if one[0] not in BY_MODEL] for variant, chain in live.chains.items()}
        answers = self._answer(asks, self._few_features, live, rules, shadow=False, because=LATE)
        for ask in asks:
            ask.claim()
        return [ServingError(f"{LATE} Ask again later, or allow more time.") if isinstance(one, ServingError) else one for one in answers]

    def _answer(
        self,
        asks: Sequence[Ask],
        reader: Features,
        live: Live,
        chains: Mapping[str, Chain],
        shadow: bool,
        because: str | None = None,
        only: str = "",
    ) -> list[Answer | MainspringError]:
        traced = [ask.marks for ask in asks if ask.marks is not None]
        _mark(traced, "begin", len(asks))
        read = _read(reader, [ask.row for ask in asks])
        _mark(traced, "features", len(asks))
        found: list[Any] = list(read.rows)
        given: list[_Given] = []
        for variant, own in self._variants(live.deployment, asks, read.rows, only).items():
            part = read.take(own)
            scores = self._score(chains[variant], part, because)
            shadowed = self._shadow(live, part, variant) if shadow else [("", None)] * len(own)
            for place, features, scored, behind in zip(own, part.rows, scores, shadowed, strict=True):
                if isinstance(scored, MainspringError):
                    found[place] = scored
                elif not (ask := asks[place]).claim():
                    found[place] = ServingError("The answer came after its deadline.")
                else:
                    reasons = self._reasons(scored, features) if ask.explain and scored.answered_by in BY_MODEL else ()
                    given.append(_Given(place, ask, variant, features, scored, reasons, *behind))
        _mark(traced, "model", len(asks))
        self._log(given)
        _mark(traced, "log", len(asks))
        for one in given:
            found[one.place] = self._compose(one)
        return found

    def _variants(self, deployment: Deployment, asks: Sequence[Ask], found: Sequence[Any], only: str) -> dict[str, list[int]]:
        """The places of rows that have features, by the variant that is due."""
        places = [place for place, features in enumerate(found) if isinstance(features, FeatureRow)]
        if only or deployment.challenger is None:
            return {only or "champion": places} if places else {}
        variants: dict[str, list[int]] = {}
        for place in places:
            variants.setdefault(self._split(deployment, asks[place].row), []).append(place)
        return variants

    def _reasons(self, scored: _Scored, features: FeatureRow) -> tuple[tuple[str, float], ...]:
        try:
            return tuple(scored.version.reasons(features, REASONS))
        except Exception:
            _log.exception("%s gives no reasons", scored.version.id)
            return ()

    def _log(self, given: Sequence[_Given]) -> None:
        now, done_ns = self._clock.now(), time.perf_counter_ns()
        self._writer.append_all([self._logged(one, now, done_ns) for one in given])

    def _logged(self, given: _Given, now: int, done_ns: int) -> Prediction:
        ask, features, scored = given.ask, given.features, given.scored
        return Prediction(
            ask.request_id,
            ask.row[self._event_time],
            now,
            self._request(ask.row),
            features.values,
            features.statuses,
            self._hash,
            scored.version.id,
            given.variant,
            scored.answered_by,
            scored.score,
            scored.low,
            scored.high,
            given.reasons,
            (done_ns - ask.arrived_ns) / 1_000,
            given.shadow_version,
            given.shadow_score,
        )

    def counts(self) -> dict[str, int]:
        """Rows that the cache had and had not, where one is declared."""
        return {} if self._cache is None else {"cache_hits_total": self._cache.hits, "cache_misses_total": self._cache.misses}

    def health(self) -> Health:
        """Which live versions and stores are left out by their breakers, and how many answers had to go without a shadow score."""
        versions = self._releases.current().versions
        breakers = {**self._breakers, **{id: version.breaker for id, version in versions.items()}}
        return Health({name: breaker.open for name, breaker in breakers.items()}, self._unshadowed)

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

    def _score(self, chain: Chain, asked: FeatureRows, why: str | None) -> list[_Scored | ServingError]:
        because: dict[int, str] = {}
        done: list[_Scored | None] = [None] * len(asked.rows)
        for answered_by, version in chain:
            waiting = [number for number, one in enumerate(done) if one is None]
            if not waiting:
                break
            part = asked.take(waiting)
            results = self._predict(version, part) if answered_by in BY_MODEL else version.rule(answered_by, part.rows)
            for number, result in zip(waiting, self._clipped(results), strict=True):
                if isinstance(result, ServingError):
                    because.setdefault(number, f"{version.id} could not answer: {result}")
                else:
                    done[number] = _Scored(answered_by, version, *result, because.get(number, why))
        return [self._nothing() if one is None else one for one in done]

    def _predict(self, version: LoadedVersion, asked: FeatureRows) -> list[Scores | ServingError]:
        return version.predict(asked.rows, asked.columns) if self._cache is None else self._cache.predict(version, asked.rows)

    def _nothing(self) -> ServingError:
        return ServingError(f"System '{self.system.name}': no model and no rule could answer. Train and promote a version.")

    def _shadow(self, live: Live, asked: FeatureRows, variant: str) -> list[tuple[str, float | None]]:
        deployment = live.deployment
        other = deployment.champion if variant == "challenger" else deployment.challenger
        if deployment.challenger is None or other is None:
            return [("", None)] * len(asked.rows)
        results = self._clipped(self._predict(live.versions[other], asked))
        return [(other, None if isinstance(result, ServingError) else result[0]) for result in results]

    def _clipped(self, results: list[Scores | ServingError]) -> list[Scores | ServingError]:
        if self._bounds is None:
            return results
        low, high = self._bounds
        return [
            one if isinstance(one, ServingError) else tuple([end if end is None else min(max(end, low), high) for end in one])  # type: ignore[misc]
            for one in results
        ]

    def _compose(self, given: _Given) -> Answer:
        features, scored = given.features, given.scored
        reasons: tuple[Reason, ...] = ()
        if given.reasons:
            values = dict(zip(self._names, features.values, strict=True))
            reasons = tuple([_reason(name, values, effect) for name, effect in given.reasons])
        flags = None
        if features.statuses.translate(None, _CALM):
            states = zip(self._names, features.statuses, strict=True)
            flags = {name: Status(status).name.lower() for name, status in states if status in _FLAGGED} or None
        interval = None
        if scored.low is not None and scored.high is not None and self._quantiles is not None:
            interval = Interval(scored.low, scored.high, self._quantiles)
        return self._answer_type(
            given.ask.request_id,
            self.system.name,
            scored.score,
            scored.answered_by,
            scored.version.id,
            given.variant,
            interval,
            scored.because,
            reasons,
            flags,
        )


def _mark(traced: Sequence[list[Mark]], phase: str, rows: int) -> None:
    if traced:
        mark = Mark(phase, time.perf_counter_ns(), rows)
        for marks in traced:
            marks.append(mark)


def _read(reader: Features, rows: Sequence[Mapping[str, Any]]) -> FeatureRows:
    try:
        return reader.read_many(rows)
    except DeclarationError as error:
        if len(rows) > 1:
            return FeatureRows([features for row in rows for features in _read(reader, [row]).rows])
        return FeatureRows([error])


def _reason(name: str, values: Mapping[str, Any], effect: float) -> Reason:
    """A feature with its value, or a word of a feature of free text."""
    if name in values:
        return Reason(name, values[name], effect)
    feature, word = name.split(": ", 1)
    return Reason(feature, word, effect)
