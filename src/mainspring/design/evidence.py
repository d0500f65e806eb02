"""The report of a run, worked out from the three records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.clock import DAY, parse_duration
from mainspring.columns import from_arrow
from mainspring.design.report import Group, Moment, Report, Series
from mainspring.design.verify import Verdict, judge
from mainspring.errors import StorageError
from mainspring.evaluation.baselines import Rows, Truth, predict_baselines
from mainspring.evaluation.measuring import Answers, Sampling, measure_quality
from mainspring.feature_store.offline import AS_OF, OfflineStore
from mainspring.feature_store.skew import Skew, skew
from mainspring.ingestion.quarantine import Quarantine
from mainspring.loop.observe import Observer, Watch
from mainspring.loop.run import HTTP_LATENCIES
from mainspring.metrics.intervals import quantile_interval, wilson
from mainspring.model_registry.deployment import Decision
from mainspring.model_registry.registry import Registry, open_registry
from mainspring.monitoring.labels import match
from mainspring.monitoring.reading import own
from mainspring.schema import EVENT_TIME
from mainspring.serving.versions import load_system
from mainspring.spec import RecentRatio, System
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.stores import open_log
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.train import FittedBaseline, load_baselines

Floats = npt.NDArray[np.float64]
HIDDEN = ("history_ingested", "retrain")


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Everything that was read: predictions, those of them with a label, baselines on the same rows, decisions."""

    system: System
    workspace: Workspace
    registry: Registry
    decisions: list[Decision]
    predictions: pa.Table
    labelled: pa.Table
    baselines: Mapping[str, Floats]
    skew: Skew
    latencies_us: npt.NDArray[np.float32]
    finished: Mapping[str, Any]
    now: int
    stale: bool

    @property
    def errors(self) -> Floats:
        """Absolute error of every labelled answer."""
        return np.abs(np.asarray(self.labelled.column("score").to_numpy(), dtype=np.float64) - self.truth)

    @property
    def truth(self) -> Floats:
        """Its label."""
        return np.asarray(self.labelled.column("label").to_numpy(), dtype=np.float64)

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """Its day, counted from the first one."""
        as_of = self.labelled.column("as_of").to_numpy()
        return np.asarray((as_of - _first(self.predictions)) // DAY, dtype=np.int64)


def build_report(workspace: Workspace, declared: System | None = None) -> tuple[System, Report]:
    """The System of a workspace and the report on its records.

    Where the System is ``declared`` otherwise by now, the run's evidence is stale.

    Raises:
        StorageError: the folder holds no run, or one that has answered nothing yet.
    """
    if not workspace.has_registry:
        raise StorageError(f"{workspace.path} holds no run. Run one: mainspring run SYSTEM --workspace {workspace.path}")
    registry = open_registry(workspace.registry_url)
    try:
        evidence = _collect(workspace, registry, declared)
        return evidence.system, _report(evidence)
    finally:
        registry.close()


def _collect(workspace: Workspace, registry: Registry, declared: System | None) -> _Evidence:
    system = load_system(registry)
    tables = Tables(workspace.tables)
    with closing(open_log(workspace.events_url)) as log:
        tables.catch_up(log)
    predictions = own(PredictionLog(workspace.predictions).read()[0])
    if not len(predictions):
        raise StorageError(f"{workspace.path} has answered no request yet. Let the run go on: mainspring run {system.name}")
    predictions = predictions.sort_by("as_of")
    facts = pa.concat_tables([pq.read_table(file) for file in tables.files(system.label.source.name)])
    now = int(pc.max(predictions.column("as_of")).as_py()) + system.label.matures_after_us
    labelled = match(predictions, facts, on=system.label.on, column=system.label.column, now=now)
    decisions = registry.decisions(system.name)
    finished = next((one.evidence for one in reversed(decisions) if one.action == "run_completed"), {})
    latencies = workspace.report / HTTP_LATENCIES
    return _Evidence(
        system,
        workspace,
        registry,
        decisions,
        predictions,
        labelled,
        _baselines(system, registry, labelled, _truth(system, tables, predictions, now)),
        skew(system, predictions, OfflineStore(system, tables.files)),
        np.fromfile(latencies, dtype=np.float32) if latencies.is_file() else np.empty(0, dtype=np.float32),
        finished,
        now,
        declared is not None and declared.hash != system.hash,
    )


def _truth(system: System, tables: Tables, predictions: pa.Table, now: int) -> Truth:
    """Requests with labels from far enough before the first prediction to the last: what a `RecentRatio` looks back on."""
    recent = [baseline for baseline in system.baselines if isinstance(baseline, RecentRatio)]
    back = max((parse_duration(one.window) + parse_duration(one.delay) for one in recent), default=0) + system.label.matures_after_us
    filters = [(EVENT_TIME, ">=", _first(predictions) - back), (EVENT_TIME, "<", now)]
    asked = pa.concat_tables([pq.read_table(file, filters=filters) for file in tables.files(system.request.name)])
    asked = asked.append_column(AS_OF, asked.column(EVENT_TIME))
    labels = OfflineStore(system, tables.files).labels(asked, known_until=now)
    asked = asked.append_column("label", labels.column("label")).append_column("label_known_at", labels.column("label_known_at"))
    asked = asked.filter(pc.is_valid(asked.column("label")))
    columns = {name: from_arrow(asked.column(name), system.request.columns[name].type) for name in system.request.columns.names}
    return Truth(columns, asked.column("label").to_numpy(), asked.column("label_known_at").fill_null(0).to_numpy())


def _baselines(system: System, registry: Registry, labelled: pa.Table, truth: Truth) -> dict[str, Floats]:
    """Every baseline on the labelled rows, each row by the baselines that were fitted with the version that answered it."""
    answers = {baseline.name: np.full(len(labelled), np.nan) for baseline in system.baselines}
    versions = np.array(labelled.column("version").to_pylist(), dtype=object)
    for version in set(versions.tolist()):
        chosen = np.flatnonzero(versions == version)
        part = labelled.take(pa.array(chosen))
        columns = {
            name: from_arrow(part.column(f"request.{name}"), system.request.columns[name].type) for name in system.request.columns.names
        }
        columns |= {feature.name: from_arrow(part.column(f"feature.{feature.name}"), feature.type) for feature in system.features}
        fitted: dict[str, FittedBaseline] = load_baselines(system, registry, registry.version(version))
        for name, predicted in predict_baselines(system, fitted, Rows(columns, part.column("as_of").to_numpy()), truth).items():
            answers[name][chosen] = predicted
    return answers


def _report(evidence: _Evidence) -> Report:
    errors = evidence.errors
    live = float(errors.mean()) if len(errors) else float("nan")
    compared = [("live system", live, 1.0, len(errors))]
    for name, predicted in evidence.baselines.items():
        theirs = float(np.abs(predicted - evidence.truth).mean()) if len(errors) else float("nan")
        compared.append((name, theirs, theirs / live, len(errors)))
    monitor = next((monitor for monitor in evidence.system.monitors if monitor.watch == "error"), None)
    return Report(
        system=evidence.system.name,
        question=evidence.system.question,
        unit=evidence.system.label.column,
        started=_first(evidence.predictions),
        finished=int(pc.max(evidence.predictions.column("as_of")).as_py()),
        wall_seconds=float(evidence.finished.get("wall_seconds", 0.0)),
        peak_memory_bytes=int(evidence.finished.get("peak_memory_bytes", 0)),
        requests=len(evidence.predictions),
        verdicts=tuple(_verdicts(evidence)),
        comparison=tuple(compared),
        moments=tuple(Moment(one.at, one.action, one.version, one.reason) for one in evidence.decisions if one.action not in HIDDEN),
        skew=(evidence.skew.requests, evidence.skew.values, evidence.skew.differences),
        quarantined=tuple(_quarantined(evidence)),
        answered_by=tuple(Counter(evidence.predictions.column("answered_by").to_pylist()).most_common()),
        groups=tuple(_groups(evidence, monitor.by)) if monitor is not None and monitor.by else (),
        group_names=tuple(monitor.by) if monitor is not None else (),
        daily=tuple(_daily(evidence)),
        latencies_ms=evidence.latencies_us.astype(np.float64) / 1_000,
        drift=_drift(evidence),
        places=tuple(_places(evidence)),
        next_commands=tuple(_next(evidence)),
    )


def _verdicts(evidence: _Evidence) -> list[Verdict]:
    needs, run = evidence.system.requirements, evidence.finished
    asked = sum(run.get("statuses", {}).values())
    verdicts = [_quality(evidence, number) for number in range(len(needs.quality))]

    def add(
        requirement: str, value: float | None, low: float | None, high: float | None, unit: str, interval: Any, n: int, basis: str
    ) -> None:
        verdicts.append(_judged(evidence, requirement, value, low, high, unit, interval, n, basis))

    if needs.latency_p99 is not None:
        ms, n = evidence.latencies_us / 1_000, len(evidence.latencies_us)
        p99 = float(np.quantile(ms, 0.99)) if n else None
        add(
            "latency p99, online answer",
            p99,
            None,
            parse_duration(needs.latency_p99) / 1_000,
            "ms",
            quantile_interval(ms, 0.99) if n else None,
            n,
            "HTTP, closed loop over 4 connections",
        )
    if needs.availability is not None:
        good = run.get("statuses", {}).get("200", 0)
        add(
            "availability",
            good / asked if asked else None,
            needs.availability,
            None,
            "",
            wilson(good, asked) if asked else None,
            asked,
            "requests answered with 200",
        )
    if needs.peak_rps is not None:
        seconds = run.get("asking_seconds", 0.0)
        add(
            "peak requests/s",
            asked / seconds if seconds else None,
            needs.peak_rps,
            None,
            "1/s",
            None,
            asked,
            "sustained over the replay, one worker",
        )
    if needs.cost_per_1k is not None:
        cost = run["server_cpu_seconds"] / 3600 * needs.cpu_hour_price / asked * 1_000 if asked else None
        add(
            "cost per 1,000 answers",
            cost,
            None,
            needs.cost_per_1k,
            "$",
            None,
            asked,
            f"server CPU at ${needs.cpu_hour_price:g} a core hour",
        )
    if needs.explain is not None:
        n = sum(1 for reasons in evidence.predictions.column("reasons").to_pylist() if reasons)
        wanted = run.get("explained", 0)
        add(
            "explained by reasons",
            min(1.0, n / wanted) if wanted else None,
            1.0,
            None,
            "",
            None,
            wanted,
            "answers that were asked to explain themselves",
        )
    add(
        "training-serving skew",
        float(evidence.skew.differences),
        None,
        0.0,
        "values",
        None,
        evidence.skew.values,
        f"{evidence.skew.values:,} served values recomputed offline, {evidence.skew.differences} differ",
    )
    return verdicts


def _quality(evidence: _Evidence, number: int) -> Verdict:
    quality, n = evidence.system.requirements.quality[number], len(evidence.labelled)
    if not n:
        return _judged(evidence, quality.subject, None, quality.low, quality.high, "", None, 0, "no labelled answers")
    answers, sampling = Answers(*(_numbers(evidence, name) for name in ("score", "low", "high"))), Sampling.of(n, evidence.days)
    basis = "labelled answers of the replay, intervals by day"
    try:
        found = measure_quality(quality, answers, evidence.baselines, evidence.truth, sampling)
    except ValueError as error:
        return _judged(evidence, quality.subject, None, quality.low, quality.high, "", None, 0, f"cannot be measured: {error}")
    return _judged(evidence, quality.subject, found.value, quality.low, quality.high, "", found.interval, n, basis)


def _numbers(evidence: _Evidence, name: str) -> Floats:
    return np.asarray(evidence.labelled.column(name).to_numpy(), dtype=np.float64)


def _judged(
    evidence: _Evidence,
    requirement: str,
    value: float | None,
    low: float | None,
    high: float | None,
    unit: str,
    interval: Any,
    n: int,
    basis: str,
) -> Verdict:
    machine, commit = str(evidence.finished.get("machine", "")), str(evidence.finished.get("commit", ""))
    return judge(
        requirement,
        value,
        low=low,
        high=high,
        unit=unit,
        interval=interval,
        n=n,
        at=evidence.now,
        machine=machine,
        commit=commit,
        evidence=basis,
        stale=evidence.stale,
    )


def _daily(evidence: _Evidence) -> list[tuple[int, dict[str, float]]]:
    first, days = _first(evidence.predictions), evidence.days
    series = {
        "live system": evidence.errors,
        **{name: np.abs(predicted - evidence.truth) for name, predicted in evidence.baselines.items()},
    }
    return [
        (first + int(day) * DAY, {name: float(values[days == day].mean()) for name, values in series.items()}) for day in np.unique(days)
    ]


def _groups(evidence: _Evidence, by: Sequence[str]) -> list[Group]:
    """Count, MAE and bias per group; numbers are grouped by their whole part."""
    parts = []
    for name in by:
        prefix = "request" if name in evidence.system.request.columns else "feature"
        values = evidence.labelled.column(f"{prefix}.{name}").to_pylist()
        parts.append([f"{int(value):02d}" if isinstance(value, float) and value == value else str(value) for value in values])
    keys = list(zip(*parts, strict=True))
    signed = evidence.labelled.column("score").to_numpy() - evidence.truth
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [Group(key, len(at), float(np.abs(signed[at]).mean()), float(signed[at].mean())) for key, at in sorted(rows.items())]


def _drift(evidence: _Evidence) -> dict[str, Series]:
    """The drift monitor's readings, had again from the prediction log: monitors are derived state."""
    with closing(open_log(evidence.workspace.events_url)) as log:
        observer = Observer(evidence.system, PredictionLog(evidence.workspace.predictions), log, _first(evidence.predictions))
        observer.refresh()
    watch = Watch(evidence.system, 1.0)
    drift: dict[str, list[tuple[int, float, float | None]]] = {}
    first, last = _first(evidence.predictions), int(pc.max(evidence.predictions.column("as_of")).as_py())
    for now in range(first + DAY, last + DAY, DAY):
        for reading in watch.observe(observer, now):
            if reading.monitor == "drift":
                drift.setdefault(reading.name, []).append((reading.end, reading.value, reading.threshold))
    return {name: tuple(readings) for name, readings in drift.items()}


def _quarantined(evidence: _Evidence) -> list[tuple[str, str, int]]:
    quarantine = Quarantine(evidence.workspace.quarantine)
    names = [evidence.system.request.name, *(source.name for source in evidence.system.sources)]
    return [(name, reason, count) for name in names for reason, count in quarantine.counts(name).most_common()]


def _places(evidence: _Evidence) -> list[tuple[str, str]]:
    space = evidence.workspace
    return [
        ("report", str(space.report / "report.html")),
        ("event log", space.events_url.removeprefix("file:").rsplit("@", 1)[-1]),
        ("prediction log", str(space.predictions)),
        ("registry", str(space.registry)),
        ("quarantine", str(space.quarantine) if space.quarantine.exists() else "nothing was quarantined"),
        ("derived: tables, online store", f"{space.tables}, {space.online}"),
    ]


def _next(evidence: _Evidence) -> list[tuple[str, str]]:
    name, path = evidence.system.name, evidence.workspace.path
    return [
        (f"mainspring serve {name} --workspace {path}", "serve the promoted version; README has a curl line"),
        (f"mainspring rollout {name} --workspace {path}", "every decision about its versions, or what was live --at an instant"),
        (f"mainspring draw {name}", "the architecture as declared"),
    ]


def _first(predictions: pa.Table) -> int:
    """The instant the days of the run are counted from: the hour of the first prediction."""
    return int(pc.min(predictions.column("as_of")).as_py()) // 3_600_000_000 * 3_600_000_000
