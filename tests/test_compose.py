"""`docker-compose.yml`, by hand: its environment and its commands, without an engine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from simulator.client import Simulator
from tests.support.fleet import BIN, Fleet, fleet

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{(\w+):-((?:[^{}$]|\$\{[^{}]*\})*)\}")
VENDORS = {
    "ANTHROPIC": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "claude"),
    "OPENAI": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "gpt/v1"),
    "GEMINI": ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "gemini"),
    "GOOGLE": ("GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "gemini"),
}


def interpolated(text: str, host: dict[str, str]) -> str:
    """Replace the variables as Compose does, nested defaults too."""
    while found := VARIABLE.search(text):
        value = host.get(found[1]) or found[2]
        text = text[: found.start()] + value + text[found.end() :]
    assert "$" not in text
    return text


def environment(service: str, host: dict[str, str]) -> dict[str, str]:
    """Return what the container's process sees of the host's variables, and of the image's."""
    image = dict(re.findall(r"(\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    own = {k: interpolated(str(v), host) for k, v in SERVICES[service]["environment"].items()}
    return {"ROLES_FILE": image["ROLES_FILE"], **own}


def inside(environ: dict[str, str], workers: Fleet) -> dict[str, str]:
    """Put the container's paths and hosts where they are here."""
    here = {"/etc/breakwater": str(ROOT), "/var/lib/breakwater": str(workers.folder),
            "redis://redis:6379/0": workers.environ["REDIS_URL"]}  # fmt: skip
    for name, value in environ.items():
        for container, host in here.items():
            value = value.replace(container, host)
        environ[name] = value
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(workers.folder),
        **environ,
        "BREAKWATER_GRACE_S": "5",
    }


def words(service: str) -> list[str]:
    return [str(word) for word in SERVICES[service]["command"]]


def test_a_folder_is_mounted_and_not_the_file() -> None:
    """An editor writes another file and renames it: a mounted file stays what it was."""
    for service in ("check", "worker"):
        source, target, *_ = interpolated(SERVICES[service]["volumes"][0], {}).split(":")
        assert target == "/etc/breakwater"
        assert (ROOT / source).is_dir()
        assert (ROOT / source / "roles.yaml").is_file()


def test_the_worker_starts_only_if_the_check_has_passed() -> None:
    """It would be restarted for ever; a check that failed says so once."""
    assert SERVICES["worker"]["depends_on"]["check"] == {
        "condition": "service_completed_successfully"
    }
    assert SERVICES["check"]["restart"] == "no"
    assert environment("check", {"OPENAI_API_KEY": "k"}) == environment(
        "worker", {"OPENAI_API_KEY": "k"}
    )


@pytest.mark.slow
def test_without_a_key_it_says_what_is_missing(redis_url: str) -> None:
    """One fault, with every variable that would do; no traceback."""
    with fleet(redis_url, "") as workers:
        environ = inside(environment("check", {}), workers)
        done = subprocess.run(
            [BIN / words("check")[0], *words("check")[1:]],
            env=environ, cwd=workers.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    assert done.returncode == 3
    assert "no provider is left" in done.stdout
    assert all(
        key in done.stdout for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY")
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
def test_any_one_key_is_enough(redis_url: str, vendor: str) -> None:
    """The check passes, every role is served, and a role's answer comes from that vendor."""
    key, base_url, label = VENDORS[vendor]
    with Simulator.start() as simulator, fleet(redis_url, "") as workers:
        host = {key: "sk-only-one", base_url: f"{simulator.base_url}/{label}"}
        workers.environ = inside(environment("worker", host), workers)
        check = workers.command(*words("check"), timeout_s=120)
        workers.start(1, "threads", 4)
        asked = [
            workers.command("breakwater", "ask", role, "hi", timeout_s=120)
            for role in ("clarifier", "reviewer")
        ]

    assert check.returncode == 0, check.stdout
    assert check.stdout.count("left out of every chain") == 2
    assert "restart the workers" in check.stdout
    assert [each.returncode for each in asked] == [0, 0], asked


def test_the_demo_environment_sets_every_key() -> None:
    """`--env-file deploy/demo.env` puts the simulator underneath all three."""
    demo = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / "demo.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    seen = environment("worker", demo)

    assert all(seen[name] for pair in VENDORS.values() for name in pair[:2] if name in seen)
    assert all("simulator:8900" in seen[base_url] for _, base_url, _ in VENDORS.values())


def _mounted() -> bool:
    """Tell whether this process may mount, in a namespace of its own."""
    return (
        sys.platform == "linux"
        and not subprocess.run(
            ["unshare", "--mount", "true"], capture_output=True, check=False
        ).returncode
    )


@pytest.mark.skipif(not _mounted(), reason="needs the right to mount")
@pytest.mark.parametrize(("what", "seen"), [("folder", "new"), ("file", "old")])
def test_a_rename_is_seen_through_a_mounted_folder(tmp_path: Path, what: str, seen: str) -> None:
    """What Compose does with a volume, by a bind mount; and why it is not the file's."""
    for name in ("host", "container"):
        (tmp_path / name).mkdir()
    (tmp_path / "host" / "roles.yaml").write_text("old")
    (tmp_path / "container" / "roles.yaml").touch()
    end = "" if what == "folder" else "/roles.yaml"
    script = f"""
mount --bind host{end} container{end} &&
printf new > host/.roles.yaml.swp && mv host/.roles.yaml.swp host/roles.yaml &&
cat container/roles.yaml
"""

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # fmt: skip

    assert done.stdout == seen
