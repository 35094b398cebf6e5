"""The catalogue of adapters: this package's rows, and those of installed packages."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from breakwater.attempt import Usage
from breakwater.errors import ConfigError
from tasks import catalogue
from tasks.answering.settings_loader import load_settings
from tasks.ledger.prices import PriceList
from tasks.providers.registry import _adapter

Install = Callable[..., None]

ROW = """
from tasks.catalogue import AdapterSpec, Detection

class Acme:
    def __init__(self, settings):
        self.settings = settings

SPEC = AdapterSpec(
    name="acme", path="acme_row:Acme", media={"image"},
    params_not_taken={"seed": "Acme does not take it"}, key_needed="always",
    detection=Detection(
        key_variables=("ACME_API_KEY",), base_url_variable="ACME_BASE_URL",
        model_variable="ACME_MODEL", default_model="gpt-6-luna",
    ),
    otel_provider="acme", host="api.acme.test", price_vendor="openai", loggers=("acme_sdk",),
)
"""
ROLES = "{provider: acme, model: gpt-6-luna, api_key: k}"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of one module, with one entry point, for the length of a test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "_specs", dict(catalogue.ADAPTERS))

    def add(package: str = "acme-breakwater", module: str = "acme_row", code: str = ROW) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[breakwater.adapters]\nacme = {module}:SPEC\n")

    yield add
    for module in ("acme_row", "other_row"):
        sys.modules.pop(module, None)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose roles file names the adapter `acme`."""
    path = tmp_path / "roles.yaml"
    path.write_text(ROLES)
    return {"ROLES_FILE": str(path)}


def test_an_installed_package_adds_an_adapter_by_name(install: Install, environ: dict[str, str]):
    """Media, parameters, prices, loggers and the class come from its one row."""
    install()

    settings = load_settings(environ)

    provider = settings.providers["acme"]
    assert provider.media == {"image"}
    assert settings.unsupported_params(settings.role("any"), ["seed", "temperature"]) == {
        "seed": "provider 'acme': Acme does not take it"
    }
    cost = PriceList(settings).cost("acme", ("gpt-6-luna",), Usage(1000, 100, 0, 0, 0), 1)
    assert cost.usd
    assert cost.source == "genai-prices"
    assert _adapter("acme").__name__ == "Acme"
    assert logging.getLogger("acme_sdk").level == logging.WARNING


def test_opentelemetry_calls_it_as_its_row_does(install: Install):
    """The provider's name and the default host are the row's."""
    server = pytest.importorskip("tasks.telemetry.opentelemetry")._server
    install()

    assert server("mine", "acme", "") == ("acme", "api.acme.test", 443)


def test_it_is_detected_by_its_variables(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It comes after the vendors of this package."""
    install()
    monkeypatch.chdir(tmp_path)

    settings = load_settings({"ACME_API_KEY": "k", "OPENAI_API_KEY": "k"})

    assert list(settings.providers) == ["openai", "acme"]
    assert settings.providers["acme"].model == "gpt-6-luna"


def test_what_its_vendor_does_not_take_is_a_fault_at_the_provider(
    install: Install, environ: dict[str, str]
):
    """As for an adapter of this package."""
    install()
    Path(environ["ROLES_FILE"]).write_text(ROLES[:-1] + ", params: {seed: 1}}")

    with pytest.raises(ConfigError, match=r"params\.seed: Acme does not take it; remove it here"):
        load_settings(environ)


def test_a_key_is_missing_where_the_row_needs_one(install: Install, environ: dict[str, str]):
    """As for an adapter of this package."""
    install()
    Path(environ["ROLES_FILE"]).write_text("{provider: acme, model: m}")

    with pytest.raises(ConfigError, match="api_key is missing"):
        load_settings(environ)


def test_two_packages_with_one_name_are_both_named(install: Install, environ: dict[str, str]):
    """Neither is chosen."""
    install()
    install("other-breakwater", "other_row")

    with pytest.raises(ConfigError) as caught:
        load_settings(environ)

    assert "is registered by acme-breakwater 1.2 (entry point 'acme' = 'acme_row:SPEC')" in str(
        caught.value
    )
    assert "and other-breakwater 1.2" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_sdk", "ModuleNotFoundError: No module named 'no_such_sdk'"),
        ("raise ValueError('sk-secret')", r"\(ValueError\)"),
        ("OTHER = 1", "AttributeError: module 'acme_row' has no attribute 'SPEC'"),
        ("SPEC = {}", "dict is not AdapterSpec"),
        (ROW.replace('"acme",', '"acne",', 1), "'acne' is not 'acme', the name of the entry point"),
        (ROW.replace('{"image"}', '{"video"}'), "media: {'video'} is not a set out of document"),
        (ROW.replace('{"image"}', '"image"'), "media: 'image' is not a set out of document"),
        (ROW.replace('"seed":', '"sead":'), "params_not_taken: .* is not a mapping of max_output"),
        (ROW.replace('"acme_row:Acme"', '"acme_row"'), "'acme_row' is not package.module:Class"),
        (ROW.replace('("acme_sdk",)', '"acme_sdk"'), "loggers: 'acme_sdk' is not a tuple of names"),
        (ROW.replace('"always"', '"yes"'), "key_needed: 'yes' is not one of always"),
        (ROW.replace("media=", "medai="), "unexpected keyword argument 'medai'"),
    ],
)
def test_a_row_that_cannot_be_used_names_package_and_entry_point(
    install: Install, environ: dict[str, str], code: str, message: str
):
    """The worker does not start; what an unknown error says may be a secret, and is left out."""
    install(code=code)

    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(environ)

    where = "cannot be read from acme-breakwater 1.2 (entry point 'acme' = 'acme_row:SPEC')"
    assert where in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_an_unknown_name_lists_the_installed_ones_too(install: Install, environ: dict[str, str]):
    """With the nearest of them."""
    install()
    Path(environ["ROLES_FILE"]).write_text("{provider: acne, model: m}")

    with pytest.raises(ConfigError, match=r"google, acme, or package.*did you mean 'acme'\?"):
        load_settings(environ)
