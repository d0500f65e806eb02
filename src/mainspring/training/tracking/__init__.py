"""Tracked runs: what went into a training, what came out, and on which machine and code."""
