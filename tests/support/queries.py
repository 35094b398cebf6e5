"""The queries of the alert rules, of the dashboard, and of what scales the workers."""

import json
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "breakwater.json"
SCALING = DEPLOY / "kubernetes" / "scaledobject.yaml"
VARIABLES = {"$__rate_interval": "5m", "$provider": ".*", "$role": ".*"}
"""What Grafana puts in."""


def of_rules() -> dict[str, str]:
    """Name each alert's query."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def of_dashboard() -> dict[str, str]:
    """Name each panel's queries, with the variables filled in."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": _filled(target["expr"])
        for panel in panels
        for target in panel.get("targets", ())
    }


def of_scaling() -> dict[str, str]:
    """Name each trigger's query."""
    triggers = yaml.safe_load(SCALING.read_text())["spec"]["triggers"]
    return {f"scaling by {trigger['name']}": trigger["metadata"]["query"] for trigger in triggers}


def _filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query
