"""What a model learns from, and what its learner is given of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.models.encoding import Encoder
from mainspring.models.protocol import Floats, Rows
from mainspring.models.tabular import offset_of
from mainspring.spec import Model


@dataclass(frozen=True, slots=True)
class Examples:
    """Columns of shape ``(n,)`` by name, and labels, weights and query numbers as in `Rows`."""

    columns: Mapping[str, Array]
    label: Floats
    weight: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, x: Floats) -> Rows:
        """The same with the matrix ``x`` for columns."""
        return Rows(x, self.label, self.weight, self.groups)


def offsets_of(spec: Model, examples: Examples) -> Floats:
    """The offset of each example, of shape ``(n,)``; 0 where none is declared."""
    return np.zeros(len(examples)) if spec.offset is None else offset_of(examples.columns[spec.offset])


def corrected(spec: Model, examples: Examples) -> Examples:
    """The examples with what is to be predicted of them: their labels less the offset."""
    return replace(examples, label=examples.label - offsets_of(spec, examples))


def taught(spec: Model, examples: Examples) -> Examples:
    """The examples that the learner of ``spec`` is fitted to: `corrected`, thinned and balanced as it declares."""
    thinned = _thinned(examples, spec.negatives, spec.seed) if spec.task == "binary" else examples
    lesson = corrected(spec, thinned)
    return _balanced(lesson) if spec.balanced else lesson


def encoded(encoder: Encoder, examples: Examples) -> Rows:
    """The examples as a matrix."""
    return examples.rows(encoder.transform(examples.columns))


def _thinned(examples: Examples, share: float, seed: int) -> Examples:
    """The examples with about ``share`` of the negatives."""
    if share == 1:
        return examples
    kept = (examples.label > 0) | (np.random.default_rng(seed).random(len(examples)) < share)
    columns = {name: column[kept] for name, column in examples.columns.items()}
    return Examples(columns, examples.label[kept], None if examples.weight is None else examples.weight[kept])


def _balanced(examples: Examples) -> Examples:
    """The examples with weights under which all classes weigh the same, and an example 1 on average."""
    weight = np.ones(len(examples)) if examples.weight is None else examples.weight
    classes = examples.label.astype(np.int64)
    shares = np.bincount(classes, weight) / weight.sum()
    scaled = weight / (shares[classes] * np.count_nonzero(shares))
    return replace(examples, weight=scaled * weight.sum() / scaled.sum())
