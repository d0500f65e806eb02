"""Mainspring: declare a production machine-learning system once; run, measure and prove the whole loop."""

from mainspring.spec import (
    GroupMedian,
    Label,
    LightGBM,
    LinearRule,
    Monitor,
    Policy,
    RecentRatio,
    Requirements,
    Rollout,
    Source,
    System,
    at_least,
    at_most,
    between,
    feature,
)

__version__ = "0.1.0"

__all__ = [
    "GroupMedian",
    "Label",
    "LightGBM",
    "LinearRule",
    "Monitor",
    "Policy",
    "RecentRatio",
    "Requirements",
    "Rollout",
    "Source",
    "System",
    "at_least",
    "at_most",
    "between",
    "feature",
]
