"""Engines that score for this process."""
