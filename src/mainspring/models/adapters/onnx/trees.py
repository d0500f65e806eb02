"""Trees as one node of ONNX: the same comparisons on the same numbers, so that a row falls into the same leaf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.models.adapters.onnx.graph import ML, Graph, numpy_helper
from mainspring.models.trees import Ensemble, Split

_AT_MOST, _LESS, _AMONG = 0, 1, 6
_SUM = 1


def write(ensemble: Ensemble, graph: Graph, x: str) -> str:
    """The scores of shape ``(n, outputs)``, of the ensemble's ``dtype`` like ``x``."""
    table = _Table()
    roots = [table.place(tree, number % ensemble.outputs) for number, tree in enumerate(ensemble.trees)]
    return graph.add("TreeEnsemble", x, domain=ML, tree_roots=roots, n_targets=ensemble.outputs, **table.attributes(ensemble.dtype))


@dataclass
class _Table:
    """Splits and leaves in rows, as the operator ``TreeEnsemble`` takes them."""

    splits: list[Split] = field(default_factory=list)
    branches: list[list[int]] = field(default_factory=list)
    leaves: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def place(self, split: Split, target: int) -> int:
        """The row that a split gets; all below it get theirs."""
        row = len(self.splits)
        self.splits.append(split)
        self.branches.append([0, 0])
        self.branches[row] = [self._branch(split.low, target), self._branch(split.high, target)]
        return row

    def _branch(self, branch: Split | float, target: int) -> int:
        if isinstance(branch, Split):
            return self.place(branch, target)
        self.leaves.append(branch)
        self.targets.append(target)
        return len(self.leaves) - 1

    def attributes(self, dtype: npt.DTypeLike) -> dict[str, Any]:
        """The operator's attributes; a set of members ends with a NaN."""
        splits, (low, high) = self.splits, zip(*self.branches, strict=True)
        members = [code for split in splits if split.members for code in (*split.members, np.nan)]
        modes = [_AMONG if split.members else _LESS if split.less else _AT_MOST for split in splits]
        return {
            "aggregate_function": _SUM,
            "nodes_featureids": [split.column for split in splits],
            "nodes_splits": numpy_helper.from_array(np.array([split.value for split in splits], dtype=dtype)),
            "nodes_modes": numpy_helper.from_array(np.array(modes, dtype=np.uint8)),
            "nodes_truenodeids": list(low),
            "nodes_falsenodeids": list(high),
            "nodes_trueleafs": [int(not isinstance(split.low, Split)) for split in splits],
            "nodes_falseleafs": [int(not isinstance(split.high, Split)) for split in splits],
            "nodes_missing_value_tracks_true": [int(split.missing_low) for split in splits],
            "leaf_targetids": self.targets,
            "leaf_weights": numpy_helper.from_array(np.array(self.leaves, dtype=dtype)),
            **({"membership_values": numpy_helper.from_array(np.array(members, dtype=dtype))} if members else {}),
        }
