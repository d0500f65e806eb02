"""LightGBM, round by round, for a search that stops early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mainspring.errors import MissingExtraError
from mainspring.models.protocol import Rows


@dataclass(frozen=True)
class BoostingRounds:
    """Fits trees to ``rows`` and scores ``held_out`` by LightGBM's own ``metric`` after each of at most ``rounds`` rounds.

    ``parameters`` are LightGBM's; the settings of a trial come over them. To be wrapped into `EarlyStopping`.
    """

    rows: Rows
    held_out: Rows
    metric: str
    rounds: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    threads: int = 1

    def __call__(self, settings: Mapping[str, Any], enough: Callable[[int, float], bool]) -> None:
        """Fit with these settings until it is enough.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        given = {"metric": self.metric, "seed": self.seed, "num_threads": self.threads, "deterministic": True, "force_row_wise": True}
        parameters = {**self.parameters, **given, "verbosity": -1, **settings}

        def after(round_: Any) -> None:
            if enough(round_.iteration + 1, round_.evaluation_result_list[0][2]):
                raise lightgbm.callback.EarlyStopException(round_.iteration, round_.evaluation_result_list)

        train = lightgbm.Dataset(self.rows.x, self.rows.y, weight=self.rows.weight, params=parameters)
        valid = lightgbm.Dataset(self.held_out.x, self.held_out.y, weight=self.held_out.weight, reference=train, params=parameters)
        lightgbm.train(parameters, train, self.rounds, valid_sets=[valid], callbacks=[after])


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("The LightGBM model", "lightgbm", "lightgbm") from error
    return lightgbm
