"""One chunk of questions: contract, features, versions and rules of the server's own request path."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from mainspring.breaker import Breaker
from mainspring.clock import SystemClock
from mainspring.errors import MainspringError, RegistryError
from mainspring.feature_store.offline import OfflineStore
from mainspring.feature_store.online import OnlineStore
from mainspring.ingestion import Contract
from mainspring.model_registry.registry import Registry, open_registry
from mainspring.scoring.features import OfflineReader
from mainspring.scoring.reading import Chunk
from mainspring.serving.answer import Ask
from mainspring.serving.features import FeatureReader, feature_schema
from mainspring.serving.releases import Releases
from mainspring.serving.service import Features, PredictionService
from mainspring.serving.versions import LoadedVersion, load, load_system
from mainspring.spec import System
from mainspring.storage.prediction_log import Prediction, PredictionColumns
from mainspring.storage.prediction_table import to_table
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace

Where = Literal["offline", "online"]
Chain = tuple[tuple[str, str], ...]
"""What may answer, in order: model, previous or a rule, and the id of the version that it is of."""
_SERVERS_OWN = ("request_id", "answered_at", "variant", "reasons", "latency_us", "shadow_version", "shadow_score")
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of a chunk: a row for each answer, and ``{"row", "reason", "values"}`` for each that was rejected."""

    answers: pa.Table
    rejected: list[dict[str, Any]]


class Scorer:
    """Answers chunks by one chain of versions, whatever is released meanwhile.

    Raises:
        RegistryError: there is but one version that may answer, and it cannot be loaded.
    """

    def __init__(self, system: System, registry: Registry, features: Features, chain: Chain) -> None:
        self.system = system
        self._contract = Contract(system.request)
        self._columns = PredictionColumns(system.request.columns, feature_schema(system))
        self._kept = _Kept()
        self._service = PredictionService(system, registry, features, self._kept, SystemClock(), lambda *_: "champion")
        versions = {id: _patient(load(system, registry, id)) for _, id in chain}
        self._chain = [(name, versions[id]) for name, id in chain]
        if len(chain) == 1 and self._chain[0][1].model is None:
            raise RegistryError(f"{chain[0][1]} cannot be loaded, and nothing stands in for it: {self._chain[0][1].problem}")

    def score(self, chunk: Chunk, first: int) -> Scored:
        """The answers to a chunk whose first row has the number ``first`` in the file.

        An answer has the columns of the prediction log but those that only a server has, and ``row``, its number.

        Raises:
            DataError: the columns of a table are not those of the request.
        """
        tabular = isinstance(chunk.rows, pa.Table)
        checked = self._contract.check_batch(chunk.rows) if tabular else self._contract.check_rows(chunk.rows)
        rejected = [_rejection(first + one.row, one.reason, one.row_values) for one in checked.rejected]
        unfit = {one.row for one in checked.rejected}
        numbers = [first + number for number in range(len(chunk.rows)) if number not in unfit]
        rows = checked.accepted.select(list(self._columns.request.names)).to_pylist()
        asks = [Ask(str(number), row, False, 0, _NEVER) for number, row in zip(numbers, rows, strict=True)]
        for ask, answer in zip(asks, self._service.answer_by(self._chain, asks), strict=True):
            if isinstance(answer, MainspringError):
                rejected.append(_rejection(int(ask.request_id), str(answer), ask.row))
        predictions = self._kept.take()
        table = to_table(predictions, self._columns, "Answers").drop_columns(list(_SERVERS_OWN))
        placed = table.add_column(0, "row", pa.array([int(one.request_id) for one in predictions], pa.int64()))
        return Scored(placed, sorted(rejected, key=lambda one: int(one["row"])))


def _patient(version: LoadedVersion) -> LoadedVersion:
    """The version that is asked for every row: nobody waits for it, so that it is never left out."""
    return replace(version, deadline=math.inf, breaker=Breaker(time.monotonic, random.Random(), _NEVER))


class _Kept:
    """What stands in the place of the prediction log."""

    def __init__(self) -> None:
        self._rows: list[Prediction] = []

    def append_all(self, predictions: Sequence[Prediction]) -> None:
        self._rows += predictions

    def take(self) -> list[Prediction]:
        rows, self._rows = self._rows, []
        return rows


def chain_of(system: System, registry: Registry, which: str | None) -> Chain:
    """The version ``which`` alone, as `Registry.resolve` takes it; without it the champion and what the policy has stand in for it.

    Raises:
        RegistryError: there is no such version, or none is live.
    """
    if which is not None:
        return (("model", registry.resolve(system.name, which).id),)
    if registry.deployment(system.name).champion is None:
        raise RegistryError(f"System '{system.name}' has no promoted version. Name one: --version NUMBER.")
    return tuple((name, version.id) for name, version in Releases(system, registry).current().chains["champion"])


@contextmanager
def opened_scorer(space: Workspace, where: Where, chain: Chain) -> Iterator[Scorer]:
    """The scorer of a workspace, its tables or online store brought up to the end of the event log first.

    Raises:
        RegistryError: the workspace declares no system.
        StorageError: the log, the tables or the store cannot be read.
    """
    with ExitStack() as stack:
        registry = stack.enter_context(closing(open_registry(space.registry_url)))
        system = load_system(registry)
        log = stack.enter_context(closing(open_log(space.events_url)))
        if where == "online":
            online = OnlineStore(system, stack.enter_context(closing(open_key_value(space.online_url))))
            online.apply(log)
            features: Features = FeatureReader(system, online, patient=True)
        else:
            tables = Tables(space.tables)
            tables.catch_up(log)
            features = OfflineReader(system, OfflineStore(system, tables.files))
        yield Scorer(system, registry, features, chain)


def _rejection(row: int, reason: str, values: Any) -> dict[str, Any]:
    return {"row": row, "reason": reason, "values": dict(values)}
