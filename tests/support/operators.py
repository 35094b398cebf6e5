"""
The fields that operators of Kubernetes know, as far as one would use them here; no other is taken.

Sources, read on 2026-11-21: keda.sh/docs/2.18/reference/scaledobject-spec and
keda.sh/docs/2.18/scalers/prometheus; the `PodMonitor` of
github.com/prometheus-operator/prometheus-operator, Documentation/api-reference/api.md.
"""

from typing import Any

STRING, WHOLE, FLAG = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"enum": ["true", "false"]},
)
NUMBER = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
STRINGS = {"type": "object", "additionalProperties": STRING}
DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}


def fields(known: dict[str, Any], *required: str) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": known,
        "required": list(required),
        "additionalProperties": False,
    }


def resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """What all resources have, around a specification."""
    metadata = fields({"name": STRING, "labels": STRINGS, "annotations": STRINGS}, "name")
    return fields(
        {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec},
        "apiVersion", "kind", "metadata", "spec",
    )  # fmt: skip


PROMETHEUS_SCALER = fields(
    {
        "serverAddress": STRING, "query": STRING, "threshold": NUMBER,
        "activationThreshold": NUMBER, "namespace": STRING, "customHeaders": STRING,
        "ignoreNullValues": FLAG, "queryParameters": STRING, "unsafeSsl": FLAG, "timeout": NUMBER,
        "authModes": STRING,
    },
    "serverAddress", "query", "threshold",
)  # fmt: skip
"""For KEDA's schema it is any map of strings."""
TRIGGER = fields(
    {
        "type": {"const": "prometheus"},
        "name": STRING,
        "metricType": {"enum": ["AverageValue", "Value"]},
        "useCachedMetrics": {"type": "boolean"},
        "authenticationRef": fields({"name": STRING, "kind": STRING}, "name"),
        "metadata": PROMETHEUS_SCALER,
    },
    "type",
    "metadata",
)
TARGET = {"apiVersion": STRING, "kind": STRING, "name": STRING, "envSourceContainerName": STRING}
AUTOSCALER = {"name": STRING, "behavior": {"type": "object"}}
ADVANCED = {
    "restoreToOriginalReplicaCount": {"type": "boolean"},
    "horizontalPodAutoscalerConfig": fields(AUTOSCALER),
}
SCALED_OBJECT = fields(
    {
        "scaleTargetRef": fields(TARGET, "name"),
        "pollingInterval": WHOLE,
        "cooldownPeriod": WHOLE,
        "minReplicaCount": WHOLE,
        "maxReplicaCount": WHOLE,
        "advanced": fields(ADVANCED),
        "triggers": {"type": "array", "items": TRIGGER, "minItems": 1},
    },
    "scaleTargetRef",
    "triggers",
)
ENDPOINT = fields(
    {
        "port": STRING, "path": STRING, "interval": DURATION, "scrapeTimeout": DURATION,
        "params": {"type": "object", "additionalProperties": {"type": "array", "items": STRING}},
    },
    "port",
)  # fmt: skip
POD_MONITOR = fields(
    {
        "selector": fields({"matchLabels": STRINGS}),
        "podMetricsEndpoints": {"type": "array", "items": ENDPOINT, "minItems": 1},
    },
    "selector",
)

OPERATORS = {
    "ScaledObject": resource("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
    "PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
}
