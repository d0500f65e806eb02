from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mainspring.errors import DeclarationError, RegistryError, TrainingError
from mainspring.models.adapters.nets.bodies import Mlp, WideAndDeep
from mainspring.models.adapters.nets.columns import LearnedColumns, NumberColumn
from mainspring.models.adapters.nets.fitting import Schedule, descend
from mainspring.models.adapters.nets.multitask import Mmoe, SharedBottom
from mainspring.models.adapters.nets.net import NetLearner, NetPredictor
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.protocol import Learner, Predictor, Rows

NAMES = ("a", "b", "kind", "place")
SCHEDULE = Schedule(epochs=15, batch=128, learning_rate=1e-2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def matrix(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    x[:, 1] = np.exp(2 * x[:, 1])
    x[:, 2:] = rng.integers(0, 5, (n, 2))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = 3 * np.nan_to_num(x[:, 0], nan=-2.0) + np.log(np.nan_to_num(x[:, 1], nan=1.0)) + 2 * (x[:, 2] == 2) + 3 * (x[:, 2] == x[:, 3])
    return x, y + rng.normal(0, 0.3, n)


def rows(n: int, seed: int, label: Any = lambda y: y) -> Rows:
    x, y = matrix(n, seed)
    return Rows(x, label(y))


def fit(learner: NetLearner, seed: int = 0, label: Any = lambda y: y, **changes: Any) -> NetPredictor:
    settings = {"names": NAMES, "categorical": NAMES[2:], "held_out": rows(600, 2, label), "seed": seed, "threads": 1}
    return learner.fit(rows(3_000, 1, label), **{**settings, **changes})


@pytest.fixture(scope="module")
def fitted() -> NetPredictor:
    return fit(NetLearner(Mlp((48, 24)), schedule=SCHEDULE))


def rmse(predictor: NetPredictor) -> float:
    test = rows(2_000, 3)
    return float(np.sqrt(np.mean((predictor.predict(test.x) - test.y) ** 2)))


def test_it_is_what_the_seam_asks_for(fitted: NetPredictor) -> None:
    learner: Learner = NetLearner()
    predictor: Predictor = fitted
    assert learner is not None
    assert (predictor.names, predictor.outputs) == (NAMES, 1)


def test_a_net_learns_numbers_gaps_and_categories(fitted: NetPredictor) -> None:
    assert rmse(fitted) < 0.4 * rows(2_000, 3).y.std()
    gap, middle = np.array([[np.nan, 1.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0, 1.0]])
    assert fitted.predict(gap)[0] == pytest.approx(fitted.predict(middle)[0] - 6.0, abs=1.0)


def test_a_row_has_the_same_bits_alone_and_among_others(fitted: NetPredictor) -> None:
    x, _ = matrix(1_000, 9)
    together = fitted.predict(x)
    assert [fitted.predict_row(row)[0] for row in x] == together.tolist()
    assert fitted.predict(x[37:512]).tolist() == together[37:512].tolist()
    assert fitted.predict(x[:0]).shape == (0,)
    assert fitted.importance() == {}


def test_crosses_give_the_wide_part_what_pairs_of_categories_say() -> None:
    linear = WideAndDeep(hidden=())
    crossed = replace(linear, crosses=(("kind", "place"),))
    long = replace(SCHEDULE, learning_rate=3e-2)
    without, with_pairs = (rmse(fit(NetLearner(body, schedule=long))) for body in (linear, crossed))
    assert with_pairs < 0.75 * without


def test_the_same_fit_gives_the_same_bits_and_leaves_torch_as_it_was(fitted: NetPredictor) -> None:
    state = torch.get_rng_state()
    learner = NetLearner(Mlp((48, 24)), schedule=SCHEDULE)
    assert fit(learner).to_artifacts() == fitted.to_artifacts()
    assert fit(learner, seed=1).to_artifacts() != fitted.to_artifacts()
    assert torch.equal(torch.get_rng_state(), state)


def test_binary_and_multiclass_give_probabilities_that_fit() -> None:
    binary = fit(NetLearner(Mlp((32,)), (Task("binary"),), SCHEDULE), label=lambda y: (y > 2).astype(float))
    test = rows(2_000, 3)
    p = binary.predict(test.x)
    assert p.shape == (2_000,)
    assert np.mean((p > 0.5) == (test.y > 2)) > 0.9
    assert p.mean() == pytest.approx(np.mean(test.y > 2), abs=0.04)
    classes = fit(NetLearner(Mlp((32,)), (Task("multiclass"),), SCHEDULE), label=lambda y: np.digitize(y, [0.0, 3.0]).astype(float))
    shares = classes.predict(test.x)
    assert (shares.shape, classes.outputs) == ((2_000, 3), 3)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert np.mean(shares.argmax(axis=1) == np.digitize(test.y, [0.0, 3.0])) > 0.8


@pytest.mark.parametrize(("task", "level"), [(Task("quantile", level=0.9), 0.9), (Task("l1"), 0.5)])
def test_a_quantile_lies_above_its_share_of_labels(task: Task, level: float) -> None:
    test = rows(3_000, 3)
    quantile = fit(NetLearner(Mlp((32,)), (task,), SCHEDULE)).predict(test.x)
    assert np.mean(test.y <= quantile) == pytest.approx(level, abs=0.05)


def test_a_weight_of_two_counts_like_a_row_twice() -> None:
    rng = np.random.default_rng(0)
    x, y = np.zeros((1_000, 1)), (rng.random(1_000) < 0.5).astype(float)
    weight = np.where(y == 1, 3.0, 1.0)
    learner = NetLearner(Mlp(()), (Task("binary"),), Schedule(epochs=5))
    one = learner.fit(Rows(x, y, weight), names=["a"], categorical=[], held_out=None, seed=0, threads=1)
    assert one.predict(x[:1])[0] == pytest.approx(np.average(y, weights=weight), abs=0.02)


def test_early_stopping_brings_the_best_weights_back() -> None:
    net, seen, given = torch.nn.Linear(1, 1), [], iter([3.0, 1.0, 2.0, 1.0, 5.0])

    def held_out() -> float:
        seen.append(net.weight.item())
        return next(given)

    losses = descend(net, lambda batch: net(torch.ones(len(batch), 1)).mean(), 64, Schedule(epochs=9, batch=16, patience=3), held_out)
    assert losses == [3.0, 1.0, 2.0, 1.0, 5.0]
    assert net.weight.item() == seen[1] != seen[-1]


def test_contributions_add_up_and_name_the_columns_that_matter(fitted: NetPredictor) -> None:
    x, _ = matrix(200, 4)
    parts = fitted.contributions(x)
    assert parts.shape == (200, 5)
    assert np.abs(parts.sum(axis=1) - fitted.raw(x)[:, 0]).max() < 1e-4
    assert np.abs(parts[:, :4]).mean(axis=0).argmax() == 0
    unknown = np.array([[np.nan, np.nan, -1.0, 77.0]])
    assert np.abs(fitted.contributions(unknown)[0, 2:4]).max() == 0.0


def test_contributions_of_several_outputs_and_of_crosses_add_up() -> None:
    body, x = WideAndDeep((16,), (("kind", "place"),)), matrix(50, 4)[0]
    net = fit(
        NetLearner(body, (Task("multiclass"),), replace(SCHEDULE, epochs=4)), label=lambda y: np.digitize(y, [0.0, 3.0]).astype(float)
    )
    parts = net.contributions(x)
    assert parts.shape == (50, 3, 5)
    assert np.abs(parts.sum(axis=2) - net.raw(x)).max() < 1e-4


@pytest.mark.parametrize("body", [SharedBottom((32,), (16,)), Mmoe(3, (24,), (16,))])
def test_several_tasks_learn_from_one_net_and_missing_labels_count_for_nothing(body: Any) -> None:
    def both(y: Any) -> Any:
        rare = np.where(np.arange(len(y)) % 2 == 0, y > 2, np.nan)
        return np.column_stack([y, rare])

    net = fit(NetLearner(body, (Task("regression"), Task("binary", share=0.5)), SCHEDULE), label=both)
    test = rows(2_000, 3)
    predictions = net.predict(test.x)
    assert predictions.shape == (2_000, 2)
    assert np.sqrt(np.mean((predictions[:, 0] - test.y) ** 2)) < 1.3
    assert np.mean((predictions[:, 1] > 0.5) == (test.y > 2)) > 0.9
    assert np.abs(net.contributions(test.x[:20]).sum(axis=2) - net.raw(test.x[:20])).max() < 1e-4


def test_a_net_goes_on_from_another_and_is_better_for_it(fitted: NetPredictor) -> None:
    x, y = matrix(300, 5)
    moved, held = Rows(x, y + 2.0), rows(300, 6, lambda y: y + 2.0)
    settings: dict[str, Any] = {"names": NAMES, "categorical": NAMES[2:], "held_out": None, "seed": 0, "threads": 1}
    short = NetLearner(Mlp((48, 24)), schedule=Schedule(epochs=10, batch=64, learning_rate=1e-3))
    before = fitted.to_artifacts()
    on, afresh = short.fit(moved, start=fitted, **settings), short.fit(moved, **settings)
    errors = [np.mean((net.predict(held.x) - held.y) ** 2) for net in (on, fitted, afresh)]
    assert errors[0] == min(errors)
    assert fitted.to_artifacts() == before
    with pytest.raises(TrainingError, match="other columns, shape or tasks"):
        NetLearner(Mlp((8,))).fit(moved, start=fitted, **settings)


@pytest.mark.parametrize("body", [Mlp((8,)), WideAndDeep((8,), (("kind", "place"),)), SharedBottom((8,), (4,)), Mmoe(2, (8,), (4,))])
def test_files_come_back_as_the_same_net(body: Any) -> None:
    learner = NetLearner(body, schedule=Schedule(epochs=1))
    net = fit(learner)
    again = NetLearner().load(net.to_artifacts(), NAMES)
    x, _ = matrix(300, 7)
    assert again.predict(x).tolist() == net.predict(x).tolist()
    assert again.to_artifacts() == net.to_artifacts()


def test_truncated_altered_and_foreign_files_are_refused(fitted: NetPredictor, tmp_path: Path) -> None:
    files = fitted.to_artifacts()
    weights, body = files["net.safetensors"], files["net.json"]
    flipped = weights[:-1] + bytes([weights[-1] ^ 1])
    altered = json.loads(body)
    altered["body"]["tasks"][0]["centre"] += 1.0
    wrong = [
        ({"net.json": body}, "lack net.safetensors"),
        ({**files, "net.safetensors": weights[: len(weights) // 2]}, "do not belong together"),
        ({**files, "net.safetensors": flipped}, "do not belong together"),
        ({**files, "net.json": json.dumps(altered).encode()}, "do not belong together"),
        ({**files, "net.json": body[: len(body) // 2]}, "not a net's description"),
        ({**files, "net.json": b"[]"}, "not a net's description"),
        ({**files, "net.json": body.replace(b'"tabular net"', b'"two towers"')}, "it describes 'two towers'"),
    ]
    for artifacts, message in wrong:
        with pytest.raises(RegistryError, match=message):
            NetLearner().load(artifacts, NAMES)
    with pytest.raises(RegistryError, match="trained on 4 columns"):
        NetLearner().load(files, NAMES[:3])
    with pytest.raises(RegistryError, match="trained on 4 columns"):
        NetLearner().load(files, NAMES[::-1])


def test_what_cannot_be_learned_is_refused_with_the_mend() -> None:
    good = rows(100, 1)
    settings: dict[str, Any] = {"names": NAMES, "categorical": NAMES[2:], "held_out": None, "seed": 0, "threads": 1}
    with pytest.raises(DeclarationError, match="Did you mean 'binary'"):
        Task("binari")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="name for each column"):
        NetLearner().fit(Rows(good.x[:, :3], good.y), **settings)
    with pytest.raises(TrainingError, match="other than 0 and 1"):
        NetLearner(tasks=(Task("binary"),)).fit(good, **settings)
    with pytest.raises(TrainingError, match="missing in every row"):
        NetLearner().fit(Rows(good.x, np.full(100, np.nan)), **settings)
    with pytest.raises(TrainingError, match="weights"):
        NetLearner().fit(Rows(good.x, good.y, np.where(np.arange(100) == 5, np.inf, 1.0)), **settings)
    with pytest.raises(TrainingError, match="infinite"):
        NetLearner().fit(Rows(good.x, np.where(np.arange(100) == 5, np.inf, good.y)), **settings)
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        NetLearner(schedule=Schedule(learning_rate=1e30)).fit(good, **settings)


def test_numbers_are_scaled_by_what_was_learned_and_end_where_it_ends() -> None:
    values = np.append(np.random.default_rng(0).lognormal(0, 2, 5_000), [np.nan, np.inf])
    quantile, standard = NumberColumn.fit(values, "quantile"), NumberColumn.fit(values, "standard")
    scaled = quantile.apply(values[:5_000])
    assert (scaled.mean(), scaled.std()) == (pytest.approx(0.0, abs=0.05), pytest.approx(1.0, abs=0.05))
    assert quantile.apply(np.array([np.inf, -np.inf, np.nan])).tolist() == [scaled.max(), scaled.min(), 0.0]
    assert standard.apply(values[:5_000]).mean() == pytest.approx(0.0, abs=0.1)
    assert standard.apply(np.array([1e300, np.nan])).tolist() == [10.0, 0.0]
    assert NumberColumn.fit(np.array([2.0, 2.0, np.nan]), "quantile").apply(np.array([2.0, np.nan])).tolist() == [0.0, 0.0]


def test_codes_that_were_not_learned_are_the_unknown_one() -> None:
    columns = LearnedColumns.fit(np.array([[0.0], [3.0], [1.0]]), ["kind"], ["kind"], "quantile")
    assert columns.apply(np.array([[0.0], [3.0], [2.0], [4.0], [-1.0], [0.5], [np.nan]]))[:, 0].tolist() == [1, 4, 3, 0, 0, 0, 0]
    assert LearnedColumns.from_dict(json.loads(json.dumps(columns.to_dict()))) == columns
