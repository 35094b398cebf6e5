"""How the commands read and show ages, counts and amounts."""

from decimal import Decimal

import pytest
import typer

from workers.terminal.figures import age, dollars, moment_ms, number_of, seconds, short


@pytest.mark.parametrize(
    ("text", "age_s"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800)]
)
def test_an_age_is_read_in_its_unit(text: str, age_s: float) -> None:
    """Without a unit it is in seconds."""
    assert seconds(text) == age_s


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1 h"])
def test_a_wrong_age_is_refused_with_examples(text: str) -> None:
    """The message names the value and what would be right."""
    with pytest.raises(typer.BadParameter, match="is not a valid age, such as 90s, 30m, 2h or 7d"):
        seconds(text)


def test_a_date_without_a_zone_is_in_utc() -> None:
    """As every time that the commands print."""
    assert moment_ms("1970-01-02") == 86_400_000
    assert moment_ms("1970-01-02T01:00+01:00") == 86_400_000
    with pytest.raises(typer.BadParameter, match="is not a valid time"):
        moment_ms("yesterday")


@pytest.mark.parametrize(
    ("age_s", "shown"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 m"),
        (7199, "120 m"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_an_age_is_shown_in_the_largest_unit_of_which_it_has_two(age_s: float, shown: str) -> None:
    """A clock that was set back makes no negative age."""
    assert age(age_s) == shown


def test_counts_and_amounts_are_short() -> None:
    """One of a thing has no plural; an amount below a dollar keeps four decimals."""
    assert [number_of(0, "role"), number_of(1, "role")] == ["0 roles", "1 role"]
    assert [short(n) for n in (999, 12_345, 2_000_000, 10**9)] == ["999", "12.3k", "2M", "1G"]
    amounts = (Decimal(0), Decimal("0.0123"), Decimal("1.005"))
    assert [dollars(amount) for amount in amounts] == ["0.00", "0.0123", "1.00"]
