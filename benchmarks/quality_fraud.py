"""Card payments: the Fraud Detection Handbook's published week, and two months after three."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from fraud_weeks import END, FIRST, TEST, Weeks
from harness import QUICK
from quality_lines import Floats, Line, Measure, measure
from xgboost import XGBClassifier

import mainspring as ms
from mainspring.clock import parse_instant
from mainspring.metrics import average_precision, bootstrap_interval, recall, roc_auc
from mainspring.models.protocol import Rows
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

LEARNED = parse_instant("2018-08-01")
ALERTED_CARDS = 100
PLAIN = "XGBoost's classifier at its own defaults, on the same matrix"


def lines(data: Path, threads: int) -> list[Line]:
    """The published week; the long protocol, too, unless a short run is asked for."""
    weeks = Weeks(data)
    week = _week(weeks, threads)
    return [week] if QUICK else [week, _months(weeks, threads)]


def _week(weeks: Weeks, threads: int) -> Line:
    judged = weeks.judge(TEST)
    said = _answers(weeks.train(TEST), judged, threads)
    days, customers = weeks.judged_days(TEST), weeks.customers(TEST)
    daily = [card_precision(one, judged.y, days, customers) for one in said]
    interval = bootstrap_interval(lambda values: float(values.mean()), [daily[0]], rng=np.random.default_rng(0))
    return Line(
        "Fraud handbook, the published week",
        '`LightGBM(objective="binary")` on the handbook\'s 15 features; trained on 25 to 31 July, judged on 8 to 14 August 2018',
        PLAIN,
        [
            measure("ROC AUC", "", roc_auc, said, [judged.y], floor=0.872, blocks=customers),
            measure("AP", "", average_precision, said, [judged.y], floor=0.656, blocks=customers),
            Measure("card precision@100", "", float(daily[0].mean()), interval, float(daily[1].mean()), 0.296),
        ],
    )


def _months(weeks: Weeks, threads: int) -> Line:
    judged = weeks.between(TEST, END)
    said, days = _answers(weeks.between(FIRST, LEARNED), judged, threads), weeks.days(TEST, END)
    at_half, at_one = (lambda score, truth, rate=rate: 100 * recall(score, truth, alert_rate=rate) for rate in (0.005, 0.01))
    return Line(
        "Fraud handbook, two months after three",
        "the same; trained on May to July, judged on 8 August to 30 September 2018",
        PLAIN,
        [
            measure("AP", "", average_precision, said, [judged.y], floor=0.750, blocks=days),
            measure("recall at 0.5 % alerts", "%", at_half, said, [judged.y], floor=55.3, blocks=days),
            measure("recall at 1 % alerts", "%", at_one, said, [judged.y], floor=73.9, blocks=days),
        ],
    )


def card_precision(score: Floats, truth: Floats, days: npt.NDArray[np.int64], customers: npt.NDArray[np.int64]) -> Floats:
    """For each day the share of the 100 cards with the highest scores that had a fraud; a card found is not looked at again.

    Source: Le Borgne et al., "Reproducible machine learning for credit card fraud detection", 2022, chapter 4.
    """
    found: list[float] = []
    caught = np.zeros(0, dtype=np.int64)
    for day in np.unique(days):
        today = (days == day) & ~np.isin(customers, caught)
        cards, place = np.unique(customers[today], return_inverse=True)
        highest, fraud = np.full(len(cards), -np.inf), np.zeros(len(cards))
        np.maximum.at(highest, place, score[today])
        np.maximum.at(fraud, place, truth[today])
        alerted = np.argsort(-highest, kind="stable")[:ALERTED_CARDS]
        hits = cards[alerted][fraud[alerted] > 0]
        caught = np.concatenate([caught, hits])
        found.append(len(hits) / ALERTED_CARDS)
    return np.array(found)


def _answers(train: Rows, judged: Rows, threads: int) -> tuple[Floats, Floats]:
    names = [f"f{place}" for place in range(train.x.shape[1])]
    examples, asked = (Examples(dict(zip(names, rows.x.T, strict=True)), rows.y) for rows in (train, judged))
    model = fit_model(ms.LightGBM(objective="binary"), names, examples, examples, threads=threads)
    plain = XGBClassifier(n_jobs=threads).fit(train.x, train.y)
    return model.predict(asked.columns), np.asarray(plain.predict_proba(judged.x)[:, 1], dtype=np.float64)
