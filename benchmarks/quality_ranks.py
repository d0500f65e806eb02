"""LightGBM's ranking example."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq
from harness import QUICK
from quality_lines import Floats, Line, Measure

import mainspring as ms
from mainspring.metrics import bootstrap_interval, ndcg
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

SEEDS = 1 if QUICK else 5


def lines(data: Path, threads: int) -> list[Line]:
    """The ranking example; a short run has one seed."""
    folder = data / "lightgbm-rank-example"
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
    run = f'`LightGBM(objective="lambdarank")`, mean of seeds 0 to {SEEDS - 1}; the given training and test queries'
    gained = Measure("NDCG@10", "", float(known.mean()), interval, float(np.nanmean(plain_ndcg)), 0.736)
    return [Line("LightGBM's ranking example", run, "LightGBM's ranker at its own defaults, on the same matrix", [gained])]


def _queries(path: Path) -> Examples:
    table = pq.read_table(path)
    features = [name for name in table.column_names if name not in ("label", "qid")]
    columns = {name: table.column(name).to_numpy().astype(np.float64) for name in features}
    query = np.unique(table.column("qid").to_numpy(), return_inverse=True)[1].astype(np.int64)
    return Examples(columns, table.column("label").to_numpy().astype(np.float64), groups=query)
