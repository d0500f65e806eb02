"""Tuning: declared searches over settings."""
