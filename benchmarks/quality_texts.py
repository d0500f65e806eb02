"""Three sets of texts, of which nothing is ever printed."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import QUICK
from quality_lines import Floats, Line, measure
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union

import mainspring as ms
from mainspring.columns import to_array
from mainspring.metrics import accuracy, f1, macro_f1
from mainspring.schema import Type
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

FOLDS = 1 if QUICK else 5
PLAIN = "scikit-learn's TF-IDF of 1-2 words and of 2-5 characters, logistic regression with balanced classes"
Objects = npt.NDArray[np.object_]
Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class TextSet:
    """A file of texts with the columns of text and label, the classes in order, and how it is judged.

    ``sides`` is a column that says ``train`` or ``test``; without one there are five folds.
    """

    name: str
    file: str
    text: str
    label: str
    classes: tuple[str, ...]
    measure: str
    statistic: Callable[..., float]
    floor: float
    sides: str | None = None


def f1_at_half(score: Floats, truth: Floats) -> float:
    """F1 of the rows that are more probable than not."""
    return f1(score, truth, threshold=0.5)


SETS = (
    TextSet("SMS spam", "sms-spam/sms.csv.gz", "text", "label", ("ham", "spam"), "F1", f1_at_half, 0.969),
    TextSet(
        *("Stormfront hate speech", "stormfront-hate/sentences.csv.gz", "text", "label", ("noHate", "hate")),
        *("accuracy", accuracy, 0.791, "sampled_split"),
    ),
    TextSet(
        *("Hate speech and offence in tweets", "davidson-hate/labeled_data.csv.gz", "tweet", "class", ("0", "1", "2")),
        *("macro-F1", macro_f1, 0.747),
    ),
)


def lines(data: Path, threads: int) -> list[Line]:
    """SMS, forum and tweets; a short run has one fold of the first, and no tweets."""
    return [_line(data, one, threads) for one in (SETS[:2] if QUICK else SETS)]


def _line(data: Path, one: TextSet, threads: int) -> Line:
    with gzip.open(data / one.file, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if one.sides is None or row[one.sides]]
    body = to_array([row[one.text] for row in rows], Type.STR)
    label = np.array([one.classes.index(row[one.label]) for row in rows])
    folds, protocol = list(StratifiedKFold(5, shuffle=True, random_state=0).split(label, label))[:FOLDS], "5 stratified folds, seed 0"
    if one.sides is not None:
        test = np.array([row[one.sides] == "test" for row in rows])
        folds, protocol = [(np.flatnonzero(~test), np.flatnonzero(test))], "the authors' balanced split"
    objective = "binary" if len(one.classes) == 2 else "multiclass"
    said, truth = _folded(body, label, folds, objective, threads)
    run = f'`Linear(objective="{objective}", balanced=True, text=[Text("{one.text}")])`; {protocol}'
    return Line(one.name, run, PLAIN, [measure(one.measure, "", one.statistic, said, [truth], floor=one.floor)])


def _folded(body: Objects, label: npt.NDArray[np.int64], folds: list[Fold], objective: str, threads: int) -> tuple[Any, Floats]:
    """What our model and the plain one say of all judged rows, fold after fold, and their truth."""
    spec = ms.Linear(objective=objective, balanced=True, text=[ms.Text("body")])
    said: dict[str, list[Floats]] = {"ours": [], "plain": []}
    for learned, judged in folds:
        examples = Examples({"body": body[learned]}, label[learned].astype(np.float64))
        said["ours"].append(fit_model(spec, ["body"], examples, examples, threads=threads).predict({"body": body[judged]}))
        words, pieces = TfidfVectorizer(ngram_range=(1, 2)), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
        plain = make_pipeline(make_union(words, pieces), LogisticRegression(class_weight="balanced", max_iter=1_000))
        shares = plain.fit(body[learned], label[learned]).predict_proba(body[judged])
        said["plain"].append(shares[:, 1] if objective == "binary" else shares)
    truth = np.concatenate([label[judged] for _, judged in folds])
    return tuple(np.concatenate(said[side]) for side in ("ours", "plain")), truth.astype(np.float64)
