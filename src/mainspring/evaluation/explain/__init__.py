"""Explanations: what a model makes of each feature, how its answers follow one, and what would have to change for another answer."""
