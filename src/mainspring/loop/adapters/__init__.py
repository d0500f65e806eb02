"""Engines that the loop hands work to."""
