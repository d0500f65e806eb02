"""Measures and their uncertainty: pure functions on NumPy arrays. Rows with nulls are the caller's to drop."""

from mainspring.metrics.change import PageHinkley, page_hinkley
from mainspring.metrics.drift import Reference, fit_reference, histogram, js_distance, js_distances, js_noise
from mainspring.metrics.intervals import quantile_interval, ratio_interval, wilson
from mainspring.metrics.regression import bias, coverage, mae, pinball, rmse
from mainspring.metrics.sequential import Moments, confidence_sequence, lower_sequence, upper_sequence

__all__ = [
    "Moments",
    "PageHinkley",
    "Reference",
    "bias",
    "confidence_sequence",
    "coverage",
    "fit_reference",
    "histogram",
    "js_distance",
    "js_distances",
    "js_noise",
    "lower_sequence",
    "mae",
    "page_hinkley",
    "pinball",
    "quantile_interval",
    "ratio_interval",
    "rmse",
    "upper_sequence",
    "wilson",
]
