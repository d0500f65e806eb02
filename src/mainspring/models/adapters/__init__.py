"""Engines behind the estimators, imported when used."""
