"""Measures of rankings. Rows are candidates: ``score``, ``relevance`` (0 is not relevant) and the query each belongs to, ``groups``.

Each function gives one value per query, in the order of the sorted distinct ``groups``; the measure of a whole set is their mean
without NaN. A query without a relevant row has no value (NaN) and so is left out; `ndcg` can give it another.
Candidates of equal score count as the mean over every order of them, exactly (McSherry, Najork, "Computing information retrieval
performance measures efficiently in the presence of tied scores", ECIR 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Gains = Literal["exponential", "linear"]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Rows by query, then by falling score; a tie is a run of one query and one score."""

    relevance: Floats
    query: Ints  # number of each row's query
    place: Ints  # place in its query, from 0
    tie: Ints  # number of each row's tie
    first: Ints  # row at which each tie starts
    size: Ints  # rows in each tie
    queries: int

    def per_tie(self, values: Floats) -> Floats:
        """Sum of ``values`` over each tie."""
        return np.add.reduceat(values, self.first)

    def per_query(self, values: Floats, rows: NDArray[Any] | None = None) -> Floats:
        """Sum of ``values`` of the chosen ``rows`` over each query."""
        query = self.query if rows is None else self.query[rows]
        sums: Floats = np.bincount(query, values, self.queries).astype(np.float64, copy=False)
        return sums


def ndcg(
    score: Floats, relevance: Floats, groups: NDArray[Any], *, k: int = 10, gains: Gains = "exponential", empty: float = np.nan
) -> Floats:
    """Discounted gain of the first ``k`` over that of the best order: gain ``2 ** relevance - 1``, or ``relevance`` itself, over
    ``log2(place + 1)``.

    ``empty`` is the value of a query without a relevant row: NaN leaves it out of the mean, 1.0 is LightGBM's convention.
    Source: Jaervelin, Kekaelaeinen, ACM TOIS 20, 2002; Burges et al., ICML 2005 (exponential gains).

    Raises:
        ValueError: the shapes differ, there are no rows, a score is NaN, a relevance is below 0 or NaN, or ``k`` is below 1
            (here and in every function of this module).
    """
    ranked = _rank(score, relevance, groups, k)
    gain = np.exp2(ranked.relevance) - 1 if gains == "exponential" else ranked.relevance
    expected = (ranked.per_tie(gain) / ranked.size)[ranked.tie]
    got = _discounted(ranked, expected, k)
    best = _discounted(ranked, gain[_falling(gain, ranked.query)], k)
    return np.where(best > 0, got / np.where(best > 0, best, 1.0), empty)


def precision_at(score: Floats, relevance: Floats, groups: NDArray[Any], *, k: int = 10) -> Floats:
    """Relevant rows among the first ``k``, over ``k``: places that a short query leaves empty are not relevant."""
    ranked = _rank(score, relevance, groups, k)
    return np.where(_positives(ranked) > 0, _found(ranked, k) / k, np.nan)


def recall_at(score: Floats, relevance: Floats, groups: NDArray[Any], *, k: int = 10) -> Floats:
    """Relevant rows among the first ``k``, over all relevant rows."""
    ranked = _rank(score, relevance, groups, k)
    return _over(_found(ranked, k), _positives(ranked))


def hit_rate(score: Floats, relevance: Floats, groups: NDArray[Any], *, k: int = 10) -> Floats:
    """Whether any of the first ``k`` is relevant; with ties at the edge the chance of it."""
    ranked = _rank(score, relevance, groups, k)
    return np.where(_positives(ranked) > 0, ranked.per_query(_first_at(ranked) * (ranked.place < k)), np.nan)


def reciprocal_rank(score: Floats, relevance: Floats, groups: NDArray[Any], *, k: int = 10) -> Floats:
    """One over the place of the first relevant row, 0 where it is not among the first ``k``; its mean is MRR@k."""
    ranked = _rank(score, relevance, groups, k)
    values = np.where(ranked.place < k, _first_at(ranked) / (ranked.place + 1), 0.0)
    return np.where(_positives(ranked) > 0, ranked.per_query(values), np.nan)


def average_precision_at(score: Floats, relevance: Floats, groups: NDArray[Any], *, k: int = 10) -> Floats:
    """Mean of the precision at each relevant row among the first ``k``, over ``min(k, relevant rows)``; its mean is MAP@k."""
    ranked = _rank(score, relevance, groups, k)
    positives = _positives(ranked)
    relevant, size = ranked.per_tie((ranked.relevance > 0).astype(np.float64))[ranked.tie], ranked.size[ranked.tie]
    before, inside = _before(ranked), np.arange(len(relevant)) - ranked.first[ranked.tie]
    others = np.where(size > 1, inside * (relevant - 1) / np.maximum(size - 1, 1), 0.0)
    values = relevant / size * (before + 1 + others) / (ranked.place + 1)
    return _over(ranked.per_query(np.where(ranked.place < k, values, 0.0)), np.minimum(positives, k))


def _rank(score: Floats, relevance: Floats, groups: NDArray[Any], k: int) -> _Ranked:
    if not score.shape == relevance.shape == groups.shape or score.ndim != 1 or not score.size:
        raise ValueError(f"shapes {score.shape}, {relevance.shape}, {groups.shape} are not those of three arrays of one length above 0")
    if np.isnan(score).any() or not (relevance >= 0).all():
        raise ValueError("a score is NaN, or a relevance is NaN or below 0: drop its row")
    if k < 1:
        raise ValueError(f"k {k} is not a number of places, 1 or more")
    query, queries = _codes(groups)
    order = _falling(score, query)
    query, score = query[order], score[order]
    new_query = np.append(True, query[1:] != query[:-1])
    new_tie = new_query | np.append(True, score[1:] != score[:-1])
    rows, starts, first = np.arange(len(score)), np.flatnonzero(new_query), np.flatnonzero(new_tie)
    size = np.diff(np.append(first, len(score)))
    return _Ranked(relevance[order].astype(np.float64), query, rows - starts[query], np.cumsum(new_tie) - 1, first, size, queries)


def _codes(groups: NDArray[Any]) -> tuple[Ints, int]:
    """The number of each row's group among the sorted distinct ones, and how many there are."""
    changed = groups[1:] != groups[:-1]
    heads = groups[np.append(True, changed)]
    if len(heads) == 1 or (heads[1:] > heads[:-1]).all():
        return np.append(0, np.cumsum(changed)), len(heads)
    distinct, codes = np.unique(groups, return_inverse=True)
    return codes, len(distinct)


def _falling(values: Floats, query: Ints) -> Ints:
    """Rows by query, then by falling value: two sorts of one key each, faster than one of two keys."""
    order = np.argsort(-values)
    return order[np.argsort(query[order], kind="stable")]


def _discounted(ranked: _Ranked, gain: Floats, k: int) -> Floats:
    top = np.flatnonzero(ranked.place < k)
    return ranked.per_query(gain[top] / np.log2(ranked.place[top] + 2.0), top)


def _positives(ranked: _Ranked) -> Floats:
    return ranked.per_query((ranked.relevance > 0).astype(np.float64))


def _found(ranked: _Ranked, k: int) -> Floats:
    """Expected number of relevant rows among the first ``k`` of each query."""
    expected = (ranked.per_tie((ranked.relevance > 0).astype(np.float64)) / ranked.size)[ranked.tie]
    return ranked.per_query(np.where(ranked.place < k, expected, 0.0))


def _before(ranked: _Ranked) -> Floats:
    """Relevant rows of the same query in the ties above, for each row."""
    relevant = ranked.per_tie((ranked.relevance > 0).astype(np.float64))
    above = np.cumsum(relevant) - relevant
    starts = np.flatnonzero(ranked.place == 0)
    return above[ranked.tie] - above[ranked.tie[starts]][ranked.query]


def _first_at(ranked: _Ranked) -> Floats:
    """The chance that a row's place holds the first relevant row of its query.

    In a tie of ``t`` rows, ``r`` of them relevant, the first relevant one comes ``j``-th in ``C(t - j, r - 1)`` of ``C(t, r)`` orders.
    """
    logs = np.append(0.0, np.cumsum(np.log(np.arange(1, ranked.size.max() + 1))))
    size = ranked.size[ranked.tie]
    relevant = ranked.per_tie((ranked.relevance > 0).astype(np.float64)).astype(np.int64)[ranked.tie]
    left = size - 1 - (np.arange(len(size)) - ranked.first[ranked.tie])
    able = (relevant > 0) & (left >= relevant - 1) & (_before(ranked) == 0)
    t, r, left = size[able], relevant[able], left[able]
    chance = np.zeros(len(size))
    chance[able] = np.exp(logs[left] - logs[r - 1] - logs[left - r + 1] - logs[t] + logs[r] + logs[t - r])
    return chance


def _over(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
