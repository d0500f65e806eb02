"""Engines that answer features, and streams that feed them."""
