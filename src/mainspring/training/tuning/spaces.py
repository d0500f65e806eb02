"""What there is to tune in a declared model: a space for each kind, what is said otherwise, and the model with settings found."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.spec import LightGBM, Linear, Model, Net, Sklearn, XGBoost
from mainspring.training.tuning.space import Choice, Int, Range, Real, Space

_SHARED: Space = {"learning_rate": Real(0.01, 0.3, log=True), "feature_fraction": Real(0.4, 1.0), "l2": Real(0.01, 30.0, log=True)}
SPACES: Mapping[type[Model], Space] = {
    LightGBM: {**_SHARED, "leaves": Int(7, 127, log=True), "min_leaf_rows": Int(5, 200, log=True)},
    XGBoost: {**_SHARED, "depth": Int(3, 10), "min_leaf_weight": Real(0.5, 50.0, log=True), "row_fraction": Real(0.5, 1.0)},
    Linear: {"l2": Real(1e-6, 1.0, log=True)},
    Net: {
        "learning_rate": Real(3e-4, 1e-2, log=True),
        "weight_decay": Real(1e-4, 0.1, log=True),
        "dropout": Real(0.0, 0.5),
        "hidden": Choice([(64, 32), (128, 64), (256, 128), (256, 128, 64)]),
    },
    Sklearn: {},
}
"""By kind of model, what is tuned where nothing else is said; a model is always searched for at the size of fit that it declares."""
_ROUNDS = {LightGBM: "trees", XGBoost: "trees", Net: "epochs"}


@dataclass(frozen=True, slots=True)
class Tunable:
    """A model and what may be changed in it. A setting with a single value is part of ``model``."""

    model: Model
    space: Space

    @property
    def steps(self) -> int | None:
        """The most rounds that a fit of it takes, where it is fitted in rounds."""
        name = _ROUNDS.get(type(self.model))
        if name is None:
            return None
        chosen = self.space.get(name)
        return chosen.high if isinstance(chosen, Int) else int(getattr(self.model, name))

    def with_settings(self, settings: Mapping[str, Any]) -> Model:
        """The model with such settings; an estimator of scikit-learn has its own."""
        if isinstance(self.model, Sklearn):
            return replace(self.model, settings=tuple({**dict(self.model.settings), **settings}.items()))
        return replace(self.model, **settings)


def tunable(model: Model, said: Sequence[str] = ()) -> Tunable:
    """What to tune in a model: the space of its kind, but for what is ``said``.

    Each is ``name=low..high``, ``name=low..high:log``, ``name=one|other|third``, or ``name=value``, which is then not searched for.

    Raises:
        DeclarationError: this is no such text, the model has no such setting, or nothing is left to tune.
    """
    space, fixed = dict(SPACES.get(type(model), {})), {}
    for text in said:
        name, chosen = _parsed(text)
        current = _current(model, name, text)
        if isinstance(chosen, Real) and isinstance(current, int) and all(isinstance(one, int) for one in (chosen.low, chosen.high)):
            chosen = Int(int(chosen.low), int(chosen.high), chosen.log)
        space.pop(name, None)
        if isinstance(chosen, Real | Int | Choice):
            space[name] = chosen
        else:
            fixed[name] = chosen
    if not space:
        raise DeclarationError(f"{type(model).__name__}: there is nothing to tune. Name a range: --set {_example(model)}.")
    return Tunable(Tunable(model, space).with_settings(fixed), space)


def line(model: Model) -> str:
    """The model as it is declared: what differs from the defaults of its kind."""
    named = []
    for field in fields(model):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if getattr(model, field.name) != default:
            named.append(f"{field.name}={getattr(model, field.name)!r}")
    return f"ms.{type(model).__name__}({', '.join(named)})"


def rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with numbers of four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in settings.items()}


def _parsed(text: str) -> tuple[str, Range | Any]:
    name, separator, rest = text.partition("=")
    if not separator or not name or not rest:
        raise DeclarationError(f"Tuning: '{text}' is no range. Write name=low..high, name=low..high:log, name=one|other, or name=value.")
    if "|" in rest:
        return name, Choice([_value(one) for one in rest.split("|")])
    if ".." not in rest:
        return name, _value(rest)
    low, _, high = rest.removesuffix(":log").partition("..")
    ends = [_value(low), _value(high)]
    if not all(isinstance(one, int | float) for one in ends):
        raise DeclarationError(f"Tuning: '{text}' is no range of numbers. Write for example learning_rate=0.01..0.3:log.")
    return name, Real(ends[0], ends[1], log=rest.endswith(":log"))


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _current(model: Model, name: str, text: str) -> Any:
    if isinstance(model, Sklearn):
        return dict(model.settings).get(name, 0)
    known = [field.name for field in fields(model) if field.name not in {one.name for one in fields(Model)}]
    if name not in known:
        raise DeclarationError(f"{type(model).__name__}, '{text}': it has no setting '{name}'.{did_you_mean(name, known)}")
    declared = getattr(model, name)
    return model.learner[1].get(name) if declared is None else declared


def _example(model: Model) -> str:
    return "max_depth=3..12" if isinstance(model, Sklearn) else "learning_rate=0.01..0.3:log"
