"""The third record: versions of systems, datasets and models, and every decision about them."""

from mainspring.model_registry.deployment import MOVES, Decision, Deployment, fold, step
from mainspring.model_registry.registry import Registry, Version

__all__ = ["MOVES", "Decision", "Deployment", "Registry", "Version", "fold", "step"]
