"""The whole loop on a recording: ingest, train, gate, serve, replay, watch, retrain, roll out.

Everything it knows lies in the three records. A run that was killed, however and wherever, is started again with the same
call and goes on: events and requests that the records hold are not sent twice, a live version is not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mainspring.clock import DAY, HOUR, ManualClock, format_instant
from mainspring.errors import StorageError, TrainingError
from mainspring.feature_store.online import OnlineStore
from mainspring.ingestion.ingest import Ingestor
from mainspring.ingestion.quarantine import Quarantine
from mainspring.ingestion.recording import Recording
from mainspring.loop.client import Answered, Client
from mainspring.loop.evidence import commit, machine, peak_memory_bytes
from mainspring.loop.observe import Observer, Watch
from mainspring.loop.progress import Progress
from mainspring.loop.replay import Feed, Replayer, logged_ids, without
from mainspring.loop.retrain import Retrainer
from mainspring.loop.rollout import look, next_share
from mainspring.loop.server_process import ServerProcess
from mainspring.loop.triggers import RETRAIN, described, due
from mainspring.model_registry.deployment import Decision
from mainspring.model_registry.registry import Registry, open_registry
from mainspring.monitoring.reading import Reading
from mainspring.spec import System
from mainspring.spec.versions import feature_versions
from mainspring.storage.key_value import KeyValue
from mainspring.storage.log import Log
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.tracking.tracker import Tracker

LOOK = 6 * HOUR
DRILL_AFTER = 3 * DAY
HTTP_LATENCIES = "http_latencies_us.f32"


def started(decisions: Sequence[Decision]) -> dict[str, object] | None:
    """Which declaration (its hash) and which recording the run of these decisions is of; None where none has started."""
    evidence = next((one.evidence for one in decisions if one.action == "run_started"), None)
    return None if evidence is None else {name: evidence.get(name) for name in ("system", "recording")}


@dataclass(slots=True)
class Run:
    """One run of the loop in a workspace. ``drill`` trains a model on shuffled labels and pushes it past the gate."""

    system: System
    recording: Recording
    workspace: Workspace
    progress: Progress
    drill: bool = True
    threads: int = 2
    registry: Registry = field(init=False)
    log: Log = field(init=False)
    online: OnlineStore = field(init=False)
    tables: Tables = field(init=False)
    retrainer: Retrainer = field(init=False)
    tracker: Tracker = field(init=False)
    clock: ManualClock = field(init=False)
    _store: KeyValue = field(init=False)
    _dataset: Dataset | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.workspace.path.mkdir(parents=True, exist_ok=True)
        self.workspace.report.mkdir(exist_ok=True)
        self.registry = open_registry(self.workspace.registry_url)
        self.log = open_log(self.workspace.events_url)
        self._store = open_key_value(self.workspace.online_url)
        self.online = OnlineStore(self.system, self._store)
        self.tables = Tables(self.workspace.tables)
        self.clock = ManualClock(self.recording.history_until)
        self.tracker = Tracker(self.workspace.runs)
        builder = DatasetBuilder(self.system, self.tables)
        self.retrainer = Retrainer(self.system, self.registry, builder, commit(), self.threads, self.tracker)

    def execute(self) -> None:
        """Run to the end of the recording; the evidence of it is in the records and the report folder."""
        began = time.perf_counter()
        self._declare()
        self._history()
        self._first_version()
        with ServerProcess(self.workspace.path, stream=False) as server:
            answered = self._replay(server)
            self._complete(server, answered, time.perf_counter() - began)
        PredictionLog(self.workspace.predictions).compact()
        self.tables.catch_up(self.log)

    def close(self) -> None:
        """Close the records."""
        self.tracker.close()
        self.log.close()
        self._store.close()
        self.registry.close()

    def _declare(self) -> None:
        key = {"system": self.system.hash, "recording": self.recording.name}
        begun = started(self.registry.decisions(self.system.name))
        if begun is None:
            artifacts = {"system.json": self.system.to_json().encode()}
            manifest = {"hash": self.system.hash, "features": feature_versions(self.system.features, self.system.request)}
            self.registry.register("system", self.system.name, manifest, artifacts, at=self.clock.now())
            self._decide("run_started", reason=f"recording {self.recording.name}", evidence={**key, **self.recording.notes})
        elif begun != key:
            raise StorageError(
                f"{self.workspace.path} holds a run of system '{self.system.name}' on recording '{begun['recording']}', under another "
                "declaration or recording than this one. Give another workspace."
            )

    def _history(self) -> None:
        until = self.recording.history_until
        if not self._decided("history_ingested"):
            ids = logged_ids(self.log)
            sources = [self.system.request, *self.system.sources]
            feed = Feed(sources, {one.name: without(self.recording.tables[one.name], one.event_id, ids.get(one.name)) for one in sources})
            ingestor = self._ingestor()
            parts = list(feed.rows(None, until))
            for number, (source, rows) in enumerate(parts):
                self.progress.step("ingest history", number, len(parts), f"{len(rows):,} {source}")
                for violation in ingestor.ingest(source, rows, at=until).violations:
                    self.progress.say(f"Expected otherwise of '{source}': {violation.message}")
            self.progress.step("ingest history", len(parts), len(parts))
            self._decide("history_ingested", reason=f"the event log goes up to {self.log.end:,}")
        self.progress.step("materialise online store", 0, 1)
        self.online.apply(self.log)
        self.progress.step("materialise online store", 1, 1)
        self.tables.catch_up(self.log)

    def _first_version(self) -> None:
        if self.registry.deployment(self.system.name).champion is not None:
            return
        at = self.recording.history_until
        self._dataset = self._build(at)
        self.progress.step("train first version", 0, 1, f"{len(self._dataset):,} rows")
        version, gate = self.retrainer.train(self._dataset, at)
        self.progress.step("train first version", 1, 1)
        if not gate.passed:
            raise TrainingError(f"System '{self.system.name}': the first version {version.id} did not pass the gate: {gate.reason}.")
        self._decide(RETRAIN, version.id, reason="first version")
        self._decide("promote", version.id, reason=gate.reason)
        self.progress.say(f"{version.id} promoted: {gate.reason}")

    def _build(self, at: int) -> Dataset:
        self.progress.step("build training set", 0, 1)
        self.tables.catch_up(self.log)
        return self.retrainer.dataset(at, lambda done, total: self.progress.step("build training set", done, total))

    def _replay(self, server: ServerProcess) -> Answered:
        start, end = self.recording.history_until, self.recording.end
        predictions = PredictionLog(self.workspace.predictions)
        observer = Observer(self.system, predictions, self.log, start)
        observer.refresh()
        watch = Watch(self.system, self._expected_error())
        done = self._answered_until(observer, start, end)
        replayer = self._replayer(observer, Client(server.port), done)
        total = Answered()
        for begun in range(start, end, LOOK):
            now = min(begun + LOOK, end)
            if now > done:
                total.add(replayer.play(begun, now))
                observer.refresh()
            self.clock.advance_to(now)
            daily = (now - start) % DAY == 0
            if daily:
                predictions.compact()
            readings = watch.observe(observer, now) if daily else []
            if now > done:
                self._act(observer, readings, daily)
            self.progress.step("replay", now - start, end - start, f"{format_instant(now)[:10]}  {len(total.latencies_us):,} answered")
        return total

    def _replayer(self, observer: Observer, client: Client, done: int) -> Replayer:
        request = self.system.request
        sources = [request, *self.system.sources]
        ids = logged_ids(self.log) if done > self.recording.history_until or self._has_replayed(observer) else {}
        tables = {one.name: without(self.recording.tables[one.name], one.event_id, ids.get(one.name)) for one in sources}
        made = observer.predictions(self.recording.history_until, self.recording.end)
        answered = made.column(f"request.{request.event_id}").combine_chunks() if len(made) else None
        asked = {request.name: without(self.recording.tables[request.name], request.event_id, answered)}
        return Replayer(
            request,
            f"/v1/{self.system.name}",
            Feed(sources, tables),
            Feed([request], asked),
            self._ingestor(),
            self.log,
            self.online,
            client,
        )

    def _has_replayed(self, observer: Observer) -> bool:
        return len(observer.predictions(self.recording.history_until, self.recording.end)) > 0

    def _answered_until(self, observer: Observer, start: int, end: int) -> int:
        """The last look whose requests had all been sent when an earlier run was cut off."""
        made = observer.predictions(start, end)
        if not len(made):
            return start
        last = int(pa.compute.max(made.column("as_of")).as_py())
        return start + (last - start) // LOOK * LOOK

    def _act(self, observer: Observer, readings: Sequence[Reading], daily: bool) -> None:
        now = self.clock.now()
        alarms = [reading for reading in readings if reading.alarm]
        for reading in alarms:
            bound = {"value": reading.value, "threshold": reading.threshold, "rows": reading.rows}
            self._decide("alarm", reason=described(reading), evidence=bound)
        self._advance(observer)
        steady = self.registry.deployment(self.system.name).stage == "steady"
        if not daily or not steady:
            return
        if self.drill and not self._decided("drill") and now - self.recording.history_until >= DRILL_AFTER:
            self._drill(now)
            return
        why = due(self.system, self.registry.decisions(self.system.name), alarms, now)
        if why is not None:
            self._retrain(now, why)

    def _retrain(self, now: int, why: str) -> None:
        self._decide("trigger", reason=why)
        self.progress.say(f"{format_instant(now)[:10]} retraining, {why}")
        self._dataset = self._build(now)
        version, gate = self.retrainer.train(self._dataset, now)
        self._decide(RETRAIN, version.id, reason=why)
        if gate.passed:
            self._decide("shadow", version.id, reason="scores every request unseen, beside the champion")
        self.progress.say(
            f"{format_instant(now)[:10]} {version.id} {'passed' if gate.passed else 'was refused by'} the gate: {gate.reason}"
        )

    def _drill(self, now: int) -> None:
        """Show that a worse model is stopped: first by the gate, then, forced past it, by the canary."""
        dataset = self._dataset or self._build(now)
        version, gate = self.retrainer.train(dataset, now, shuffle_labels=np.random.default_rng(0), note="drill: shuffled labels")
        self._decide(
            "drill",
            version.id,
            reason=f"trained on shuffled labels; the gate {'passed' if gate.passed else 'refused'} it; forced past the gate",
        )
        share = self.system.rollout.steps[0] if self.system.rollout is not None else 0.01
        despite = {"despite": "drill: the canary must stop what gets past the gate"}
        self._decide("shadow", version.id, reason="drill: forced", evidence=despite, by="drill")
        self._decide("canary", version.id, reason=f"drill: {share:.0%} of answers", evidence={"share": share}, by="drill")
        self.progress.say(
            f"{format_instant(now)[:10]} drill: {version.id} (shuffled labels) refused by the gate, forced to {share:.0%} of the answers"
        )

    def _advance(self, observer: Observer) -> None:
        rollout, deployment, now = self.system.rollout, self.registry.deployment(self.system.name), self.clock.now()
        if rollout is None or deployment.challenger is None:
            return
        began = max(
            one.at for one in self.registry.decisions(self.system.name) if one.action == "shadow" and one.version == deployment.challenger
        )
        seen = look(rollout, deployment, observer.labelled(began, now, now), began, now)
        if seen.outcome == "roll_back":
            self._decide("roll_back", deployment.challenger, reason=seen.reason, evidence=seen.evidence)
        elif seen.outcome == "advance":
            share = next_share(rollout, deployment)
            action = "promote" if share == 1.0 else "canary"
            self._decide(action, deployment.challenger, reason=seen.reason, evidence={**seen.evidence, "share": share})
        else:
            return
        after = self.registry.deployment(self.system.name)
        stage = {"canary": f"to {after.share:.0%} of the answers", "steady": "promoted" if seen.outcome == "advance" else "rolled back"}
        self.progress.say(f"{format_instant(now)[:10]} {deployment.challenger} {stage[after.stage]}: {seen.reason}")

    def _complete(self, server: ServerProcess, answered: Answered, wall_seconds: float) -> None:
        with (self.workspace.report / HTTP_LATENCIES).open("ab") as file:
            answered.latencies().tofile(file)
        evidence = {
            "wall_seconds": wall_seconds,
            "requests": len(answered.latencies_us),
            "asking_seconds": answered.seconds,
            "explained": answered.explained,
            "statuses": {str(status): count for status, count in answered.statuses.items()},
            "server_cpu_seconds": server.cpu_seconds(),
            "peak_memory_bytes": peak_memory_bytes() + server.peak_memory_bytes(),
            "machine": machine(),
            "commit": commit(),
        }
        self._decide("run_completed", reason=f"{len(answered.latencies_us):,} requests answered", evidence=evidence)

    def _expected_error(self) -> float:
        versions = self.registry.versions("model", self.system.name)
        return float(versions[0].manifest["metrics"]["mae"])

    def _ingestor(self) -> Ingestor:
        sources = {source.name: source for source in (self.system.request, *self.system.sources)}
        return Ingestor(self.log, sources, Quarantine(self.workspace.quarantine))

    def _decided(self, action: str) -> bool:
        return any(decision.action == action for decision in self.registry.decisions(self.system.name))

    def _decide(
        self, action: str, version: str = "", *, reason: str, evidence: Mapping[str, object] | None = None, by: str = "loop"
    ) -> None:
        self.registry.decide(self.system.name, action, version, at=self.clock.now(), by=by, reason=reason, evidence=evidence or {})
