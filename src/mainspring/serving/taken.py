"""Answers that devices gave while they were on their own, taken into the prediction log once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import RequestError
from mainspring.ingestion import Contract
from mainspring.schema import Status
from mainspring.spec import System
from mainspring.storage.prediction_log import Prediction, PredictionColumns, PredictionLog, PredictionWriter

VARIANT = "edge"


class DeviceAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of a device: its request as it came, the features that the device had, and what it answered with which version."""

    request_id: str
    answered_at: int
    request: dict[str, Any]
    features: dict[str, str | int | float | bool | None]
    version: str
    answered_by: str
    score: float
    low: float | None
    high: float | None
    latency_us: float


class DeviceAnswers:
    """Takes answers of devices; in the log their variant is ``edge``, and a feature that the device did not have is unavailable.

    One process does so at a time, under the worker's name ``edge``; which ids were taken is read from the log when it begins.
    """

    def __init__(self, system: System, path: Path, columns: PredictionColumns) -> None:
        self._system, self._path, self._columns = system, path, columns
        self._contract = Contract(system.request)
        self._writer: PredictionWriter | None = None
        self._known: set[str] = set()

    def take(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Log those of ``rows`` that are new, in order: how many were ``taken`` and ``known``, and which are ``rejected`` and why.

        Raises:
            RequestError: a row is no answer of a device.
            StorageError: another process takes them, or the log cannot be written.
        """
        writer, known, rejected = self._opened(), 0, []
        answers = [_typed(row, number) for number, row in enumerate(rows)]
        for answer in answers:
            if answer.request_id in self._known:
                known += 1
                continue
            try:
                prediction = self._prediction(answer)
            except RequestError as error:
                rejected.append({"request_id": answer.request_id, "reason": str(error)})
                continue
            writer.append(prediction)
            self._known.add(answer.request_id)
        return {"taken": len(answers) - known - len(rejected), "known": known, "rejected": rejected}

    def close(self) -> None:
        """Make every row durable."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> PredictionWriter:
        if self._writer is None:
            writer = PredictionWriter(self._path, self._columns, worker=VARIANT)
            table, _ = PredictionLog(self._path).read()
            pairs = zip(table.column("request_id").to_pylist(), table.column("variant").to_pylist(), strict=True) if len(table) else ()
            self._known = {id for id, variant in pairs if variant == VARIANT}
            self._writer = writer
        return self._writer

    def _prediction(self, answer: DeviceAnswer) -> Prediction:
        system, row = self._system, self._contract.check(answer.request)
        values: Mapping[str, Any] = {**row, **answer.features}
        names = [feature.name for feature in system.features]
        return Prediction(
            request_id=answer.request_id,
            as_of=row[system.request.event_time],  # type: ignore[arg-type]
            answered_at=answer.answered_at,
            request=tuple(row[name] for name in system.request.columns.names),
            features=tuple(values.get(name) for name in names),
            statuses=bytes(_status(name, values) for name in names),
            system=system.hash,
            version=answer.version,
            variant=VARIANT,
            answered_by=answer.answered_by,
            score=answer.score,
            low=answer.low,
            high=answer.high,
            reasons=(),
            latency_us=answer.latency_us,
            shadow_version="",
            shadow_score=None,
        )


def _status(name: str, values: Mapping[str, Any]) -> Status:
    if name not in values:
        return Status.UNAVAILABLE
    return Status.NULL if values[name] is None else Status.PRESENT


def _typed(row: Any, number: int) -> DeviceAnswer:
    try:
        return msgspec.convert(row, DeviceAnswer)
    except msgspec.ValidationError as error:
        raise RequestError(f"[{number}]", f"is no answer of a device: {error}") from error
