"""A System on Kubernetes: its manifests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mainspring.design.sizing import BUSY_SHARE, Sizing
from mainspring.gateway.processes.supervisor import STOP_SECONDS
from mainspring.spec import System

PORT = 8000
_LEAVE_SECONDS = 5
_MEMORY_MIB = 256
_USER = 10_001
_WORKSPACE = "/workspace"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the records and the online store are, as `Workspace` keeps them; every replica reads the same ones."""

    events: str
    online: str
    registry: str


def manifests(system: System, sizing: Sizing, addresses: Addresses, *, image: str, gateway: str) -> dict[str, Manifest]:
    """Every manifest by the name of its file, without ``.yaml``. ``gateway`` is the Gateway that the route hangs on.

    Answers are logged under ``predictions/`` of one claim that all replicas share, each under its pod's name.
    """
    name = system.name.replace("_", "-")
    keep = {"events.url": addresses.events, "online.url": addresses.online, "registry.url": addresses.registry}
    made = {
        "secret": ("v1", "Secret", name, {"stringData": keep}),
        "configmap": ("v1", "ConfigMap", name, {"data": {"OMP_NUM_THREADS": "1"}}),
        "claim": ("v1", "PersistentVolumeClaim", name, {"spec": _claim()}),
        "deployment": ("apps/v1", "Deployment", name, {"spec": _serving(name, sizing, image)}),
        "stream": ("apps/v1", "Deployment", f"{name}-stream", {"spec": _stream(system.name, name, image)}),
        "service": ("v1", "Service", name, {"spec": _service(name)}),
        "autoscaler": ("autoscaling/v2", "HorizontalPodAutoscaler", name, {"spec": _autoscaler(name, sizing)}),
        "disruption": ("policy/v1", "PodDisruptionBudget", name, {"spec": {"maxUnavailable": 1, "selector": _selector(name)}}),
        "network": ("networking.k8s.io/v1", "NetworkPolicy", name, {"spec": _network(name)}),
        "route": ("gateway.networking.k8s.io/v1", "HTTPRoute", name, {"spec": _route(system.name, name, gateway, sizing)}),
    }
    return {file: _manifest(*parts) for file, parts in made.items()}


def yaml(value: Any, indent: int = 0) -> str:
    """Plain data as YAML: blocks, with every string in double quotes as JSON has it."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{key}:{_nested(one, indent + 1)}" for key, one in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}- {yaml(one, indent + 1).lstrip()}" for one in value)
    return f"{pad}{json.dumps(value)}\n"


def _nested(value: Any, indent: int) -> str:
    return f"\n{yaml(value, indent)}" if isinstance(value, (dict, list)) and value else f" {json.dumps(value)}\n"


def _manifest(version: str, kind: str, name: str, body: Manifest) -> Manifest:
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "mainspring"}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _selector(name: str) -> Manifest:
    return {"matchLabels": {"app.kubernetes.io/name": name}}


def _serving(name: str, sizing: Sizing, image: str) -> Manifest:
    command = ["python", "-m", "mainspring.gateway", "--workspace", _WORKSPACE, "--host", "0.0.0.0", "--port", str(PORT)]
    command += ["--workers", str(sizing.workers), "--no-stream", "--name", "$(POD_NAME)"]
    container = {
        **_container(name, image, command, cores=sizing.workers, mebibytes=_MEMORY_MIB * (sizing.workers + 1)),
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {**_probe("/readyz"), "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**_probe("/readyz"), "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_SECONDS}}},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": _selector(name),
    }
    grace = _LEAVE_SECONDS + int(STOP_SECONDS) + 6
    pod = {**_pod(name, container), "topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": grace}
    return {
        "replicas": sizing.replicas,
        "selector": _selector(name),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": {"app.kubernetes.io/name": name}}, "spec": pod},
    }


def _stream(system: str, name: str, image: str) -> Manifest:
    """Exactly one process folds events into the online store: the old one is gone before the next starts."""
    own = f"{name}-stream"
    command = ["mainspring", "features", "stream", system, "--workspace", _WORKSPACE]
    return {
        "replicas": 1,
        "selector": _selector(own),
        "strategy": {"type": "Recreate"},
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": own}},
            "spec": _pod(name, _container(name, image, command, cores=1, mebibytes=2 * _MEMORY_MIB)),
        },
    }


def _container(name: str, image: str, command: list[str], *, cores: int, mebibytes: int) -> Manifest:
    kept = [{"name": "addresses", "mountPath": f"{_WORKSPACE}/{one}", "subPath": one, "readOnly": True} for one in _KEPT]
    return {
        "name": name,
        "image": image,
        "command": command,
        "envFrom": [{"configMapRef": {"name": name}}],
        "resources": {"requests": {"cpu": str(cores), "memory": f"{mebibytes}Mi"}, "limits": {"memory": f"{2 * mebibytes}Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "workspace", "mountPath": _WORKSPACE}, *kept, {"name": "scratch", "mountPath": "/tmp"}],
    }


_KEPT = ("events.url", "online.url", "registry.url")


def _pod(name: str, container: Manifest) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": name}},
            {"name": "addresses", "secret": {"secretName": name}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }


def _probe(path: str) -> Manifest:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 2}


def _claim() -> Manifest:
    return {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10Gi"}}}


def _service(name: str) -> Manifest:
    return {"selector": {"app.kubernetes.io/name": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}


def _autoscaler(name: str, sizing: Sizing) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": round(100 * BUSY_SHARE)}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": sizing.replicas,
        "maxReplicas": sizing.most_replicas,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }


def _network(name: str) -> Manifest:
    """Of what comes in, only requests; what goes out, to the stores, is not limited."""
    ports = [{"protocol": "TCP", "port": PORT}]
    return {"podSelector": _selector(name), "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]}


def _route(system: str, name: str, gateway: str, sizing: Sizing) -> Manifest:
    return {
        "parentRefs": [{"name": gateway}],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": f"/{one}/{system}"}} for one in ("v1", "v2/models")],
                "timeouts": {"request": f"{2 * sizing.limit_seconds}s"},
                "backendRefs": [{"name": name, "port": 80}],
            }
        ],
    }
