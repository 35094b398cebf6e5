"""deploy/kubernetes: what Kubernetes and its operators take, and what no schema knows."""

import ast
import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis
import yaml
from jsonschema import Draft202012Validator

from tasks.answering.settings_loader import load_settings
from tasks.config import Settings
from tests.support.fleet import BIN, wait_for
from tests.support.operators import OPERATORS
from tests.support.ports import free_port
from tests.support.queries import DEPLOY
from tests.support.valkey import Server
from workers.shutdown import EXIT_TIMEOUT_S

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION = FOLDER / "kustomization.yaml"
RESOURCES = {
    resource["kind"]: resource
    for file in yaml.safe_load(KUSTOMIZATION.read_text())["resources"]
    for resource in yaml.safe_load_all((FOLDER / file).read_text())
}
SECRETS = set(re.findall(r"--from-literal=(\w+)", KUSTOMIZATION.read_text()))
VERSIONS = ("1.30", "1.33", "1.37")

POD = RESOURCES["Deployment"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
ENVIRON = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What the ConfigMap's roles file says, with every key set."""
    path = tmp_path / Path(ENVIRON["ROLES_FILE"]).name
    path.write_text(RESOURCES["ConfigMap"]["data"][path.name])
    return load_settings({"ROLES_FILE": str(path), **dict.fromkeys(SECRETS, "k")})


def strings_in_our_code() -> set[str]:
    """Every literal of the packages; a variable that is read stands there as one."""
    files = (
        p
        for name in ("breaker", "breakwater", "tasks", "workers")
        for p in Path(name).rglob("*.py")
    )
    trees = (ast.parse(file.read_text()) for file in files)
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_file_is_a_resource() -> None:
    """One that is not listed is not applied."""
    listed = yaml.safe_load(KUSTOMIZATION.read_text())["resources"]

    assert {file.name for file in FOLDER.iterdir()} == {*listed, KUSTOMIZATION.name}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", sorted(RESOURCES.keys() - OPERATORS))
def test_kubernetes_takes_its_own(kind: str, version: str) -> None:
    """By its OpenAPI schema, in which an unknown field is an error."""
    kubernetes_validate.validate(RESOURCES[kind], version, strict=True)


@pytest.mark.parametrize("kind", OPERATORS)
def test_an_operator_takes_its_own(kind: str) -> None:
    """By the fields that its reference has."""
    Draft202012Validator(OPERATORS[kind]).validate(RESOURCES[kind])


def test_the_scaling_behavior_is_kubernetes_own() -> None:
    """KEDA hands it on to a HorizontalPodAutoscaler."""
    spec = RESOURCES["ScaledObject"]["spec"]
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", **spec["scaleTargetRef"]},
            "maxReplicas": spec["maxReplicaCount"],
            **spec["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }

    kubernetes_validate.validate(autoscaler, VERSIONS[-1], strict=True)


def test_all_of_them_mean_the_same_pods() -> None:
    """A selector that fits nothing is no error anywhere."""
    labels = RESOURCES["Deployment"]["spec"]["template"]["metadata"]["labels"]

    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert RESOURCES[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for spread in POD["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    scaled = RESOURCES["ScaledObject"]["spec"]["scaleTargetRef"]["name"]
    assert scaled == RESOURCES["Deployment"]["metadata"]["name"]


def test_calls_that_run_can_finish(settings: Settings) -> None:
    """A provider's total time, then our grace period, then Kubernetes' one: each the longer."""
    longest_s = max(provider.timeout.total_s for provider in settings.providers.values())
    grace_s = float(ENVIRON["BREAKWATER_GRACE_S"])

    assert longest_s < grace_s
    assert grace_s + EXIT_TIMEOUT_S <= POD["terminationGracePeriodSeconds"]
    behavior = RESOURCES["ScaledObject"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    assert longest_s < behavior["behavior"]["scaleDown"]["stabilizationWindowSeconds"]


def test_the_roles_are_valid_and_the_secret_has_their_keys(settings: Settings) -> None:
    """By our own checker; what the file expands is what the Secret is made with."""
    expanded = set(re.findall(r"\$\{(\w+)", RESOURCES["ConfigMap"]["data"]["roles.yaml"]))

    assert set(settings.roles) == {"planner", "coder", "reviewer"}
    assert expanded | {"REDIS_URL", "LEDGER_URL"} == SECRETS


def test_every_variable_is_one_that_we_read() -> None:
    """A misspelt one has no effect, and nobody is told."""
    assert (set(ENVIRON) | SECRETS) - strings_in_our_code() == set()


def test_what_is_written_is_written_to_a_volume() -> None:
    """The root is read-only; the roles file is in a folder of its own, so that it is updated."""
    mounts = {mount["mountPath"]: mount for mount in CONTAINER["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}

    for name in ("SPOOL_DIR", "PROMETHEUS_MULTIPROC_DIR"):
        mount = mounts[str(Path(ENVIRON[name]).parent)]
        assert "emptyDir" in volumes[mount["name"]]
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
    roles = mounts[str(Path(ENVIRON["ROLES_FILE"]).parent)]
    assert "subPath" not in roles
    assert volumes[roles["name"]]["configMap"]["name"] == RESOURCES["ConfigMap"]["metadata"]["name"]


def test_the_number_in_flight_that_is_aimed_at_fits_a_worker() -> None:
    """A target above the concurrency would never be reached, and nothing would be scaled."""
    triggers = RESOURCES["ScaledObject"]["spec"]["triggers"]
    (aim,) = [float(t["metadata"]["threshold"]) for t in triggers if t["name"] == "running"]
    command = CONTAINER["command"]

    assert aim < int(command[command.index("--concurrency") + 1])


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[tuple[str, Server]]:
    """The container's own command with its own variables, over a Redis that can be frozen."""
    port = free_port()
    here = {
        name: value.replace("/etc/breakwater", str(tmp_path)).replace(
            "/var/lib/breakwater", str(tmp_path)
        )
        for name, value in ENVIRON.items()
    }
    Path(here["ROLES_FILE"]).write_text(RESOURCES["ConfigMap"]["data"]["roles.yaml"])
    with Server() as server:
        secrets = {**dict.fromkeys(SECRETS, "k"), "REDIS_URL": server.url}
        secrets["LEDGER_URL"] = f"sqlite:///{tmp_path}/ledger.db"
        command = [BIN / CONTAINER["command"][0], *CONTAINER["command"][1:]]
        worker = subprocess.Popen(
            command, cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **here, **secrets, "METRICS_PORT": str(port)},
        )  # fmt: skip
        yield f"http://127.0.0.1:{port}{CONTAINER['livenessProbe']['httpGet']['path']}", server
        worker.send_signal(signal.SIGQUIT)
        worker.wait(180)


def status(url: str, timeout_s: float = 10) -> int:
    """What a probe gets; 0 if the port is closed."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return int(answer.status)
    except OSError:
        return 0


def test_the_probes_are_answered_also_without_redis(pod: tuple[str, Server]) -> None:
    """A Redis that is away must not have the workers restarted that wait for it."""
    url, server = pod
    wait_for(lambda: status(url) == 200, 40)
    client: Any = redis.Redis.from_url(server.url)
    wait_for(lambda: client.hlen("workers") == 1)

    server.freeze()
    frozen = status(url, CONTAINER["livenessProbe"]["timeoutSeconds"])
    server.thaw()

    assert frozen == 200


def test_the_image_and_the_example_start_the_same_worker() -> None:
    """What is recommended stands in two files."""
    (line,) = [
        line for line in Path("Dockerfile").read_text().splitlines() if line.startswith("CMD [")
    ]

    assert shlex.join(CONTAINER["command"]) == shlex.join(ast.literal_eval(line[4:]))
