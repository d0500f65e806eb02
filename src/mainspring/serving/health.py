"""What a service leaves out so that it can answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Health(NamedTuple):
    """What is left out: ``left_out`` says of every part under a breaker whether that is open.

    ``unshadowed`` counts answers whose shadow score was left out.
    """

    left_out: Mapping[str, bool]
    unshadowed: int = 0
