"""Free text through the seam of all models: learned jointly by linear ones, as a score learned apart by all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mainspring as ms
from mainspring.columns import to_array
from mainspring.errors import DeclarationError, RegistryError, TrainingError
from mainspring.models.adapters.sklearn_text import Terms, out_of_fold
from mainspring.models.protocol import Rows
from mainspring.models.reading import Reading
from mainspring.models.tabular import TabularModel
from mainspring.models.text_scores import TEXTS, Vocabulary
from mainspring.schema import Type
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

NAMES = ["amount", "body", "shop"]
BODY = [ms.Text("body")]
GOOD, BAD, PLAIN = ("thanks", "lovely", "kind"), ("awful", "broken", "liar"), ("the", "box", "came", "on", "monday", "again", "with", "it")


def reviews(n: int, seed: int, classes: int = 2) -> Examples:
    """Of each text two or three words tell, and of each row the amount and the shop do too."""
    rng = np.random.default_rng(seed)
    amount, shop, mood = rng.normal(size=n), rng.choice(["s", "t"], n).astype(object), rng.integers(0, 3, n)
    told = [(*GOOD, "fine"), ("so-so", "fine"), (*BAD, "fine")]
    texts = [" ".join(rng.permutation([*rng.choice(PLAIN, 6), *rng.choice(told[m], 2)]).tolist()) for m in mood]
    signal = 2.0 * (mood - 1) + amount + (shop == "t") + rng.normal(0, 0.5, n)
    label = {2: signal > 0.5, 3: np.digitize(signal, [-1.0, 1.5]), 1: signal}[classes].astype(float)
    columns = {
        "amount": amount,
        "body": to_array([None if row % 50 == 0 else text for row, text in enumerate(texts)], Type.STR),
        "shop": shop,
    }
    return Examples(columns, label)


def spec(kind: str, classes: int = 2, **settings: Any) -> ms.LightGBM | ms.Linear:
    objective = {1: "regression", 2: "binary", 3: "multiclass"}[classes]
    if kind == "Linear":
        return ms.Linear(objective=objective, text=BODY, **settings)
    return ms.LightGBM(objective=objective, trees=60, text=BODY, classes=classes if classes > 2 else 1, **settings)


def right(model: TabularModel, asked: Examples) -> float:
    said = model.predict(asked.columns)
    return float(np.mean((said.argmax(axis=1) if said.ndim > 1 else said > 0.5) == asked.label))


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Linear", "LightGBM"])
def test_text_is_learned_beside_other_features_and_comes_back_to_the_bit(kind: str, classes: int) -> None:
    model = fit_model(spec(kind, classes), NAMES, reviews(1_500, 0, classes), reviews(300, 1, classes), threads=1)
    asked = reviews(400, 2, classes)
    said = model.predict(asked.columns)
    if classes == 2:
        blind = fit_model(spec(kind), NAMES, reviews(1_500, 0), reviews(300, 1), threads=1)
        assert blind.to_artifacts() == model.to_artifacts()
    if classes == 1:
        assert np.mean((said - asked.label) ** 2) < 0.35 * asked.label.var()
    else:
        assert right(model, asked) > (0.87 if classes == 2 else 0.8)
    again = TabularModel.from_artifacts(model.to_artifacts())
    assert again.predict(asked.columns).tolist() == said.tolist()
    for row in range(60):
        values = [asked.columns[name][row] for name in NAMES]
        assert again.predict_row(values)[0] == (said[row] if classes < 3 else said[row, 0])


@pytest.mark.parametrize("kind", ["Linear", "LightGBM"])
def test_reasons_name_the_words_that_moved_the_answer(kind: str) -> None:
    model = fit_model(spec(kind), NAMES, reviews(1_500, 0), reviews(300, 1), threads=1)
    for word, sign in (("awful", 1), ("lovely", -1)):
        found = model.reasons([0.0, f"the box came {word} again", "s"], 1)
        assert found[0][0] == f"body: {word}"
        assert found[0][1] * sign > 0
    values = [0.3, "awful box came on monday", "t"]
    every = dict(model.reasons(values, 100))
    whole = model.predictor.contributions(model.encoder.transform_row(values)[None, :])[0, :-1].sum()
    assert sum(every.values()) == pytest.approx(whole)
    assert {"amount", "shop"} <= every.keys()
    assert {name for name, _ in model.reasons([0.0, None, "s"], 100)} == {"body", "shop", "amount"}


def test_reasons_of_several_classes_are_those_of_the_most_probable() -> None:
    model = fit_model(spec("Linear", 3), NAMES, reviews(1_500, 0, 3), reviews(300, 1, 3), threads=1)
    for word in ("lovely", "awful"):
        name, effect = model.reasons([0.0, f"the {word} {word} box", "s"], 1)[0]
        assert name == f"body: {word}"
        assert effect > 0


def test_a_linear_model_learns_text_and_columns_together() -> None:
    """What the text explains is not explained again by a column that goes with it."""
    rng = np.random.default_rng(0)
    truth = rng.random(2_000) < 0.5
    body = to_array(["awful box" if one else "lovely box" for one in truth ^ (rng.random(2_000) < 0.02)], Type.STR)
    alone = Examples({"body": body, "n": truth + rng.normal(0, 2.0, 2_000)}, truth.astype(float))
    model = fit_model(ms.Linear(objective="binary", text=BODY), ["body", "n"], alone, alone)
    effects = dict(model.reasons(["awful box", 1.0], 10))
    assert effects["body: awful"] > 5 * abs(effects["n"])
    only = fit_model(ms.Linear(objective="binary", text=BODY), ["body"], alone, alone)
    assert right(only, alone) > 0.95


def test_a_term_that_tells_of_a_class_is_held_back_less() -> None:
    """Two words of one rarity: one of half the texts of one class alone, one of a quarter of all, and noise for the rest."""
    texts = to_array(["awful" if row % 4 == 0 else "box" if row % 4 == 1 else "lovely" for row in range(400)], Type.STR)
    label = np.array([1.0 if row % 4 == 0 else float(row % 8 < 4) for row in range(400)])
    rows = Rows(np.zeros((400, 0)), label)
    vocabulary = Vocabulary.fit(Reading(pieces=None), texts.tolist(), 100)
    scales = {ratio: Terms.of(vocabulary, texts, 0.25, ratio).scale("binary", rows) for ratio in (0.0, 0.5, 1.0)}
    awful, box = vocabulary.words["awful"], vocabulary.words["box"]
    assert scales[0.0].tolist() == [2.0, 2.0, 2.0]
    assert scales[0.5].mean() == scales[1.0].mean() == pytest.approx(2.0)
    assert scales[0.5] == pytest.approx((scales[0.0] + scales[1.0]) / 2)
    assert scales[0.5][awful] > 1.5 * scales[0.5][box]
    assert Terms.of(vocabulary, texts, 0.25, 0.5).scale("regression", rows).tolist() == [2.0, 2.0, 2.0]
    heavy = Rows(rows.x, label, np.where(label == 1, 1e-6, 1.0))
    assert (Terms.of(vocabulary, texts, 0.25, 0.5).scale("binary", heavy) > 0).all()


def test_a_text_of_words_or_of_pieces_alone_is_learned() -> None:
    rows, asked = reviews(800, 0, 3), reviews(300, 2, 3)
    for text in (ms.Text("body", pieces=None), ms.Text("body", words=0)):
        assert right(fit_model(ms.Linear(objective="multiclass", text=[text]), NAMES, rows, rows, threads=1), asked) > 0.7


def test_scores_that_trees_learn_from_know_nothing_of_their_own_labels() -> None:
    rng = np.random.default_rng(1)
    texts = to_array([" ".join(rng.choice([f"w{i}" for i in range(300)], 12).tolist()) for _ in range(600)] * 2, Type.STR)
    noise = np.tile(rng.integers(0, 2, 600).astype(float), 2)
    terms = Terms.of(Vocabulary.fit(Reading(), texts.tolist(), 10_000), texts, 0.4, 0.5)
    apart = out_of_fold("binary", terms, Rows(np.zeros((1_200, 0)), noise), texts)[:, 0]
    assert abs(np.corrcoef(apart, noise)[0, 1]) < 0.12
    assert apart[:600].tolist() == apart[600:].tolist()


def test_balanced_and_weights_are_heard() -> None:
    rows = reviews(1_500, 3, 3)
    few = Examples(rows.columns, rows.label, np.where(rows.label == 2, 0.02, 1.0))
    shares = [
        fit_model(ms.Linear(objective="multiclass", text=BODY, balanced=balanced), NAMES, one, rows).predict(rows.columns).argmax(axis=1)
        == 2
        for one, balanced in ((few, False), (few, True))
    ]
    assert shares[1].mean() > 3 * shares[0].mean()


def test_negatives_and_calibration_hold_with_text() -> None:
    model = fit_model(spec("Linear", negatives=0.3, calibration="platt"), NAMES, reviews(2_500, 0), reviews(800, 1), threads=1)
    asked = reviews(2_000, 2)
    assert model.predict(asked.columns).mean() == pytest.approx(asked.label.mean(), rel=0.1)


def test_odd_texts_are_answered() -> None:
    model = fit_model(spec("Linear"), NAMES, reviews(600, 0), reviews(200, 1), threads=1)
    for text in (
        None,
        "",
        "\u200b\ufeff",
        "\U0001f600" * 50,
        "\u043f\u0440\u0438\u0432\u0435\u0442",
        "a" * 1_000_000,
        "\ud800",
        "x " * 100_000,
        "\x00\x01",
    ):
        score = model.predict_row([0.0, text, "s"])[0]
        assert 0 < score < 1
        assert model.predict({"amount": np.zeros(1), "body": to_array([text], Type.STR), "shop": to_array(["s"], Type.STR)})[0] == score


def test_contributions_are_summed_up_by_feature() -> None:
    model = fit_model(spec("LightGBM", 3), NAMES, reviews(600, 0, 3), reviews(200, 1, 3), threads=1)
    asked = reviews(20, 2, 3)
    whole = model.predictor.contributions(model.encoder.transform(asked.columns))
    found = model.contributions(asked.columns)
    assert found.shape == (20, 3, 3)
    assert found[:, :, 1] == pytest.approx(whole[:, :, 1:4].sum(axis=-1))
    assert found[:, :, 2] == pytest.approx(whole[:, :, 4])


def test_trees_that_go_on_read_as_before() -> None:
    first = fit_model(spec("LightGBM"), NAMES, reviews(600, 0), reviews(200, 1), threads=1)
    further = fit_model(spec("LightGBM"), NAMES, reviews(600, 3), reviews(200, 1), threads=1, start=first)
    assert further.encoder == first.encoder
    assert further.to_artifacts()[TEXTS] == first.to_artifacts()[TEXTS]
    assert right(further, reviews(400, 2)) > 0.85
    with pytest.raises(TrainingError, match="cannot go on"):
        fit_model(ms.LightGBM(objective="binary"), NAMES, reviews(600, 3), reviews(200, 1), threads=1, start=first)


def test_files_of_another_model_are_refused() -> None:
    artifacts = fit_model(spec("Linear"), NAMES, reviews(400, 0), reviews(100, 1)).to_artifacts()
    without = {name: body for name, body in artifacts.items() if name != TEXTS}
    with pytest.raises(RegistryError, match=r"texts\.msgpack"):
        TabularModel.from_artifacts(without)
    renamed = {**artifacts, "model.json": artifacts["model.json"].replace(b'"texts": ["body"]', b'"texts": ["shop"]')}
    with pytest.raises(RegistryError, match="it scores body, the model reads shop"):
        TabularModel.from_artifacts(renamed)


def test_what_cannot_be_learned_is_named() -> None:
    rows = reviews(100, 0)
    with pytest.raises(TrainingError, match="no text column 'bodi'"):
        fit_model(ms.Linear(objective="binary", text=[ms.Text("bodi")]), NAMES, rows, rows)
    same = Examples({"body": to_array(["one"] * 50 + ["two"] * 50, Type.STR)}, np.repeat([0.0, 1.0], 50))
    with pytest.raises(TrainingError, match="class 0 has 50 rows with too few different texts"):
        fit_model(ms.LightGBM(objective="binary", text=BODY), ["body"], same, same)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ms.Text("body", words=0, pieces=None), "nothing to read"),
        (lambda: ms.Text("body", pieces=(5, 2)), "shortest and the longest"),
        (lambda: ms.Text("body", longest=0), "longest >= 1"),
        (lambda: ms.Text("body", l2=0.0), "l2 > 0"),
        (lambda: ms.Text("body", ratio=1.5), "ratio=1.5 must be from 0"),
        (lambda: ms.Linear(text=[ms.Text("body"), ms.Text("body")]), "named twice"),
        (lambda: ms.Linear(text=BODY, ignore=["body"]), "ignored"),
        (lambda: ms.LightGBM(objective="lambdarank", text=BODY), "the task is ranking"),
        (lambda: ms.LightGBM(balanced=True), "balanced is for classes"),
        (lambda: ms.Linear(objective="multiclass", negatives=0.5), "for two classes"),
    ],
)
def test_text_that_cannot_be_meant_is_refused(make: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        make()
