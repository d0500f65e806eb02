"""Measures and their uncertainty: pure functions on NumPy arrays. Rows with nulls are the caller's to drop."""

from mainspring.metrics.auc import auc_interval, delong
from mainspring.metrics.calibration import Calibration, calibration_error, calibration_line, reliability, spiegelhalter
from mainspring.metrics.catalog import METRICS, Metric
from mainspring.metrics.change import PageHinkley, page_hinkley
from mainspring.metrics.classification import (
    Confusion,
    Steps,
    accuracy,
    average_precision,
    brier,
    confusion,
    f1,
    log_loss,
    mcc,
    precision,
    recall,
    roc_auc,
    steps,
)
from mainspring.metrics.drift import Reference, fit_reference, histogram, js_distance, js_distances, js_noise
from mainspring.metrics.intervals import binomial_below, clopper_pearson, quantile_interval, ratio_interval, wilson
from mainspring.metrics.multiclass import class_counts, macro_f1, multiclass_accuracy, multiclass_log_loss
from mainspring.metrics.multiple import benjamini_hochberg, holm
from mainspring.metrics.paired import Comparison, Ratio, mcnemar, paired_auc, paired_bootstrap, paired_ratio, wilcoxon
from mainspring.metrics.ranking import average_precision_at, hit_rate, ndcg, precision_at, recall_at, reciprocal_rank
from mainspring.metrics.regression import bias, coverage, mae, pinball, rmse
from mainspring.metrics.resampling import bootstrap, bootstrap_interval
from mainspring.metrics.sequential import Moments, confidence_sequence, lower_sequence, upper_sequence

__all__ = [
    "METRICS",
    "Calibration",
    "Comparison",
    "Confusion",
    "Metric",
    "Moments",
    "PageHinkley",
    "Ratio",
    "Reference",
    "Steps",
    "accuracy",
    "auc_interval",
    "average_precision",
    "average_precision_at",
    "benjamini_hochberg",
    "bias",
    "binomial_below",
    "bootstrap",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "calibration_line",
    "class_counts",
    "clopper_pearson",
    "confidence_sequence",
    "confusion",
    "coverage",
    "delong",
    "f1",
    "fit_reference",
    "histogram",
    "hit_rate",
    "holm",
    "js_distance",
    "js_distances",
    "js_noise",
    "log_loss",
    "lower_sequence",
    "macro_f1",
    "mae",
    "mcc",
    "mcnemar",
    "multiclass_accuracy",
    "multiclass_log_loss",
    "ndcg",
    "page_hinkley",
    "paired_auc",
    "paired_bootstrap",
    "paired_ratio",
    "pinball",
    "precision",
    "precision_at",
    "quantile_interval",
    "ratio_interval",
    "recall",
    "recall_at",
    "reciprocal_rank",
    "reliability",
    "rmse",
    "roc_auc",
    "spiegelhalter",
    "steps",
    "upper_sequence",
    "wilcoxon",
    "wilson",
]
