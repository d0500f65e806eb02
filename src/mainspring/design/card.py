"""The card of a registered version, from the records alone."""

from __future__ import annotations

from mainspring.evaluation.card import Card
from mainspring.evaluation.record import Evaluation
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.spec import System
from mainspring.storage.workspace import Workspace
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import EVALUATION


def card_of(registry: Registry, workspace: Workspace, version: Version) -> Card:
    """What the registry and the records of runs hold of a version.

    Raises:
        RegistryError: its artifacts are gone or altered, or its evaluation is of another release.
        DeclarationError: a function of its declaration is gone or has other code.
    """
    manifest = ModelManifest.of(version)
    system = System.from_json(registry.artifact(version, "system.json").decode())
    stored = EVALUATION in version.artifacts
    return Card(
        system=system,
        version=version.id,
        registered=version.at,
        manifest=manifest,
        dataset=dict(registry.version(manifest.dataset).manifest) if manifest.dataset else {},
        evaluation=Evaluation.from_json(registry.artifact(version, EVALUATION)) if stored else None,
        run=_run(workspace, version),
        decisions=[(one.at, one.action, one.reason) for one in registry.decisions(version.name) if one.version == version.id],
    )


def _run(workspace: Workspace, version: Version) -> str:
    """The id of the run that made a version, empty where none is recorded."""
    if not workspace.runs.is_dir():
        return ""
    tracker = Tracker(workspace.runs)
    try:
        return next((run.id for run in tracker.runs(version.name) if run.notes.get("version") == version.id), "")
    finally:
        tracker.close()
