"""The distribution: its name, and the extras that hints and documents name."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HINT = re.compile(r"(?<![\w.-])breakwater(?P<llm>-llm)?\\*\[(?P<extras>[a-z,]+)\]")
"""A requirement with extras, such as `breakwater-llm[otel]`; the backslash is rich's."""


def _files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".env", ""}
    return [
        path
        for name in listed.split("\0")
        if name and (path := ROOT / name).suffix in suffixes and path.is_file()
    ]


def test_the_distribution_has_a_name_of_its_own() -> None:
    """`breakwater` on PyPI is another project's; the command and the packages keep their names."""
    assert PROJECT["name"] == "breakwater-llm"
    assert PROJECT["scripts"] == {"breakwater": "workers.cli:main"}


def test_the_image_is_built_from_every_package() -> None:
    """A package that Docker does not see, or the Dockerfile does not copy, ends the build."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    folders = {name.partition(".")[0] for name in packages} | {"docs"}
    seen = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = set(re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))

    assert seen - {"LICENSE"} == folders
    assert copied == folders


def test_every_hint_names_our_distribution_and_an_extra_that_it_has() -> None:
    """`pip install 'breakwater[…]'` would install somebody else's package."""
    hints = [
        (path.relative_to(ROOT), found)
        for path in _files()
        if path != Path(__file__)
        for found in HINT.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]

    assert len(hints) > 8
    for path, found in hints:
        assert found["llm"], f"{path}: {found[0]} is another project on PyPI"
        assert set(found["extras"].split(",")) <= set(PROJECT["optional-dependencies"]), path


@pytest.mark.parametrize("hint", ["breakwater[otel]", "pip install 'breakwater\\[demo]'"])
def test_the_foreign_name_would_be_found(hint: str) -> None:
    """The pattern above finds what it is there to refuse."""
    assert not HINT.search(hint)["llm"]
