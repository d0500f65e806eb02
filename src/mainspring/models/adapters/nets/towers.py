"""Two towers for retrieval: users and items as vectors whose product scores a pair, learned from pairs that occurred."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import RegistryError, TrainingError
from mainspring.models.adapters.nets.attribution import integrated_gradients
from mainspring.models.adapters.nets.bodies import hidden_layers
from mainspring.models.adapters.nets.columns import LearnedColumns, Scaling
from mainspring.models.adapters.nets.fitting import Schedule, descend
from mainspring.models.adapters.nets.inputs import Inputs
from mainspring.models.adapters.nets.runtime import functional, in_blocks, nn, repeatable, torch
from mainspring.models.adapters.nets.storing import check_columns, read_body, read_net, to_files
from mainspring.models.adapters.nets.tables import fetch
from mainspring.models.large_tables import Lookup, OpenTables
from mainspring.models.protocol import Rows

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
KIND = "two towers"
EXPLAINED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class TwoTowerPredictor:
    """Both fitted towers; ``names`` are the columns of a pair, of which ``user`` and ``item`` are each tower's.

    ``tables`` is where their large tables are, None for in the net.
    """

    names: tuple[str, ...]
    user: LearnedColumns
    item: LearnedColumns
    shape: Mapping[str, Any]
    net: Any
    tables: Lookup | None = None

    @property
    def outputs(self) -> int:
        """One score a pair."""
        return 1

    def predict(self, x: Floats) -> Floats:
        """Scores of pairs, shape ``(n,)``: the cosine of user and item over the temperature; they rank, they are no probabilities."""
        users, items = self._vectors({"user": x[:, self._places(self.user)], "item": x[:, self._places(self.item)]})
        cosines: Floats = (users.astype(np.float64) * items).sum(axis=1)
        return cosines / float(self.shape["temperature"])

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``, to the bit: shape ``(1,)``."""
        return self.predict(x[None, :])

    def importance(self) -> dict[str, float]:
        """Empty: towers have no measure of their own."""
        return {}

    def users(self, x: Floats) -> Vectors:
        """Vectors of length 1, shape ``(n, dim)``, for the user tower's columns in the order of ``user.names``."""
        return self._vectors({"user": x})[0]

    def items(self, x: Floats) -> Vectors:
        """Vectors of length 1, shape ``(n, dim)``, for the item tower's columns in the order of ``item.names``."""
        return self._vectors({"item": x})[0]

    def contributions(self, x: Floats) -> Floats:
        """Integrated gradients of the score, shape ``(n, d + 1)``; the base is the score of an unknown user and an unknown item."""
        parts = [self._explained(x[start : start + EXPLAINED_AT_ONCE]) for start in range(0, max(len(x), 1), EXPLAINED_AT_ONCE)]
        return np.concatenate(parts)

    def to_artifacts(self) -> dict[str, bytes]:
        """``net.safetensors`` and ``net.json``."""
        body = {**self.shape, "names": list(self.names), "user": self.user.to_dict(), "item": self.item.to_dict()}
        return to_files(KIND, body, self.net)

    def _vectors(self, sides: Mapping[str, Floats]) -> list[Vectors]:
        rows = self._fetched({side: self._applied(side, x).astype(np.float32) for side, x in sides.items()})
        towers = ((self.net[side], one) for side, one in rows.items())
        return [np.asarray(in_blocks(lambda block, to=tower: _unit(to(block)), one).numpy(), dtype=np.float32) for tower, one in towers]

    def _applied(self, side: str, x: Floats) -> Floats:
        return (self.user if side == "user" else self.item).apply(x)

    def _fetched(self, sides: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of towers as tensors, with what their tables have of them fetched at once."""
        rows = {side: torch.from_numpy(x) for side, x in sides.items()}
        if self.tables is not None:
            fetch(self.tables, [(self.net[side][0], one) for side, one in rows.items()])
        return rows

    def _places(self, columns: LearnedColumns) -> list[int]:
        return [self.names.index(name) for name in columns.names]

    def _explained(self, x: Floats) -> Floats:
        applied = self._fetched({side: self._applied(side, x[:, self._places(getattr(self, side))]) for side in ("user", "item")})
        net = copy.deepcopy(self.net).double()
        towers = [net["user"], net["item"]]
        width = net["user"][0].width

        def score(z: Any) -> Any:
            users, items = _unit(net["user"][1:](z[:, :width])), _unit(net["item"][1:](z[:, width:]))
            return (users * items).sum(1, keepdim=True) / self.shape["temperature"]

        owners = np.zeros((width + net["item"][0].width, len(self.names)))
        owners[:width, self._places(self.user)] = net["user"][0].owners(self.user)
        owners[width:, self._places(self.item)] = net["item"][0].owners(self.item)
        with torch.no_grad():
            rows = list(zip(towers, applied.values(), strict=True))
            z = torch.cat([tower[0](row) for tower, row in rows], dim=1)
            baseline = torch.cat([tower[0](torch.zeros_like(row[:1])) for tower, row in rows], dim=1)[0]
            base = float(score(baseline[None, :]))
        shares = integrated_gradients(score, z, baseline)[:, 0, :] @ owners
        return np.column_stack([shares, np.full(len(x), base)])


@dataclass(frozen=True, slots=True)
class TwoTowerLearner:
    """Fits two towers to pairs that occurred: rows whose label is above 0, which also weighs them.

    Every other item of a batch serves as a negative, except where it is the same item. Popular items come into batches more often;
    the logarithm of each item's share of the training pairs (``item_id`` tells items apart) is taken off its score in the loss.
    Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", 2019; the share is counted
    over the training pairs, as they are all there, where the paper estimates it from a stream.
    """

    user: tuple[str, ...]
    item: tuple[str, ...]
    item_id: str
    dim: int = 32
    hidden: tuple[int, ...] = ()
    temperature: float = 0.1
    correct_popularity: bool = True
    schedule: Schedule = field(default_factory=Schedule)
    numbers: Scaling = "quantile"
    vector: int = 64

    def fit(
        self, rows: Rows, *, names: Sequence[str], categorical: Sequence[str], held_out: Rows | None, seed: int, threads: int
    ) -> TwoTowerPredictor:
        """Fit to pairs; the held-out loss is that of full batches of held-out pairs.

        Raises:
            TrainingError: a tower's column is not among ``names``, or fewer than two pairs have a label above 0.
        """
        pairs = self._pairs(rows, names)
        with repeatable(seed, threads):
            sides = [
                LearnedColumns.fit(pairs.x[:, _at(names, side)], side, [n for n in categorical if n in side], self.numbers)
                for side in (self.user, self.item)
            ]
            shape = {"dim": self.dim, "hidden": list(self.hidden), "temperature": self.temperature, "vector": self.vector}
            fitted = TwoTowerPredictor(tuple(names), sides[0], sides[1], shape, _build(shape, *sides))
            shares = self._shares(pairs, names)
            batch = self._loss(fitted, pairs, shares)
            held = None if held_out is None else self._held_out(fitted, self._pairs(held_out, names), shares)
            descend(fitted.net, batch, len(pairs), self.schedule, held)
        fitted.net.eval()
        return fitted

    def load(self, artifacts: Mapping[str, bytes], names: Sequence[str], tables: OpenTables | None = None) -> TwoTowerPredictor:
        """The towers that `TwoTowerPredictor.to_artifacts` wrote; ``tables`` as in `NetLearner.load`.

        Raises:
            RegistryError: the files are no such towers, were altered, or they were trained on other columns.
            StorageError: what holds their tables cannot be reached.
        """
        body = read_body(KIND, artifacts)
        try:
            user, item = LearnedColumns.from_dict(body["user"]), LearnedColumns.from_dict(body["item"])
            check_columns(tuple(body["names"]), tuple(names))
            shape = {name: body[name] for name in ("dim", "hidden", "temperature", "vector")}
            net, lookup = read_net(partial(_build, shape, user, item), artifacts, tables)
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"net.json: it does not describe towers of this version ({error}). Train them again.") from error
        return TwoTowerPredictor(tuple(names), user, item, shape, net, lookup)

    def _pairs(self, rows: Rows, names: Sequence[str]) -> Rows:
        unknown = {*self.user, *self.item, self.item_id} - set(names)
        occurred = rows.y > 0
        if unknown or occurred.sum() < 2:
            raise TrainingError(
                f"Two towers need the columns {', '.join(sorted(unknown)) or 'that they have'} and at least 2 pairs with a label above 0; "
                f"there are {int(occurred.sum())}. Name columns of the matrix, and label pairs that occurred with 1."
            )
        weight = rows.y if rows.weight is None else rows.y * rows.weight
        return Rows(rows.x[occurred], rows.y[occurred], weight[occurred] / weight[occurred].mean())

    def _shares(self, pairs: Rows, names: Sequence[str]) -> tuple[Floats, Floats]:
        ids, counts = np.unique(pairs.x[:, _at(names, [self.item_id])[0]], return_counts=True)
        return ids, np.log(counts / len(pairs))

    def _loss(self, fitted: TwoTowerPredictor, pairs: Rows, shares: tuple[Floats, Floats]) -> Any:
        users = torch.from_numpy(fitted.user.apply(pairs.x[:, _at(fitted.names, self.user)]).astype(np.float32))
        items = torch.from_numpy(fitted.item.apply(pairs.x[:, _at(fitted.names, self.item)]).astype(np.float32))
        numbers = pairs.x[:, fitted.names.index(self.item_id)]
        places = np.minimum(np.searchsorted(shares[0], numbers), len(shares[0]) - 1)
        popularity = np.where(shares[0][places] == numbers, shares[1][places], shares[1].min()) * self.correct_popularity
        logs, ids = torch.from_numpy(popularity.astype(np.float32)), torch.from_numpy(numbers)
        weight = torch.from_numpy(np.asarray(pairs.weight, dtype=np.float32))

        def loss(batch: Any) -> Any:
            scores = _unit(fitted.net["user"](users[batch])) @ _unit(fitted.net["item"](items[batch])).T / self.temperature
            same = (ids[batch][:, None] == ids[batch][None, :]) & ~torch.eye(len(batch), dtype=torch.bool)
            scores = (scores - logs[batch][None, :]).masked_fill(same, -torch.inf)
            return (functional.cross_entropy(scores, torch.arange(len(batch)), reduction="none") * weight[batch]).mean()

        return loss

    def _held_out(self, fitted: TwoTowerPredictor, pairs: Rows, shares: tuple[Floats, Floats]) -> Any:
        loss = self._loss(fitted, pairs, shares)
        batches = torch.arange(len(pairs)).tensor_split(max(1, len(pairs) // self.schedule.batch))
        return lambda: float(np.mean([loss(batch).item() for batch in batches]))


def _build(shape: Mapping[str, Any], user: LearnedColumns, item: LearnedColumns) -> Any:
    return nn.ModuleDict({"user": _tower(shape, user), "item": _tower(shape, item)})


def _tower(shape: Mapping[str, Any], columns: LearnedColumns) -> Any:
    inputs = Inputs(columns, shape["vector"])
    last = shape["hidden"][-1] if shape["hidden"] else inputs.deep
    return nn.Sequential(inputs, *hidden_layers(inputs.deep, tuple(shape["hidden"]), 0.0), nn.Linear(last, shape["dim"]))


def _unit(vectors: Any) -> Any:
    return functional.normalize(vectors, dim=1)


def _at(names: Sequence[str], chosen: Sequence[str]) -> list[int]:
    return [list(names).index(name) for name in chosen]
