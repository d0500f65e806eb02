"""What stands behind the application: the traffic split, the prediction service, the log of events and its consumer."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mainspring.breaker import Breaker
from mainspring.clock import SystemClock
from mainspring.errors import MainspringError
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.stream import Stream
from mainspring.gateway.split import assign
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.model_registry.deployment import Deployment
from mainspring.model_registry.registry import Registry, open_registry
from mainspring.models.large_tables import OpenTables
from mainspring.serving.answer import Answer, Ask
from mainspring.serving.asked import AskedVersion, load_asked
from mainspring.serving.features import FeatureReader, beside_rules, feature_schema
from mainspring.serving.health import Health
from mainspring.serving.service import PredictionService, Split
from mainspring.serving.taken import DeviceAnswers
from mainspring.serving.versions import FAILURES, load_system
from mainspring.spec import System
from mainspring.spec.aggregate import Value
from mainspring.storage.log import Log
from mainspring.storage.prediction_log import PredictionColumns, PredictionWriter
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.workspace import Workspace

SEGMENT_ROWS = 5_000
ONLINE = "online store"


class Backend:
    """One System's live versions over the records of a workspace."""

    def __init__(self, service: PredictionService, registry: Registry, log: Log, ingestor: Ingestor, devices: DeviceAnswers) -> None:
        self.system = service.system
        self._service = service
        self._registry = registry
        self._log = log
        self._ingestor = ingestor
        self._devices = devices
        self._clock = SystemClock()

    def answer(self, row: Mapping[str, Value], *, request_id: str, explain: bool) -> Answer:
        """Answer one valid request row.

        Raises:
            MainspringError: see `PredictionService.answer_many`.
        """
        now = time.perf_counter_ns()
        (answer,) = self.answer_many([Ask(request_id, row, explain, now, now + self.system.policy.deadline_us * 1_000)])
        if isinstance(answer, MainspringError):
            raise answer
        return answer

    def answer_many(self, asks: Sequence[Ask], *, shadow: bool = True) -> list[Answer | MainspringError]:
        """Answer each with the version that the rollout assigns to its unit: always the same for the same unit."""
        return self._service.answer_many(asks, shadow=shadow)

    def answer_late(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        """Answer what no model can answer by its deadline."""
        return self._service.answer_late(asks)

    def ingest(self, source: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Append facts to the event log; they are durable when this returns, and readable online soon after."""
        done = self._ingestor.ingest_rows(source, rows, at=self._clock.now())
        return {"accepted": done.accepted, "rejected": done.rejected, "offset": done.offset}

    def take(self, rows: list[Any]) -> dict[str, Any]:
        """Take answers of devices into the prediction log."""
        return self._devices.take(rows)

    def load(self, version: int, most: int) -> AskedVersion:
        """A version from the registry; see `load_asked`."""
        return load_asked(self._service, self._registry, version, most)

    def counts(self) -> Mapping[str, float]:
        """Hits and misses of the cache."""
        return self._service.counts()

    def ready(self) -> str | None:
        """None when requests can be answered, else why not."""
        return self._service.ready()

    def health(self) -> Health:
        """Breakers of the live versions and of the online store, and shadow scores left out."""
        return self._service.health()

    def metadata(self) -> dict[str, Any]:
        """The live versions."""
        return self._service.metadata()


@contextlib.contextmanager
def opened(workspace: Workspace, *, stream: bool, worker: str = "0", tables: OpenTables | None = None) -> Iterator[Backend]:
    """The backend of a workspace; with ``stream`` a thread folds new events into the online store while it is open.

    ``worker`` is its name in the prediction log, which no other that is open at the same time may have. ``tables`` opens the large
    tables of nets where shards hold them.

    Raises:
        RegistryError: the workspace declares no system.
    """
    registry = open_registry(workspace.registry_url, tables=tables)
    system = load_system(registry)
    log = open_log(workspace.events_url)
    store = open_key_value(workspace.online_url, read_timeout_us=system.policy.feature_deadline_us)
    reads = Breaker(time.monotonic, random.Random(), FAILURES)
    online = OnlineStore(system, store, breaker=reads)
    columns = PredictionColumns(system.request.columns, feature_schema(system))
    writer = PredictionWriter(workspace.predictions, columns, worker=worker, rotate_rows=SEGMENT_ROWS)
    devices = DeviceAnswers(system, workspace.predictions, columns)
    sources = {source.name: source for source in (system.request, *system.sources)}
    ingestor = Ingestor(log, sources, Quarantine(workspace.quarantine))
    stop, clock = threading.Event(), SystemClock()
    following = Stream(online, log, DeadLetters(workspace.dead_letters), clock)
    consumer = threading.Thread(target=following.run, args=(stop,), daemon=True)
    try:
        if stream:
            following.step()
            consumer.start()
        features, few = FeatureReader(system, online), FeatureReader(system, online, beside_rules(system))
        service = PredictionService(system, registry, features, writer, clock, _split(system), few=few, breakers={ONLINE: reads})
        yield Backend(service, registry, log, ingestor, devices)
    finally:
        stop.set()
        if consumer.is_alive():
            consumer.join()
        writer.close()
        devices.close()
        store.close()
        log.close()
        registry.close()


def _split(system: System) -> Split:
    unit = system.request.event_id if system.rollout is None else system.rollout.unit

    def variant(deployment: Deployment, row: Mapping[str, Value]) -> str:
        challenger, share = deployment.challenger, deployment.share
        return "challenger" if challenger is not None and share > 0 and assign(str(row[unit]), share, challenger) else "champion"

    return variant
