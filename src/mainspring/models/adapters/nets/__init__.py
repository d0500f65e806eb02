"""Nets in PyTorch."""
