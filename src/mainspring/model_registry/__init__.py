"""The third record: versions of systems, datasets and models, and every decision about them."""

from mainspring.model_registry.compare import Difference
from mainspring.model_registry.deployment import MOVES, Decision, Deployment, fold, refusal, step
from mainspring.model_registry.manifest import ModelManifest
from mainspring.model_registry.records import Version
from mainspring.model_registry.registry import Registry, open_registry

__all__ = [
    "MOVES",
    "Decision",
    "Deployment",
    "Difference",
    "ModelManifest",
    "Registry",
    "Version",
    "fold",
    "open_registry",
    "refusal",
    "step",
]
