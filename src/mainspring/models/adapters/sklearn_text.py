"""Scores of free text, fitted by scikit-learn over sparse terms and kept as numbers: alone, or together with a linear model's columns."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """A column of texts as the terms of its vocabulary: ``matrix`` is sparse, of shape ``(n, terms)``; ``l2`` penalises their weights.

    ``ratio`` is how far the penalty of a term follows what the term tells of the classes, see `scale`.
    """

    vocabulary: Vocabulary
    matrix: Any
    l2: float
    ratio: float

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: npt.NDArray[Any], l2: float, ratio: float) -> Terms:
        """The terms of texts of shape ``(n,)``, None for null.

        Raises:
            MissingExtraError: scikit-learn, which brings SciPy, is not installed.
        """
        rows = [vocabulary.row(vocabulary.reading.tokens(text)) for text in texts.tolist()]
        ends = np.cumsum([0, *(len(numbers) for numbers, _, _ in rows)])
        columns, values = (np.concatenate([row[part] for row in rows] or [np.zeros(0)]) for part in (0, 2))
        matrix = _module("scipy.sparse").csr_matrix((values, columns, ends), shape=(len(rows), len(vocabulary)))
        return cls(vocabulary, matrix, l2, ratio)

    def of_rows(self, chosen: npt.NDArray[np.bool_]) -> Terms:
        """The terms of some of the texts."""
        return replace(self, matrix=self.matrix[chosen])

    def scale(self, task: str, rows: Rows) -> Floats:
        """What each term is multiplied by, shape ``(terms,)``, so that a penalty of 1 is the one that it shall have.

        That is ``l2`` for numbers. Of classes the share ``ratio`` of the factor is the term's log-count ratio over the mean of its kind,
        words or pieces, so that terms which tell classes apart are held back less. Of several classes it is the root mean square of theirs,
        each against the rest. Source: Wang and Manning, "Baselines and bigrams", 2012, who mix weights, not ratios, with their mean.
        """
        factor = np.ones(len(self.vocabulary))
        if task != "regression":
            for kind in (slice(len(self.vocabulary.words)), slice(len(self.vocabulary.words), None)):
                told = _told(self.matrix[:, kind], rows)
                factor[kind] += self.ratio * (told / (told.mean() if told.any() else 1.0) - 1)
        return np.asarray(factor / np.sqrt(self.l2))

    def scaled(self, scale: Floats) -> Any:
        """The matrix, each term multiplied by its scale."""
        return self.matrix.multiply(scale).tocsr()

    def scores(self, coefficients: Floats, scale: Floats) -> TextScores:
        """What the terms are worth by the coefficients of the scaled matrix, shape ``(outputs, terms)``."""
        return TextScores(self.vocabulary, (coefficients * scale).T.astype(np.float32))


def fit_scores(task: str, terms: Terms, rows: Rows) -> TextScores:
    """Scores of the text alone, for labels and weights of ``rows``: by ridge regression, or logistic where classes are told apart.

    Raises:
        TrainingError: there is one class only.
    """
    scale = terms.scale(task, rows)
    coefficients, _ = _fit(task, terms.scaled(scale), rows.y, rows.weight)
    return terms.scores(coefficients, scale)


def out_of_fold(task: str, terms: Terms, rows: Rows, texts: npt.NDArray[Any]) -> Floats:
    """For each row the score of its text by a fit to texts of other folds, shape ``(n, outputs)``; ``rows`` as in `fit_scores`.

    What learns from scores must not see those that its own labels made: they are surer than any that will come (Wolpert, "Stacked
    generalization", 1992). A text that comes several times is in one fold.
    """
    fold = _folds(terms, rows.y, texts)
    if task != "regression":
        _every_class(rows.y, fold)
    parts: dict[int, Floats] = {}
    for number in range(FOLDS):
        other = fold != number
        learned = Rows(rows.x[other], rows.y[other], None if rows.weight is None else rows.weight[other])
        parts[number] = terms.matrix[~other] @ fit_scores(task, terms.of_rows(other), learned).weights
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
    scale, scales = 1 / np.sqrt(l2 * len(rows)), [terms.scale(task, rows) for terms in texts.values()]
    scaled = map(Terms.scaled, texts.values(), scales)
    blocks = [sparse.csr_matrix(design.apply(rows.x) * scale), *scaled]
    coefficients, bias = _fit(task, sparse.hstack(blocks, format="csr"), rows.y, rows.weight)
    own, *parts = np.split(coefficients, np.cumsum([block.shape[1] for block in blocks])[:-1], axis=1)
    weights, means, scores = own * scale, design.means.copy(), []
    for (places, terms), part, factor in zip(texts.items(), parts, scales, strict=True):
        scores.append(terms.scores(part, factor))
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


def _told(matrix: Any, rows: Rows) -> Floats:
    """How much each term tells of the classes, shape ``(terms,)``: the log of its share of a class's terms over that of all others'.

    A text counts a term once, by its weight, and every count begins at 1.
    """
    weight = np.ones(len(rows)) if rows.weight is None else rows.weight
    inside = matrix.astype(bool).T @ ((rows.y[:, None] == np.unique(rows.y)) * weight[:, None]) + 1
    outside = (inside - 1).sum(axis=1, keepdims=True) - inside + 2
    ratios = np.log(inside / inside.sum(axis=0)) - np.log(outside / outside.sum(axis=0))
    return np.asarray(np.sqrt((ratios * ratios).mean(axis=1)))


def _folds(terms: Terms, y: Floats, texts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The fold of each row: different texts in turn, those of one label after another, so that every fold has its share of each."""
    first: dict[str, int] = {}
    reading = terms.vocabulary.reading
    same = [first.setdefault(" ".join(reading.words_of(reading.tokens(text))), row) for row, text in enumerate(texts.tolist())]
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
