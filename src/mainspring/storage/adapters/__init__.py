"""Engines behind the storage protocols."""
