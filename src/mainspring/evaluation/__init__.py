"""Evaluation: how good a model is, against what, and whether it may go on."""
