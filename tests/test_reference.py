"""docs/reference.md is what the docstrings say, and it has every public name."""

import inspect
from pathlib import Path

import pytest

import breaker
import breakwater
from breakwater import errors
from tools.reference import PAGE, TARGET, page

TEXT = TARGET.read_text()


def test_the_page_is_what_the_docstrings_say() -> None:
    """Type `make reference` after changing one."""
    assert page() == TEXT


@pytest.mark.parametrize("package", [breakwater, breaker])
def test_every_public_name_is_on_the_page(package: object) -> None:
    """All that `__all__` lists; the app is Celery's, and the errors have a table."""
    names = {*package.__all__} - {"app", "errors", "CompletionTask"}  # type: ignore[attr-defined]

    assert not [name for name in names if f"### {name}\n" not in TEXT]


def test_every_error_is_on_the_page() -> None:
    """With what it means."""
    classes = [
        name for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__ and issubclass(value, Exception)
    ]  # fmt: skip

    assert len(classes) > 30
    assert not [name for name in classes if f"| `{name}` |" not in TEXT]


def test_every_module_of_the_page_exists() -> None:
    """griffe would leave out what it does not find."""
    root = Path(breakwater.__file__).parents[1]

    for module in PAGE:
        path = root / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists()
