"""Scores of free text, fitted by scikit-learn over sparse terms and kept as numbers: alone, or together with a linear model's columns."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import MissingExtraError, TrainingError
from mainspring.models.linear import LINKS, Design, Linear
from mainspring.models.protocol import Floats, Rows
from mainspring.models.text_scores import TextScores, Vocabulary

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Terms:
    """A column of texts as the terms of its vocabulary: ``matrix`` is sparse, of shape ``(n, terms)``; ``l2`` penalises their weights."""

    vocabulary: Vocabulary
    matrix: Any
    l2: float

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: npt.NDArray[Any], l2: float) -> Terms:
        """The terms of texts of shape ``(n,)``, None for null.

        Raises:
            MissingExtraError: scikit-learn, which brings SciPy, is not installed.
        """
        rows = [vocabulary.row(vocabulary.reading.tokens(text)) for text in texts.tolist()]
        ends = np.cumsum([0, *(len(numbers) for numbers, _, _ in rows)])
        columns, values = (np.concatenate([row[part] for row in rows] or [np.zeros(0)]) for part in (0, 2))
        return cls(vocabulary, _module("scipy.sparse").csr_matrix((values, columns, ends), shape=(len(rows), len(vocabulary))), l2)

    def scaled(self) -> Any:
        """The matrix in which a penalty of 1 is that of ``l2``."""
        return self.matrix / np.sqrt(self.l2)

    def scores(self, coefficients: Floats) -> TextScores:
        """What the terms are worth by the coefficients of the scaled matrix, shape ``(outputs, terms)``."""
        return TextScores(self.vocabulary, (coefficients.T / np.sqrt(self.l2)).astype(np.float32))


def fit_scores(task: str, terms: Terms, rows: Rows) -> TextScores:
    """Scores of the text alone, for labels and weights of ``rows``: by ridge regression, or logistic where classes are told apart.

    Raises:
        TrainingError: there is one class only.
    """
    coefficients, _ = _fit(task, terms.scaled(), rows.y, rows.weight)
    return terms.scores(coefficients)


def out_of_fold(task: str, terms: Terms, rows: Rows, texts: npt.NDArray[Any]) -> Floats:
    """For each row the score of its text by a fit to texts of other folds, shape ``(n, outputs)``; ``rows`` as in `fit_scores`.

    What learns from scores must not see those that its own labels made: they are surer than any that will come (Wolpert, "Stacked
    generalization", 1992). A text that comes several times is in one fold.
    """
    fold, scaled = _folds(terms, rows.y, texts), terms.scaled()
    if task != "regression":
        _every_class(rows.y, fold)
    parts: dict[int, Floats] = {}
    for number in range(FOLDS):
        other = fold != number
        coefficients, _ = _fit(task, scaled[other], rows.y[other], None if rows.weight is None else rows.weight[other])
        parts[number] = np.asarray(scaled[~other] @ coefficients.T, dtype=np.float64)
    found = np.zeros((len(rows), parts[0].shape[1]))
    for number, part in parts.items():
        found[fold == number] = part
    return found


def fit_linear(
    task: str, l2: float, rows: Rows, names: Sequence[str], categorical: Sequence[str], texts: Mapping[tuple[int, ...], Terms]
) -> tuple[Linear, list[TextScores]]:
    """A linear model over columns and terms together, and the scores of its texts, which it takes as they are.

    ``texts`` are keyed by the places of their scores in ``rows.x``, where they are 0. ``l2`` is the penalty on standardised columns,
    against the mean loss of a row.
    """
    sparse = _module("scipy.sparse")
    design = Design.of(rows.x, [list(names).index(name) for name in categorical])
    scale = 1 / np.sqrt(l2 * len(rows))
    blocks = [sparse.csr_matrix(design.apply(rows.x) * scale), *(terms.scaled() for terms in texts.values())]
    coefficients, bias = _fit(task, sparse.hstack(blocks, format="csr"), rows.y, rows.weight)
    own, *parts = np.split(coefficients, np.cumsum([block.shape[1] for block in blocks])[:-1], axis=1)
    weights, means, scores = own * scale, design.means.copy(), []
    for (places, terms), part in zip(texts.items(), parts, strict=True):
        scores.append(terms.scores(part))
        for output, place in enumerate(places):
            means[place] = (terms.matrix @ scores[-1].weights[:, output]).mean()
            weights[output, np.flatnonzero(design.sources == place)[0]] = 1.0
            bias[output] += means[place]
    return Linear(tuple(names), Design(means, design.scales, design.codes), weights, bias, LINKS[task]), scores


def _fit(task: str, x: Any, y: Floats, weight: Floats | None) -> tuple[Floats, Floats]:
    """Coefficients of shape ``(outputs, p)`` and biases, under a penalty of half their squares against the summed loss."""
    linear = _module("sklearn.linear_model")
    try:
        if task == "regression":
            model = linear.Ridge(alpha=1.0, solver="sparse_cg").fit(x, y, sample_weight=weight)
        else:
            model = linear.LogisticRegression(C=1.0, max_iter=1_000).fit(x, y, sample_weight=weight)
    except ValueError as error:
        raise TrainingError(f"Text({task}): {error}. Check the label.") from error
    return np.atleast_2d(model.coef_).astype(np.float64), np.atleast_1d(model.intercept_).astype(np.float64)


def _folds(terms: Terms, y: Floats, texts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The fold of each row: different texts in turn, those of one label after another, so that every fold has its share of each."""
    first: dict[str, int] = {}
    same = [first.setdefault(" ".join(terms.vocabulary.reading.tokens(text)), row) for row, text in enumerate(texts.tolist())]
    different = np.array(sorted(set(same), key=lambda row: (y[row], row)))
    fold = np.zeros(len(same), dtype=np.int64)
    fold[different] = np.arange(len(different)) % FOLDS
    return fold[same]


def _every_class(y: Floats, fold: npt.NDArray[np.int64]) -> None:
    for label in np.unique(y).tolist():
        if len(set(fold[y == label].tolist())) < 2:
            count = Counter(y.tolist())[label]
            raise TrainingError(f"Text: class {label:g} has {count} rows with too few different texts to score them apart. Give more.")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("Learning from free text", "scikit-learn", "sklearn") from error
