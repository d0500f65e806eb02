"""Watching a system by its records alone: labels joined to predictions, error levels, drift of features.

Monitors are derived state: one made anew that observes the same windows in the same order is in the same state.
"""

from mainspring.monitoring.drift import DriftMonitor
from mainspring.monitoring.errors import ErrorMonitor, group_errors, window_errors
from mainspring.monitoring.labels import match
from mainspring.monitoring.reading import Reading
from mainspring.monitoring.windows import feature_arrays, split

__all__ = ["DriftMonitor", "ErrorMonitor", "Reading", "feature_arrays", "group_errors", "match", "split", "window_errors"]
