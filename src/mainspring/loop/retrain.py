"""One retraining: collect matured labels, fit, judge on held-out rows, record; a passing version starts its rollout."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from mainspring.evaluation.baselines import Rows, Truth
from mainspring.evaluation.card import Card, markdown
from mainspring.evaluation.evaluate import CHAMPION
from mainspring.evaluation.gate import GateResult, judge
from mainspring.evaluation.of_model import Candidate, evaluate_model
from mainspring.loop.evaluate import model_of
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.models.tabular import TabularModel
from mainspring.spec import System
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.reproduce import begin, complete
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import Trained, fit, held_out, latency, register


@dataclass(slots=True)
class Retrainer:
    """Trains versions of one System. ``code`` names the code version that is recorded with each; ``tracker`` records every run."""

    system: System
    registry: Registry
    builder: DatasetBuilder
    code: str
    threads: int = 2
    tracker: Tracker | None = None

    def dataset(self, at: int) -> Dataset:
        """The training set as of ``at``, reaching back as far as the model's ``history`` says."""
        history = self.system.model.history_us
        return self.builder.build(None if history is None else at - history, at)

    def train(
        self, dataset: Dataset, at: int, *, shuffle_labels: np.random.Generator | None = None, note: str = ""
    ) -> tuple[Version, GateResult]:
        """Fit, evaluate against baselines and champion, register, and record the run and the gate's decision."""
        with (
            nullcontext()
            if self.tracker is None
            else begin(self.tracker, self.system, dataset, threads=self.threads, shuffle_labels=shuffle_labels, note=note) as run
        ):
            trained = fit(self.system, dataset, threads=self.threads, shuffle_labels=shuffle_labels)
            result = self._gate(trained)
            version = register(
                self.system,
                self.registry,
                trained,
                at=at,
                metrics=result.metrics,
                code=self.code,
                note=note,
                card=lambda manifest: markdown(self._card(manifest, trained, result, "" if run is None else run.id)),
                evaluation=result.evaluation.to_json(),
            )
            if run is not None:
                complete(run, version, result.metrics)
        action = "gate_passed" if result.passed else "gate_refused"
        self.registry.decide(self.system.name, action, version.id, at=at, by="gate", reason=result.reason, evidence=result.metrics)
        return version, result

    def _gate(self, trained: Trained) -> GateResult:
        holdout, dataset = trained.holdout, trained.dataset
        evaluation = evaluate_model(
            self.system,
            Candidate(trained.model, trained.baselines),
            Rows(holdout.columns, holdout.as_of),
            holdout.label,
            Truth(dataset.columns, dataset.label, dataset.label_known_at),
            others=self._champion(),
            split=held_out(self.system),
            latency=latency(trained.model, holdout),
        )
        return judge(evaluation, margin=self.system.rollout.margin if self.system.rollout is not None else 0.0)

    def _card(self, manifest: ModelManifest, trained: Trained, result: GateResult, run: str) -> Card:
        """What is known of a version as it is registered."""
        dataset = {**trained.dataset.manifest, "hash": trained.dataset.hash}
        return Card(
            system=self.system, version="", registered=None, manifest=manifest, dataset=dataset, evaluation=result.evaluation, run=run
        )

    def _champion(self) -> dict[str, TabularModel]:
        champion = self.registry.deployment(self.system.name).champion
        return {} if champion is None else {CHAMPION: model_of(self.system, self.registry, champion)}
