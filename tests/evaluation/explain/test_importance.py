from __future__ import annotations

import numpy as np
import pytest

import mainspring as ms
from mainspring.errors import DeclarationError
from mainspring.evaluation.explain.importance import correlated, mean_contributions, mean_intervals, permutation_importance
from mainspring.models.tabular import TabularModel
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

Columns = dict[str, np.ndarray]  # type: ignore[type-arg]


def trips(n: int = 2_000, seed: int = 0) -> tuple[Columns, np.ndarray]:  # type: ignore[type-arg]
    """The label is twice ``a``, plus ``shop``; ``twin`` is ``a`` with a little noise, ``noise`` is nothing."""
    rng = np.random.default_rng(seed)
    a, shop = rng.normal(size=n), rng.choice(["s", "t"], n).astype(object)
    columns = {"a": a, "twin": a + rng.normal(0, 0.05, n), "shop": shop, "noise": rng.normal(size=n)}
    return columns, 2 * a + (shop == "t") + rng.normal(0, 0.1, n)


def linear(columns: Columns) -> np.ndarray:  # type: ignore[type-arg]
    """A model that leans on both twins alike."""
    return np.asarray(columns["a"] + columns["twin"] + (columns["shop"] == "t"))


def fitted(spec: ms.LightGBM | ms.Linear, names: list[str], columns: Columns, label: np.ndarray) -> TabularModel:  # type: ignore[type-arg]
    examples = Examples(columns, label)
    return fit_model(spec, names, examples, examples, threads=1)


def test_contributions_are_those_of_the_model_and_their_intervals_hold() -> None:
    columns, label = trips()
    model = fitted(ms.Linear(), ["a", "shop"], columns, label)
    found = {one.name: one for one in mean_contributions(model, columns, rng=np.random.default_rng(0))}
    assert list(found) == ["a", "shop"]
    assert found["a"].value == pytest.approx(2 * np.abs(columns["a"] - columns["a"].mean()).mean(), rel=0.02)
    fresh, _ = trips(50_000, seed=1)
    assert found["a"].low <= np.abs(model.contributions(fresh)[:, 0]).mean() <= found["a"].high


def test_the_offset_counts_as_a_feature() -> None:
    columns, label = trips()
    model = fitted(ms.LightGBM(trees=20, leaves=4, offset="a"), ["a", "shop"], columns, label)
    effects = model.contributions(columns)
    rows = [[columns["a"][row], columns["shop"][row]] for row in range(20)]
    for row, values in enumerate(rows):
        assert dict(model.reasons(values, 2)) == pytest.approx(dict(zip(["a", "shop"], effects[row], strict=True)))
    assert mean_contributions(model, columns, rng=np.random.default_rng(0))[0].name == "a"


def test_contributions_to_several_classes_add_up() -> None:
    columns, label = trips()
    model = fitted(
        ms.LightGBM(objective="multiclass", classes=3, trees=5), ["a", "noise"], columns, np.digitize(label, [-1, 1]).astype(float)
    )
    assert model.contributions(columns).shape == (2_000, 3, 2)
    assert [one.name for one in mean_contributions(model, columns, rng=np.random.default_rng(0))] == ["a", "noise"]


def test_shuffling_shows_what_is_used_and_twins_hide_each_other() -> None:
    columns, label = trips()
    rng = np.random.default_rng(0)
    alone = {one.name: one for one in permutation_importance(linear, columns, label, list(columns), metric="mae", rng=rng)}
    assert alone["noise"].value == alone["noise"].low == alone["noise"].high == 0
    groups = correlated(columns, list(columns))
    assert groups == {"a + twin": ("a", "twin"), "shop": ("shop",), "noise": ("noise",)}
    together = permutation_importance(linear, columns, label, groups, metric="mae", rng=rng)
    assert (together[0].name, together[0].features) == ("a + twin", ("a", "twin"))
    assert together[0].low > 1.5 * alone["a"].high > 0


@pytest.mark.parametrize("metric", ["rmse", "roc_auc", "log_loss", "bias"])
def test_worse_is_above_zero_whatever_the_direction_of_the_metric(metric: str) -> None:
    columns, label = trips()
    truth = label if metric in ("rmse", "bias") else (label > 0).astype(float)

    def predict(columns: Columns) -> np.ndarray:  # type: ignore[type-arg]
        score = linear(columns)
        return score if metric == "rmse" else np.exp(score) if metric == "bias" else 1 / (1 + np.exp(-3 * score))

    truth = predict(columns) - 0.5 * columns["a"].mean() if metric == "bias" else truth
    (one,) = permutation_importance(predict, columns, truth, ["a"], metric=metric, rng=np.random.default_rng(0), repeats=3, draws=50)
    assert one.value > 0


def test_options_reach_the_metric() -> None:
    columns, label = trips()
    rng = np.random.default_rng(0)
    (one,) = permutation_importance(
        linear, columns, (label > 2).astype(float), ["a"], metric="recall", options={"alert_rate": 0.1}, rng=rng, draws=50
    )
    assert one.low > 0


def test_rows_that_share_something_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(20), 100)
    values = rng.normal(size=20)[day][:, None] + rng.normal(0, 0.01, (2_000, 1))
    (low,), (high,) = mean_intervals(values, rng=rng)
    (below,), (above,) = mean_intervals(values, rng=rng, blocks=day)
    assert above - below > 5 * (high - low)
    assert mean_intervals(values, rng=rng, blocks=np.zeros(2_000))[1].tolist() == [np.inf]


@pytest.mark.parametrize(
    ("metric", "names", "words"),
    [
        ("rmes", ["a"], "metric 'rmes' is not known. Did you mean 'rmse'"),
        ("coverage", ["a"], "metric 'coverage' needs low, high, truth"),
        ("ndcg", ["a"], "metric 'ndcg' needs score, relevance, groups"),
        ("mae", ["twins"], "no feature 'twins'. Did you mean 'twin'"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric: str, names: list[str], words: str) -> None:
    columns, label = trips(50)
    with pytest.raises(DeclarationError, match=words):
        permutation_importance(linear, columns, label, names, metric=metric, rng=np.random.default_rng(0))
