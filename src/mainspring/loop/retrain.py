"""One retraining: collect matured labels, fit, judge on held-out rows, record; a passing version starts its rollout."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.errors import RegistryError
from mainspring.evaluation.baselines import Rows, Truth, predict_baselines
from mainspring.evaluation.gate import Candidate, GateResult, judge
from mainspring.model_registry import Registry, Version
from mainspring.serving.versions import load
from mainspring.spec import System
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.reproduce import begin, complete
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import Trained, fit, register


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
            version = register(self.system, self.registry, trained, at=at, metrics=result.metrics, code=self.code, note=note)
            if run is not None:
                complete(run, version, result.metrics)
        action = "gate_passed" if result.passed else "gate_refused"
        self.registry.decide(self.system.name, action, version.id, at=at, by="gate", reason=result.reason, evidence=result.metrics)
        return version, result

    def _gate(self, trained: Trained) -> GateResult:
        holdout, dataset = trained.holdout, trained.dataset
        score, low, high = trained.model.predict_bounds(holdout.columns)
        truth = Truth(dataset.columns, dataset.label, dataset.label_known_at)
        baselines = predict_baselines(self.system, trained.baselines, Rows(holdout.columns, holdout.as_of), truth)
        margin = self.system.rollout.margin if self.system.rollout is not None else 0.0
        champion = self._champion_scores(holdout)
        return judge(
            holdout.label, holdout.as_of, Candidate(score, low, high), champion, baselines, margin=margin, task=self.system.model.task
        )

    def _champion_scores(self, holdout: Dataset) -> npt.NDArray[np.float64] | None:
        champion = self.registry.deployment(self.system.name).champion
        if champion is None:
            return None
        loaded = load(self.system, self.registry, champion)
        if loaded.model is None:
            raise RegistryError(f"The champion {champion} cannot be compared with: {loaded.problem}")
        return loaded.model.predict(holdout.columns)
