"""LightGBM's ranking example, and three sets of texts, of which nothing is ever printed."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from harness import QUICK
from quality_lines import Floats, Line, Measure, measure
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union

import mainspring as ms
from mainspring.columns import to_array
from mainspring.metrics import accuracy, f1, macro_f1, ndcg
from mainspring.metrics.resampling import bootstrap_interval
from mainspring.schema import Type
from mainspring.training.fitting import Examples, fit_model

SEEDS, FOLDS = (1, 1) if QUICK else (5, 5)
PLAIN_TEXT = "scikit-learn's TF-IDF of 1-2 words and of 2-5 characters, logistic regression with balanced classes"
Objects = npt.NDArray[np.object_]
Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def lines(data: Path, threads: int) -> list[Line]:
    """The ranking example and the sets of texts; a short run has one seed and one fold, and not the largest set."""
    return [_ranking(data / "lightgbm-rank-example", threads), *_texts(data, threads)]


def _ranking(folder: Path, threads: int) -> Line:
    train, test = (_queries(folder / f"{side}.parquet") for side in ("train", "test"))
    names = list(train.columns)
    asked, groups = np.column_stack([test.columns[name] for name in names]), test.groups
    assert train.groups is not None
    assert groups is not None
    by_query: dict[str, list[Floats]] = {"ours": [], "plain": []}
    for seed in range(SEEDS):
        model = fit_model(ms.LightGBM(objective="lambdarank", seed=seed), names, train, train, threads=threads)
        by_query["ours"].append(ndcg(model.predict(test.columns), test.label, groups, k=10))
        plain = lightgbm.LGBMRanker(random_state=seed, n_jobs=threads, verbosity=-1)
        plain.fit(np.column_stack([train.columns[name] for name in names]), train.label, group=np.bincount(train.groups))
        by_query["plain"].append(ndcg(np.asarray(plain.predict(asked)), test.label, groups, k=10))
    ours, plain_ndcg = (np.nanmean(by_query[side], axis=0) for side in ("ours", "plain"))
    known = ours[~np.isnan(ours)]
    interval = bootstrap_interval(lambda values: float(values.mean()), [known], rng=np.random.default_rng(0))
    return Line(
        "LightGBM's ranking example",
        f'`LightGBM(objective="lambdarank")`, mean of seeds 0 to {SEEDS - 1}; the given training and test queries',
        "LightGBM's ranker at its own defaults, on the same matrix",
        [Measure("NDCG@10", "", float(known.mean()), interval, float(np.nanmean(plain_ndcg)), 0.736)],
    )


def _queries(path: Path) -> Examples:
    table = pq.read_table(path)
    features = [name for name in table.column_names if name not in ("label", "qid")]
    columns = {name: table.column(name).to_numpy().astype(np.float64) for name in features}
    query = np.unique(table.column("qid").to_numpy(), return_inverse=True)[1].astype(np.int64)
    return Examples(columns, table.column("label").to_numpy().astype(np.float64), groups=query)


def _texts(data: Path, threads: int) -> Iterator[Line]:
    run = '`Linear(objective="{}", balanced=True, text=[Text("body")])`; {}'
    spam = _read(data / "sms-spam" / "sms.csv.gz")
    body, label = _column(spam, "text"), np.array([row["label"] == "spam" for row in spam], dtype=np.int64)
    said, truth = _folded(body, label, _stratified(label), "binary", threads)
    by_folds = "5 stratified folds, seed 0"
    yield Line("SMS spam", run.format("binary", by_folds), PLAIN_TEXT, [measure("F1", "", _f1, said, [truth], floor=0.969)])
    forum = _read(data / "stormfront-hate" / "sentences.csv.gz")
    forum = [row for row in forum if row["sampled_split"] in ("train", "test")]
    body, label = _column(forum, "text"), np.array([row["label"] == "hate" for row in forum], dtype=np.int64)
    side = np.array([row["sampled_split"] == "test" for row in forum])
    said, truth = _folded(body, label, [(np.flatnonzero(~side), np.flatnonzero(side))], "binary", threads)
    authors = run.format("binary", "the authors' balanced split")
    yield Line("Stormfront hate speech", authors, PLAIN_TEXT, [measure("accuracy", "", accuracy, said, [truth], floor=0.791)])
    if not QUICK:
        tweets = _read(data / "davidson-hate" / "labeled_data.csv.gz")
        body, label = _column(tweets, "tweet"), np.array([int(row["class"]) for row in tweets])
        said, truth = _folded(body, label, _stratified(label), "multiclass", threads)
        asked = run.format("multiclass", by_folds)
        yield Line("Hate speech and offence in tweets", asked, PLAIN_TEXT, [measure("macro-F1", "", macro_f1, said, [truth], floor=0.747)])


def _f1(score: Floats, truth: Floats) -> float:
    return f1(score, truth, threshold=0.5)


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


def _stratified(label: npt.NDArray[np.int64]) -> list[Fold]:
    return list(StratifiedKFold(5, shuffle=True, random_state=0).split(label, label))[:FOLDS]


def _read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _column(rows: list[dict[str, str]], name: str) -> Objects:
    return to_array([row[name] for row in rows], Type.STR)
