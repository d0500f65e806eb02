from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mainspring.errors import RegistryError, TrainingError
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.net import NetLearner
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.towers import TwoTowerLearner, TwoTowerPredictor
from mainspring.models.protocol import Learner, Predictor, Rows

NAMES = ("user", "age", "item")
LEARNER = TwoTowerLearner(
    user=("user", "age"), item=("item",), item_id="item", dim=16, hidden=(32,), schedule=Schedule(epochs=8, batch=256, learning_rate=1e-2)
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs(n: int, seed: int) -> Rows:
    """Users and items of eight kinds; a user takes items of the own kind; one item in ten pairs is the hit that everyone takes."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 160, n)
    item = rng.integers(0, 20, n) * 8 + user % 8
    item[rng.random(n) < 0.1] = 0
    return Rows(np.column_stack([user, rng.normal(size=n), item]).astype(float), np.ones(n))


def fit(learner: TwoTowerLearner = LEARNER, seed: int = 0) -> TwoTowerPredictor:
    settings = {"names": NAMES, "categorical": ["user", "item"], "held_out": pairs(1_000, 2), "seed": seed, "threads": 1}
    return learner.fit(pairs(6_000, 1), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def towers() -> TwoTowerPredictor:
    return fit()


def users(n: int = 160) -> Any:
    return np.column_stack([np.arange(n), np.zeros(n)]).astype(float)


def items(n: int = 160) -> Any:
    return np.arange(n, dtype=float)[:, None]


def test_it_is_what_the_seam_asks_for(towers: TwoTowerPredictor) -> None:
    learner: Learner = LEARNER
    predictor: Predictor = towers
    assert learner is not None
    assert (predictor.names, predictor.outputs) == (NAMES, 1)


def test_items_of_the_own_kind_come_first(towers: TwoTowerPredictor) -> None:
    scores = towers.users(users()) @ towers.items(items()).T
    first = 1 + np.argsort(-scores[:, 1:], axis=1)[:, :10]
    assert (first % 8 == np.arange(160)[:, None] % 8).mean() > 0.95
    assert np.linalg.norm(towers.items(items()), axis=1) == pytest.approx(1.0, abs=1e-5)
    rows = np.column_stack([users(), items()])
    assert towers.predict(rows) == pytest.approx(np.diag(scores) / 0.1, abs=1e-4)


def test_without_the_correction_popular_items_are_pushed_down(towers: TwoTowerPredictor) -> None:
    plain = fit(replace(LEARNER, correct_popularity=False))
    above = []
    for one in (towers, plain):
        scores = one.users(users()) @ one.items(items()).T
        own = np.array([np.median(scores[user, user % 8 :: 8]) for user in range(160)])
        above.append(float(np.mean(scores[:, 0] > own)))
    assert above[0] > above[1] + 0.3


def test_the_same_fit_gives_the_same_bits(towers: TwoTowerPredictor) -> None:
    assert fit().to_artifacts() == towers.to_artifacts()
    assert fit(seed=1).to_artifacts() != towers.to_artifacts()


def test_contributions_add_up_to_the_score(towers: TwoTowerPredictor) -> None:
    x = pairs(100, 3).x
    assert [towers.predict_row(row)[0] for row in x] == towers.predict(x).tolist()
    parts = towers.contributions(x)
    assert parts.shape == (100, 4)
    assert np.abs(parts.sum(axis=1) - towers.predict(x)).max() < 1e-3


def test_files_come_back_as_the_same_towers_and_others_are_refused(towers: TwoTowerPredictor) -> None:
    files, x = towers.to_artifacts(), pairs(200, 3).x
    again = LEARNER.load(files, NAMES)
    assert again.predict(x).tolist() == towers.predict(x).tolist()
    assert again.user.names == ("user", "age")
    with pytest.raises(RegistryError, match="trained on 3 columns"):
        LEARNER.load(files, ("user", "item"))
    with pytest.raises(RegistryError, match="do not belong together"):
        LEARNER.load({**files, "net.safetensors": files["net.safetensors"][:-4]}, NAMES)
    with pytest.raises(RegistryError, match="it describes 'two towers'"):
        NetLearner().load(files, NAMES)


def test_unknown_columns_and_too_few_pairs_are_refused() -> None:
    settings: dict[str, Any] = {"names": NAMES, "categorical": ["user", "item"], "held_out": None, "seed": 0, "threads": 1}
    with pytest.raises(TrainingError, match="need the columns film"):
        replace(LEARNER, item=("film",)).fit(pairs(10, 1), **settings)
    with pytest.raises(TrainingError, match="at least 2 pairs"):
        LEARNER.fit(Rows(pairs(10, 1).x, np.zeros(10)), **settings)


@pytest.mark.long
def test_on_real_ratings_recall_beats_popularity(data_folder: Path) -> None:
    """MovieLens small: each user's last ten ratings are asked for, the ten before stop the fit; recall@10, films rated before left out."""
    with gzip.open(data_folder / "ml-latest-small" / "ratings.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    table = table[np.argsort(table[:, 3], kind="stable")]
    user, film = (np.unique(table[:, i], return_inverse=True)[1] for i in (0, 1))
    x = np.column_stack([user, film]).astype(float)
    order = np.lexsort((-np.arange(len(user)), user))
    from_last = np.empty(len(user), dtype=np.int64)
    from_last[order] = np.arange(len(user)) - np.searchsorted(user[order], user[order])
    known, fitted_to = from_last >= 10, from_last >= 20
    films = film.max() + 1
    seen = np.zeros((user.max() + 1, films), dtype=bool)
    seen[user[known], film[known]] = True
    wanted = np.zeros_like(seen)
    wanted[user[~known], film[~known]] = True
    asked = np.flatnonzero(seen.any(1) & wanted.any(1))
    popular = np.bincount(film[known], minlength=films)

    def recall(scores: Any) -> float:
        first = np.argsort(-np.where(seen[asked], -np.inf, scores), axis=1, kind="stable")[:, :10]
        hits = np.take_along_axis(wanted[asked], first, axis=1).sum(1)
        return float(np.mean(hits / np.minimum(10, wanted[asked].sum(1))))

    schedule = Schedule(epochs=10, batch=512, learning_rate=5e-3, patience=3)
    learner = TwoTowerLearner(("user",), ("film",), "film", dim=32, schedule=schedule)
    settings: dict[str, Any] = {"names": ["user", "film"], "categorical": ["user", "film"], "threads": 1}
    ones = np.ones(len(x))
    towers = learner.fit(
        Rows(x[fitted_to], ones[fitted_to]), held_out=Rows(x[known & ~fitted_to], ones[known & ~fitted_to]), seed=0, **settings
    )
    reached = recall(towers.users(asked[:, None].astype(float)) @ towers.items(np.arange(films)[:, None].astype(float)).T)
    by_popularity = recall(np.broadcast_to(popular, (len(asked), films)))
    assert reached > by_popularity, f"{len(asked)} users: towers {reached:.4f}, popularity {by_popularity:.4f}"
