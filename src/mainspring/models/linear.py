"""Linear and logistic models: columns standardised, categories as indicators, a null as the mean and an indicator of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.errors import RegistryError
from mainspring.models.protocol import Floats

MODEL = "model.linear.json"
LINKS = {"regression": "identity", "binary": "logistic", "multiclass": "softmax"}


@dataclass(frozen=True, slots=True)
class Design:
    """How a matrix of shape ``(n, d)`` becomes the columns of a linear model.

    ``means`` and ``scales`` of shape ``(d,)`` are those of the numbers; ``codes`` gives each categorical column's number of codes, 0 for a
    number. A column of numbers gives its standardised value and whether it is missing, a categorical one an indicator per code.
    """

    means: Floats
    scales: Floats
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, x: Floats, categorical: Sequence[int]) -> Design:
        """The design for such a matrix; ``categorical`` are the places of its columns of codes."""
        some = (~np.isnan(x)).any(axis=0)
        means, scales = np.zeros(x.shape[1]), np.ones(x.shape[1])
        means[some], scales[some] = np.nanmean(x[:, some], axis=0), np.nanstd(x[:, some], axis=0)
        codes = np.zeros(x.shape[1], dtype=np.int64)
        for place in categorical:
            codes[place] = int(np.nanmax(x[:, place])) + 1 if np.isfinite(x[:, place]).any() else 1
        return cls(means, np.where(scales > 0, scales, 1.0), codes)

    @property
    def sources(self) -> npt.NDArray[np.int64]:
        """Which column of the matrix each column of the design comes from."""
        return np.concatenate([np.full(count or 2, place) for place, count in enumerate(self.codes.tolist())])

    def apply(self, x: Floats) -> Floats:
        """The design of shape ``(n, p)``."""
        columns = []
        for place, count in enumerate(self.codes.tolist()):
            column = x[:, place]
            missing = np.isnan(column)
            if count:
                columns.append(np.where(missing, -1.0, column)[:, None] == np.arange(count))
            else:
                standard = np.where(missing, 0.0, (column - self.means[place]) / self.scales[place])
                columns.append(np.column_stack([standard, missing]))
        return np.concatenate(columns, axis=1).astype(np.float64)


@dataclass(frozen=True)
class Linear:
    """A fitted linear model: ``weights`` of shape ``(outputs, p)`` over the design, ``bias`` of shape ``(outputs,)``.

    ``link`` is ``identity``, ``logistic`` (one output: the probability of the second class) or ``softmax``.
    """

    names: tuple[str, ...]
    design: Design
    weights: Floats
    bias: Floats
    link: str

    @property
    def outputs(self) -> int:
        """How many numbers it gives a row."""
        return len(self.bias)

    def predict(self, x: Floats) -> Floats:
        """Values or probabilities of shape ``(n,)``, or ``(n, outputs)`` of several classes, for ``x`` of shape ``(n, d)``."""
        parts = self.design.apply(x)
        scores = (
            np.column_stack([(parts * weights).sum(axis=1) for weights in self.weights]) + self.bias
        )  # not "@": a row alone, to the bit
        if self.link == "softmax":
            raised = np.exp(scores - scores.max(axis=1, keepdims=True))
            return np.asarray(raised / raised.sum(axis=1, keepdims=True))
        return np.asarray(0.5 * (1 + np.tanh(scores / 2)) if self.link == "logistic" else scores)[:, 0]

    def predict_row(self, x: Floats) -> Floats:
        """What `predict` gives for one row of shape ``(d,)``: shape ``(outputs,)``."""
        return self.predict(x[None, :]).reshape(self.outputs)

    def contributions(self, x: Floats) -> Floats:
        """What each column adds to the score before the link against the mean row, of shape ``(n, d + 1)`` or ``(n, outputs, d + 1)``.

        The last is the bias: a standardised number is 0 at its mean.
        """
        parts = self.design.apply(x)[:, None, :] * self.weights
        values = np.zeros((len(x), self.outputs, len(self.names) + 1))
        for column, source in enumerate(self.design.sources.tolist()):
            values[:, :, source] += parts[:, :, column]
        values[:, :, -1] += self.bias
        return values[:, 0] if self.outputs == 1 else values

    def importance(self) -> dict[str, float]:
        """The sum of the absolute weights per column."""
        sums = np.bincount(self.design.sources, np.abs(self.weights).sum(axis=0), len(self.names))
        return dict(zip(self.names, sums.tolist(), strict=True))

    def to_artifacts(self) -> dict[str, bytes]:
        """The model as JSON."""
        body = {
            "means": self.design.means.tolist(),
            "scales": self.design.scales.tolist(),
            "codes": self.design.codes.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
            "link": self.link,
        }
        return {MODEL: json.dumps(body).encode()}


def load_linear(artifacts: Mapping[str, bytes], names: Sequence[str]) -> Linear:
    """The model in ``model.linear.json``.

    Raises:
        RegistryError: it is no such model, or one for another number of columns.
    """
    try:
        body = json.loads(artifacts[MODEL])
        numbers = [np.array(body[name], dtype=np.float64) for name in ("means", "scales", "weights", "bias")]
        design = Design(numbers[0], numbers[1], np.array(body["codes"], dtype=np.int64))
        model = Linear(tuple(names), design, numbers[2], numbers[3], body["link"])
    except (KeyError, ValueError, TypeError) as error:
        raise RegistryError("Model text: this is not a whole linear model. Register the version again from its training run.") from error
    if len(design.codes) != len(names):
        raise RegistryError(f"Model text: it has {len(design.codes)} features, {len(names)} are declared. It belongs to another system.")
    return model
