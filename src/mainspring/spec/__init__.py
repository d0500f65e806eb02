"""Declarations: frozen, validated when made, free of input and output."""

from mainspring.spec.aggregate import Aggregate, View
from mainspring.spec.codec import code_hash
from mainspring.spec.expectation import Ahead, Expectation, Fixed, Fresh, Nulls, Rows, Unique
from mainspring.spec.feature import Column, Feature, Function, feature
from mainspring.spec.label import Baseline, GroupMedian, Label, LinearRule, RecentRatio
from mainspring.spec.model import LightGBM, Linear, Model, Net, Sklearn, XGBoost
from mainspring.spec.operation import PREVIOUS, Monitor, Policy, Rollout
from mainspring.spec.quality import Quality, at_least, at_most, between
from mainspring.spec.requirements import Costs, Requirements
from mainspring.spec.source import Source
from mainspring.spec.splits import GroupSplit, LeaveLastOut, TimeGroupSplit, TimeSplit
from mainspring.spec.system import System
from mainspring.spec.text import Text

__all__ = [
    "PREVIOUS",
    "Aggregate",
    "Ahead",
    "Baseline",
    "Column",
    "Costs",
    "Expectation",
    "Feature",
    "Fixed",
    "Fresh",
    "Function",
    "GroupMedian",
    "GroupSplit",
    "Label",
    "LeaveLastOut",
    "LightGBM",
    "Linear",
    "LinearRule",
    "Model",
    "Monitor",
    "Net",
    "Nulls",
    "Policy",
    "Quality",
    "RecentRatio",
    "Requirements",
    "Rollout",
    "Rows",
    "Sklearn",
    "Source",
    "System",
    "Text",
    "TimeGroupSplit",
    "TimeSplit",
    "Unique",
    "View",
    "XGBoost",
    "at_least",
    "at_most",
    "between",
    "code_hash",
    "feature",
]
