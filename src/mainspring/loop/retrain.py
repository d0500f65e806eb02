"""One retraining: collect matured labels, fit anew or go on from the champion, judge on held-out rows, record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.errors import RegistryError, TrainingError
from mainspring.evaluation.baselines import Rows, Truth, predict_baselines
from mainspring.evaluation.gate import Candidate, GateResult, judge
from mainspring.model_registry import ModelManifest, Registry, Version
from mainspring.serving.versions import load
from mainspring.spec import System
from mainspring.training.dataset import Dataset, DatasetBuilder, Progress
from mainspring.training.reproduce import begin, complete
from mainspring.training.tracking.tracker import Tracker
from mainspring.training.train import Start, Trained, fit, register


@dataclass(slots=True)
class Retrainer:
    """Trains versions of one System. ``code`` names the code version that is recorded with each; ``tracker`` records every run."""

    system: System
    registry: Registry
    builder: DatasetBuilder
    code: str
    threads: int = 2
    tracker: Tracker | None = None

    def dataset(self, at: int, progress: Progress | None = None) -> Dataset:
        """The training set as of ``at``, reaching back as far as the model's ``history`` says."""
        history = self.system.model.history_us
        return self.builder.build(None if history is None else at - history, at, progress)

    def train(
        self, dataset: Dataset, at: int, *, shuffle_labels: np.random.Generator | None = None, note: str = ""
    ) -> tuple[Version, GateResult]:
        """Fit as the model's ``retrain`` says; each way is a version that is gated and recorded, and the better one is returned.

        Where there is no champion to go on from, or too little that is new to it, the model is fitted anew, and the decision
        ``retrained`` says why.
        """
        declared = self.system.model.retrain
        if declared == "full" or shuffle_labels is not None:
            return self._train(dataset, at, shuffle_labels, note, None)
        made: dict[str, tuple[Version, GateResult]] = {}
        hindrance = ""
        try:
            made["incremental"] = self._train(dataset, at, None, note, self._start())
        except TrainingError as error:
            hindrance = str(error)
        if declared == "both" or not made:
            made["full"] = self._train(dataset, at, None, note, None)
        return self._better(made, hindrance, at)

    def _start(self) -> Start:
        """The champion to go on from.

        Raises:
            TrainingError: there is none, or it does not load.
        """
        champion = self.registry.deployment(self.system.name).champion
        if champion is None:
            raise TrainingError("There is no champion to go on from.")
        loaded, manifest = load(self.system, self.registry, champion), ModelManifest.of(self.registry.version(champion))
        if loaded.model is None:
            raise TrainingError(f"The champion {champion} does not load: {loaded.problem}")
        return Start(champion, loaded.model, int(self.registry.version(manifest.dataset).manifest["until"]))

    def _better(self, made: Mapping[str, tuple[Version, GateResult]], hindrance: str, at: int) -> tuple[Version, GateResult]:
        """The one of less loss on the held-out rows; the comparison is recorded."""
        losses = {way: gate.metrics["loss"] for way, (_, gate) in made.items()}
        chosen = min(losses, key=lambda way: losses[way]["value"])
        evidence = {
            way: {"version": version.id, "loss": losses[way], **{name: version.manifest[name] for name in ("rows", "seconds", "bytes")}}
            for way, (version, _) in made.items()
        }
        told = ", ".join(f"{way} {loss['name']} {loss['value']:.4g}" for way, loss in losses.items())
        reason = f"{chosen} ({told}){f': {hindrance}' if hindrance else ''}"
        self.registry.decide(self.system.name, "retrained", made[chosen][0].id, at=at, by="loop", reason=reason, evidence=evidence)
        return made[chosen]

    def _train(
        self, dataset: Dataset, at: int, shuffle_labels: np.random.Generator | None, note: str, start: Start | None
    ) -> tuple[Version, GateResult]:
        """Fit, evaluate against baselines and champion, register, and record the run and the gate's decision."""
        with (
            nullcontext()
            if self.tracker is None
            else begin(
                self.tracker, self.system, dataset, threads=self.threads, shuffle_labels=shuffle_labels, start=start, note=note
            ) as run
        ):
            trained = fit(self.system, dataset, threads=self.threads, shuffle_labels=shuffle_labels, start=start)
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
