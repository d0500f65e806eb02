"""Runs to an MLflow server, and from one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, StorageError
from mainspring.training.tracking.runs import Curve, Run, flat
from mainspring.training.tracking.tracker import Tracker

RECORD, ENVIRONMENT, TAG = "mainspring/run.json", "mainspring/environment.json", "mainspring.run"
_BATCH, _LONGEST = 1_000, 5_000
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


def export_runs(tracker: Tracker, runs: Sequence[Run], url: str) -> list[str]:
    """Copy ended runs to the server at ``url``, each into the experiment of its name; returns the ids of those that were not there yet.

    Parameters, metrics with their steps, times, status and kept artifacts go to MLflow's own places; the whole record goes along as a
    file, so that `import_runs` gives it back. A run that made a version becomes a version of a registered model of its name.

    Raises:
        StorageError: the server cannot be reached or refuses.
        MissingExtraError: mlflow-skinny is not installed.
    """
    with _client(url) as client:
        return [run.id for run in runs if run.status != "running" and _export(client, tracker, run)]


def import_runs(tracker: Tracker, url: str, experiment: str | None = None) -> list[str]:
    """Copy ended runs from the server at ``url``, of one experiment or all; returns the ids of those that were not here yet.

    A run that came from here gets its whole record back; of another's, parameters, metrics with their steps, times, status, files
    and, as notes, tags are taken.

    Raises:
        StorageError: the server cannot be reached, or has no such experiment.
        MissingExtraError: mlflow-skinny is not installed.
    """
    known = {run.id for run in tracker.runs()}
    added = []
    with _client(url) as client:
        for found in _experiments(client, experiment, url):
            for one in _pages(lambda token, id=found.experiment_id: client.search_runs([id], page_token=token, order_by=["start_time"])):
                id = one.data.tags.get(TAG, one.info.run_id)
                if id not in known and one.info.end_time is not None:
                    _import(client, tracker, one, found.name)
                    added.append(id)
    return added


def _export(client: Any, tracker: Tracker, run: Run) -> bool:
    found = client.get_experiment_by_name(run.name)
    experiment = client.create_experiment(run.name) if found is None else found.experiment_id
    if client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'"):
        return False
    tags = {f"mainspring.{name}": value for name, value in run.notes.items()} | {"mlflow.source.git.commit": run.code.get("commit") or ""}
    id = client.create_run(experiment, start_time=run.started_at // 1_000, tags=tags, run_name=run.id).info.run_id
    for name, curve in tracker.curves(run).items():
        _metrics(client, id, name, curve)
    for name, value in run.metrics.items():
        client.log_metric(id, name, value, timestamp=(run.ended_at or run.started_at) // 1_000)
    for name, value in flat({**run.parameters, "data": run.data.get("hash", "")}).items():
        client.log_param(id, name, str(value)[:_LONGEST])
    for name, text in ((RECORD, json.dumps(run.to_dict())), (ENVIRONMENT, json.dumps(tracker.environment(run)))):
        client.log_text(id, text, name)
    for name in run.artifacts:
        if tracker.has_artifact(run, name):
            _upload(client, id, name, tracker.artifact(run, name))
    if "version" in run.notes:
        _register(client, id, run)
    client.set_terminated(id, _STATUS[run.status], end_time=(run.ended_at or run.started_at) // 1_000)
    client.set_tag(id, TAG, run.id)  # last: a run without it was not copied whole
    return True


def _metrics(client: Any, id: str, name: str, curve: Curve) -> None:
    from mlflow.entities import Metric

    rows = zip(curve.value.tolist(), curve.at.tolist(), curve.step.tolist(), strict=True)
    metrics = [Metric(name, value, at // 1_000, step) for value, at, step in rows]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(id, metrics=metrics[start : start + _BATCH])


def _upload(client: Any, id: str, name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / name.replace("/", "_")
        file.write_bytes(data)
        client.log_artifact(id, str(file))


def _register(client: Any, id: str, run: Run) -> None:
    """The version that a run made, as metadata: its files stay in the registry here."""
    if not client.search_registered_models(f"name = '{run.name}'"):
        client.create_registered_model(run.name)
    tags = {"mainspring.version": run.notes["version"], **{f"sha256.{name}": digest for name, digest in run.artifacts.items()}}
    client.create_model_version(run.name, f"runs:/{id}/mainspring", run_id=id, tags=tags)


def _import(client: Any, tracker: Tracker, one: Any, experiment: str) -> None:
    curves = {name: _curve(client.get_metric_history(one.info.run_id, name)) for name in one.data.metrics}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(client.download_artifacts(one.info.run_id, "", scratch)) if client.list_artifacts(one.info.run_id) else Path(scratch)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if TAG in one.data.tags:
        record = json.loads(files.pop(RECORD))
        environment = json.loads(files.pop(ENVIRONMENT))
        record.pop("cost")
        logged = {name: curve for name, curve in curves.items() if name not in record["metrics"]}
        tracker.adopt(Run(**record), logged, environment, files.values())
    else:
        kept = {name: tracker.blobs.put(data) for name, data in files.items()}
        tracker.adopt(_foreign(one, experiment, kept), curves, {}, ())


def _foreign(one: Any, experiment: str, artifacts: dict[str, str]) -> Run:
    ended = one.info.end_time * 1_000
    status = {value: name for name, value in _STATUS.items()}.get(one.info.status, "failed")
    commit = one.data.tags.get("mlflow.source.git.commit")
    return Run(
        id=one.info.run_id, name=experiment, started_at=one.info.start_time * 1_000, parameters=dict(one.data.params), data={},
        code={"commit": commit}, environment="", seed=None, parent=one.data.tags.get("mlflow.parentRunId"), price_per_hour=None,
        status=status, ended_at=ended, seconds=(one.info.end_time - one.info.start_time) / 1e3, metrics=dict(one.data.metrics),
        artifacts=artifacts, notes=dict(one.data.tags),
    )  # fmt: skip


def _curve(history: Sequence[Any]) -> Curve:
    rows = sorted(history, key=lambda one: one.step)
    step, at = (np.array([getattr(one, name) for one in rows], dtype=np.int64) for name in ("step", "timestamp"))
    return Curve(step, np.array([one.value for one in rows], dtype=np.float64), at * 1_000)


def _experiments(client: Any, name: str | None, url: str) -> list[Any]:
    if name is None:
        return list(_pages(lambda token: client.search_experiments(page_token=token)))
    found = client.get_experiment_by_name(name)
    if found is None:
        raise StorageError(f"MLflow at {url}: there is no experiment '{name}'. Leave it out to import all.")
    return [found]


def _pages(ask: Any) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _client(url: str) -> Iterator[Any]:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingExtraError("Exchange with MLflow", "mlflow-skinny", "mlflow") from error
    try:
        yield MlflowClient(tracking_uri=url, registry_uri=url)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"MLflow at {url}: {reason} Check the address, and that the server is up; what was copied stays.") from error
