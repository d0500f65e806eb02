"""The steps that make a model smaller, declared, and what each makes of a trained model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

import numpy as np

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.models.calibration import Temperature
from mainspring.models.distillation import lesson
from mainspring.models.export import How, load_onnx, quantize, to_onnx
from mainspring.models.learners import learner
from mainspring.models.protocol import Rows
from mainspring.models.pruning import Progress, Prune, prune
from mainspring.models.tabular import TabularModel
from mainspring.spec import LightGBM, Linear, Model, Net, Sklearn, XGBoost
from mainspring.training.examples import Examples, corrected, encoded, offsets_of, taught
from mainspring.training.finishing import finished

CALIBRATION_ROWS = 1_000
STUDENTS: Mapping[str, type[Model]] = {one.__name__: one for one in (LightGBM, Linear, Net, Sklearn, XGBoost)}
_OF_THE_TEACHER = (
    *("seed", "offset", "interval", "history", "holdout", "split", "group", "retrain_every", "ignore", "calibration"),
    *("sets", "sets_by", "sets_per_class"),
)


@dataclass(frozen=True, slots=True)
class Quantize:
    """A net with INT8 weights, as ONNX: ``dynamic`` or ``static``, the latter with activations scaled on training rows beforehand."""

    how: How = "dynamic"

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise DeclarationError(f"Quantize: '{self.how}' is not known.{did_you_mean(self.how, get_args(How))}")


@dataclass(frozen=True, slots=True)
class Distil:
    """A student ``into`` learns what the model says of its training rows, mixed with a share ``truth`` of their labels.

    ``temperature`` above 1 softens the probabilities that classes are taught by; those of the student are sharpened again on the held-out
    rows (`Temperature`), unless the system declares a calibration. ``beside`` are further versions of the system that teach with it:
    their answers are averaged. What a model shares with others (offset, interval, calibration) the student takes from the system.
    """

    into: Model
    temperature: float = 1.0
    truth: float = 0.0
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "beside", tuple(self.beside))
        if not self.temperature > 0 or not 0 <= self.truth <= 1:
            raise DeclarationError(
                f"Distil: temperature={self.temperature:g}, truth={self.truth:g}. "
                "Give a temperature above 0, and a share of the truth from 0 to 1."
            )


Step = Quantize | Prune | Distil
_STEPS: Mapping[str, type[Quantize | Prune | Distil]] = {"quantize": Quantize, "prune": Prune, "distil": Distil}


@dataclass(frozen=True, slots=True)
class Material:
    """What a step works on: the examples that the model was fitted to, those that were held back, and further teachers by id."""

    spec: Model
    learned: Examples
    held_out: Examples
    teachers: Mapping[str, TabularModel]
    threads: int = 1
    progress: Progress = lambda _done, _total: None


def applied(step: Step, model: TabularModel, material: Material) -> tuple[TabularModel, Model]:
    """The smaller model, and the declaration that its parameters are recorded by. The same call on one thread gives the same bits.

    No step looks at the held-out rows but for what the original took from them as well: calibration and interval.

    Raises:
        TrainingError: the step does not suit the model or its task.
        ExportError: the model has no ONNX form.
        MissingExtraError: a package is not installed.
    """
    if isinstance(step, Quantize):
        return _quantized(step, model, material), material.spec
    if isinstance(step, Prune):
        return _pruned(step, model, material), material.spec
    return _distilled(step, model, material)


def parse(text: str) -> Step:
    """The step in words, as ``quantize:how=static``, ``prune:share=0.5,structured=true`` or ``distil:into=Net,hidden=[32,16]``.

    Of ``distil``, settings other than its own are those of the model ``into``, as declared in Python.

    Raises:
        DeclarationError: there is no such step or setting.
    """
    name, _, rest = text.partition(":")
    if name not in _STEPS:
        raise DeclarationError(f"Step '{name}' is not known.{did_you_mean(name, _STEPS)}")
    settings = dict(_setting(text, one) for one in re.split(r",(?![^\[]*\])", rest) if one)
    if name == "distil":
        into = str(settings.pop("into", ""))
        if into not in STUDENTS:
            raise DeclarationError(f"Step '{text}': into='{into}' is no model.{did_you_mean(into, STUDENTS)}")
        own = {key: settings.pop(key) for key in ("temperature", "truth", "beside") if key in settings}
        return Distil(_made(text, STUDENTS[into], settings), **own)
    made: Step = _made(text, _STEPS[name], settings)
    return made


def to_dict(step: Step) -> dict[str, Any]:
    """JSON-ready form."""
    body = {"step": type(step).__name__, **asdict(step)}
    return {**body, "into": {"model": type(step.into).__name__, **asdict(step.into)}} if isinstance(step, Distil) else body


def _quantized(step: Quantize, model: TabularModel, material: Material) -> TabularModel:
    x = model.encoder.transform(material.learned.columns)
    some = x[:: max(1, len(x) // CALIBRATION_ROWS)] if step.how == "static" else None
    exported = to_onnx(model.predictor, reference=model.encoder.transform_row([None] * len(model.encoder.names)))
    smaller = load_onnx(quantize(exported, step.how, calibration=some), model.encoder.columns)
    return _with(model, material, kind="onnx", settings={}, predictor=smaller)


def _pruned(step: Prune, model: TabularModel, material: Material) -> TabularModel:
    rows, spec = encoded(model.encoder, taught(material.spec, material.learned)), material.spec
    predictor, settings = prune(
        model.kind,
        model.predictor,
        model.settings,
        step,
        rows,
        model.encoder.categorical,
        seed=spec.seed,
        threads=material.threads,
        progress=material.progress,
    )
    return _with(model, material, settings=settings, predictor=predictor)


def _distilled(step: Distil, model: TabularModel, material: Material) -> tuple[TabularModel, Model]:
    if step.into.task != material.spec.task:
        raise DeclarationError(
            f"Distil: the student's task is {step.into.task}, the teacher's {material.spec.task}. Give it the same objective."
        )
    spec = replace(step.into, **{name: getattr(material.spec, name) for name in _OF_THE_TEACHER}, negatives=1.0, balanced=False)
    rows = encoded(model.encoder, corrected(spec, material.learned))
    teachers = [model, *(material.teachers[id] for id in step.beside)]
    taught = np.mean([one.predict(material.learned.columns) for one in teachers], axis=0)
    if spec.offset is not None:
        taught = taught - offsets_of(spec, material.learned)
    told = lesson(spec.task, taught, rows.y, rows.weight, temperature=step.temperature, truth=step.truth)
    kind, settings = spec.learner
    predictor = learner(kind, settings).fit(
        Rows(rows.x[told.row], told.y, told.weight),
        names=model.encoder.columns,
        categorical=model.encoder.categorical,
        held_out=None,
        seed=spec.seed,
        threads=material.threads,
    )
    student = _with(model, material, kind=kind, settings=settings, predictor=predictor, kept=1.0)
    if step.temperature != 1 and spec.task != "regression" and spec.calibration is None:
        said = student.predict(material.held_out.columns)
        student = replace(student, calibration=Temperature.fit(said, material.held_out.label, material.held_out.weight))
    return student, spec


def _with(model: TabularModel, material: Material, **changes: Any) -> TabularModel:
    """The model with another predictor, calibrated and given its interval as the original was."""
    bare = replace(model, calibration=None, interval=None, sets=None, **changes)
    return finished(material.spec, bare, material.held_out)


def _setting(text: str, one: str) -> tuple[str, Any]:
    name, equals, value = one.partition("=")
    if not equals:
        raise DeclarationError(f"Step '{text}': '{one}' is no setting. Write name=value, as in prune:share=0.5,structured=true.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _made(text: str, kind: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            raise DeclarationError(f"Step '{text}': there is no setting '{name}'.{did_you_mean(name, known)}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise DeclarationError(f"Step '{text}': {error}.") from error


def beside(steps: Sequence[Step]) -> tuple[str, ...]:
    """The further teachers that steps name."""
    return tuple(id for step in steps if isinstance(step, Distil) for id in step.beside)
