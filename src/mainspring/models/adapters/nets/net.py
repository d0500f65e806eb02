"""Nets over encoded columns, behind the same seam as trees: fit, predict, explain, store, and go on from a fitted one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError, RegistryError, TrainingError, did_you_mean
from mainspring.models.adapters.nets.attribution import integrated_gradients
from mainspring.models.adapters.nets.bodies import Body, Mlp, WideAndDeep, outputs_of
from mainspring.models.adapters.nets.columns import LearnedColumns, Scaling
from mainspring.models.adapters.nets.fitting import Schedule, descend
from mainspring.models.adapters.nets.multitask import Mmoe, SharedBottom
from mainspring.models.adapters.nets.objectives import (
    Task,
    learn_tasks,
    mean_loss,
    predictions,
    raw_scores,
    targets,
    tasks_from_list,
    tasks_to_list,
)
from mainspring.models.adapters.nets.runtime import in_blocks, nn, repeatable, torch
from mainspring.models.adapters.nets.storing import check_columns, read_body, read_net, to_files
from mainspring.models.adapters.nets.tables import fetch
from mainspring.models.large_tables import Lookup, OpenTables
from mainspring.models.protocol import Rows, Watch

Floats = npt.NDArray[np.float64]
KIND = "tabular net"
BODIES: Mapping[str, type[Any]] = {one.__name__: one for one in (Mlp, WideAndDeep, SharedBottom, Mmoe)}
AT_ONCE = 8_192
EXPLAINED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class NetPredictor:
    """A fitted net with what it learned of its columns and labels; ``tables`` is where its large tables are, None for in the net."""

    columns: LearnedColumns
    body: Body
    vector: int
    tasks: tuple[Task, ...]
    net: Any
    tables: Lookup | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of its matrix, in order."""
        return self.columns.names

    @property
    def outputs(self) -> int:
        """One number a task, or one a class."""
        return outputs_of(self.tasks)

    def predict(self, x: Floats) -> Floats:
        """Values, probabilities or quantiles of shape ``(n,)``, or ``(n, outputs)``."""
        return predictions(self.tasks, self.raw(x))

    def raw(self, x: Floats) -> Floats:
        """Raw scores of shape ``(n, outputs)``: before the link, in the label's unit where there is none."""
        return np.asarray(raw_scores(self.tasks, in_blocks(self.net, self._fetched(_tensor(self.columns, x)))).numpy(), dtype=np.float64)

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``, to the bit: shape ``(outputs,)``."""
        return self.predict(x[None, :]).reshape(-1)

    def importance(self) -> dict[str, float]:
        """Empty: a net has no measure of its own."""
        return {}

    def contributions(self, x: Floats) -> Floats:
        """Integrated gradients of the raw scores, ``(n, d + 1)`` or ``(n, outputs, d + 1)``; the last is the base.

        The base is the score of a row with every number at its training middle and every category unknown; a missing number's part
        includes its indicator's. Computed in float64, so that a row's sum differs from its float32 raw score by rounding.
        """
        parts = [self._explained(part) for part in _chunks(x, EXPLAINED_AT_ONCE)]
        whole = np.concatenate(parts)
        return whole[:, 0, :] if self.outputs == 1 else whole

    def to_artifacts(self) -> dict[str, bytes]:
        """``net.safetensors`` and ``net.json``."""
        shape = {"body": {"kind": type(self.body).__name__, **asdict(self.body)}, "vector": self.vector}  # type: ignore[call-overload]
        return to_files(KIND, {**shape, "columns": self.columns.to_dict(), "tasks": tasks_to_list(self.tasks)}, self.net)

    def _fetched(self, rows: Any) -> Any:
        if self.tables is not None:
            fetch(self.tables, [(self.net[0], rows)])
        return rows

    def _explained(self, x: Floats) -> Floats:
        row = self._fetched(torch.from_numpy(self.columns.apply(x)))
        net = copy.deepcopy(self.net).double()
        inputs, rest = net[0], net[1:]
        with torch.no_grad():
            z, baseline = inputs(row), inputs(torch.zeros_like(row[:1]))[0]
            base = raw_scores(self.tasks, rest(baseline[None, :])).numpy()
        shares = integrated_gradients(lambda at: raw_scores(self.tasks, rest(at)), z, baseline)
        shares = shares @ inputs.owners(self.columns)
        return np.concatenate([shares, np.broadcast_to(base[:, :, None], (*shares.shape[:2], 1))], axis=2)


@dataclass(frozen=True, slots=True)
class NetLearner:
    """Fits a net of shape ``body`` to ``tasks``, one for each label column.

    ``vector`` is the longest vector a category gets, ``numbers`` how numbers are scaled (see `NumberColumn`). With one thread, the same
    call on the same machine gives the same bits.
    """

    body: Body = field(default_factory=Mlp)
    tasks: tuple[Task, ...] = (Task("regression"),)
    schedule: Schedule = field(default_factory=Schedule)
    numbers: Scaling = "quantile"
    vector: int = 16

    def __post_init__(self) -> None:
        if self.numbers not in get_args(Scaling):
            raise DeclarationError(f"A net's scaling '{self.numbers}' is not known.{did_you_mean(self.numbers, get_args(Scaling))}")

    def fit(
        self, rows: Rows, *, names: Sequence[str], categorical: Sequence[str], held_out: Rows | None, seed: int, threads: int,
        start: NetPredictor | None = None, watch: Watch | None = None,
    ) -> NetPredictor:  # fmt: skip
        """Fit to rows, ``watch`` after each epoch, or go on from ``start`` with its scales, categories and weights (fine-tuning).

        A label that is NaN counts for nothing in its task.

        Raises:
            TrainingError: rows, labels and names disagree, the loss is not finite, or ``start`` is a net of another shape.
        """
        with repeatable(seed, threads):
            fresh = self.prepare(rows, names, categorical, start)
            x, target = _tensor(fresh.columns, rows.x), _target(rows)
            descend(
                fresh.net,
                lambda batch: mean_loss(fresh.tasks, fresh.net(x[batch]), target[batch]),
                len(rows),
                self.schedule,
                None if held_out is None else _judged(fresh, held_out, watch),
            )
        fresh.net.eval()
        return fresh

    def prepare(self, rows: Rows, names: Sequence[str], categorical: Sequence[str], start: NetPredictor | None = None) -> NetPredictor:
        """The net before its first step, with what it learned of columns and labels; randomness comes from torch's generator."""
        if start is not None:
            return self._continued(start, names)
        columns = LearnedColumns.fit(rows.x, names, categorical, self.numbers)
        labels = targets(rows.y, rows.weight)
        tasks = learn_tasks(self.tasks, labels[:, :-1], labels[:, -1])
        return NetPredictor(columns, self.body, self.vector, tasks, build(self.body, columns, self.vector, tasks))

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str], tables: OpenTables | None = None) -> NetPredictor:
        """The net that `NetPredictor.to_artifacts` wrote; with ``tables`` its large tables stay where they are held.

        Such a net answers and explains; it can be neither stored nor fitted nor exported.

        Raises:
            RegistryError: the files are no such net, were altered, or it was trained on other columns.
            StorageError: what holds its tables cannot be reached.
        """
        body = read_body(KIND, artifacts)
        try:
            columns, tasks = LearnedColumns.from_dict(body["columns"]), tasks_from_list(body["tasks"])
            shape = _body_from_dict(body["body"])
            check_columns(columns.names, tuple(names))
            net, lookup = read_net(partial(build, shape, columns, body["vector"], tasks), artifacts, tables)
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"net.json: it does not describe a net of this version ({error}). Train it again.") from error
        return NetPredictor(columns, shape, body["vector"], tasks, net, lookup)

    def _continued(self, start: NetPredictor, names: Sequence[str]) -> NetPredictor:
        kinds = [(task.kind, task.level) for task in self.tasks]
        if (
            start.names != tuple(names)
            or (start.body, start.vector) != (self.body, self.vector)
            or kinds != [(t.kind, t.level) for t in start.tasks]
        ):
            raise TrainingError("A net cannot go on from one with other columns, shape or tasks. Fit it without 'start'.")
        return NetPredictor(start.columns, start.body, start.vector, start.tasks, copy.deepcopy(start.net))


def build(body: Body, columns: LearnedColumns, vector: int, tasks: tuple[Task, ...]) -> Any:
    """The net as one row of layers, the inputs first."""
    return nn.Sequential(*body.layers(columns, vector, tasks))


def _tensor(columns: LearnedColumns, x: Floats) -> Any:
    return torch.from_numpy(columns.apply(x).astype(np.float32))


def _target(rows: Rows) -> Any:
    return torch.from_numpy(targets(rows.y, rows.weight))


def _judged(fitted: NetPredictor, rows: Rows, watch: Watch | None) -> Callable[[], float]:
    """The loss on held-out rows, whenever it is asked for, which is after each epoch."""
    x, target, epochs = _tensor(fitted.columns, rows.x), _target(rows), itertools.count(1)

    def loss() -> float:
        if watch is not None:
            watch(next(epochs), fitted.predict(rows.x))
        return _loss_of(fitted, x, target)

    return loss


def _loss_of(fitted: NetPredictor, x: Any, target: Any) -> float:
    parts = [
        (len(a), mean_loss(fitted.tasks, fitted.net(a), b).item()) for a, b in zip(x.split(AT_ONCE), target.split(AT_ONCE), strict=True)
    ]
    return float(sum(n * loss for n, loss in parts) / len(x))


def _chunks(x: Floats, rows: int) -> list[Floats]:
    return [x[start : start + rows] for start in range(0, max(len(x), 1), rows)]


def _body_from_dict(body: Mapping[str, Any]) -> Any:
    settings = {name: _tuples(value) for name, value in body.items() if name != "kind"}
    return BODIES[body["kind"]](**settings)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def declared_net(
    *, shape: str, objective: str, hidden: Sequence[int], crosses: Sequence[Sequence[str]], level: float, classes: int, dropout: float,
    epochs: int, batch: int, learning_rate: float, weight_decay: float, patience: int,
) -> NetLearner:  # fmt: skip
    """The learner that a declared `mainspring.spec.Net` names: ``shape`` is ``mlp`` or ``wide_and_deep``."""
    layers = tuple(hidden)
    body = Mlp(layers, dropout) if shape == "mlp" else WideAndDeep(layers, tuple((one, other) for one, other in crosses), dropout)
    kind = {"regression_l1": "l1"}.get(objective, objective)
    schedule = Schedule(epochs=epochs, batch=batch, learning_rate=learning_rate, weight_decay=weight_decay, patience=patience)
    return NetLearner(body, (Task(kind, level=level, classes=classes),), schedule)  # type: ignore[arg-type]
