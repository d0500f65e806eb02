"""Engines of training and tuning, imported when they are used."""
