"""Free text on its way into a model: weights of terms learned with the other columns, or scores learned apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mainspring.columns import Array
from mainspring.models.adapters.sklearn_text import Terms, fit_linear, fit_scores, out_of_fold
from mainspring.models.encoding import Encoder
from mainspring.models.linear import Linear
from mainspring.models.protocol import Floats
from mainspring.models.reading import Reading
from mainspring.models.text_scores import TextScores, Vocabulary
from mainspring.spec import Model, Text
from mainspring.training.examples import Examples


def fit_jointly(spec: Model, names: list[str], lesson: Examples) -> tuple[Encoder, Linear]:
    """A linear model over all columns and the terms of the texts.

    Raises:
        TrainingError: it cannot be fitted to such labels.
        MissingExtraError: scikit-learn is not installed.
    """
    terms = {text.column: _terms(text, lesson.columns) for text in spec.text}
    outputs = int(lesson.label.max()) + 1 if spec.task == "multiclass" else 1
    unscored = {name: TextScores(one.vocabulary, np.zeros((len(one.vocabulary), outputs), dtype=np.float32)) for name, one in terms.items()}
    encoder = Encoder.fit(lesson.columns, names, unscored)
    x = encoder.transform(lesson.columns, dict.fromkeys(terms, np.zeros((len(lesson), outputs))))
    places = {tuple(map(encoder.columns.index, encoder.spread(name))): one for name, one in terms.items()}
    settings = spec.learner[1]
    linear, scores = fit_linear(settings["task"], settings["l2"], lesson.rows(x), encoder.columns, encoder.categorical, places)
    return replace(encoder, texts=dict(zip(terms, scores, strict=True))), linear


def fit_apart(spec: Model, lesson: Examples) -> tuple[dict[str, TextScores], dict[str, Floats]]:
    """The scores of each text, and for each row those of shape ``(n, outputs)`` by a fit that knew neither its text nor its label.

    Raises:
        TrainingError: a class has too few different texts.
        MissingExtraError: scikit-learn is not installed.
    """
    terms, rows = {text.column: _terms(text, lesson.columns) for text in spec.text}, lesson.rows(np.zeros((len(lesson), 0)))
    apart = {name: out_of_fold(spec.task, one, rows, lesson.columns[name]) for name, one in terms.items()}
    return {name: fit_scores(spec.task, one, rows) for name, one in terms.items()}, apart


def _terms(text: Text, columns: Mapping[str, Array]) -> Terms:
    texts = columns[text.column]
    vocabulary = Vocabulary.fit(Reading.from_dict(text.reading), texts.tolist(), text.terms)
    return Terms.of(vocabulary, texts, text.l2, text.ratio)
