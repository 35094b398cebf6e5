"""The cost of a call: by the library, unless the roles file has a price."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices.data_snapshot import get_snapshot

from breakwater.attempt import Cost, Usage
from tasks.config import ProviderSettings, Settings
from tasks.ledger.prices import MAX_CACHED, PriceList, from_genai_prices

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)
MTOK = Usage(input_tokens=1_000_000, output_tokens=1_000_000)

USAGES = [
    Usage(),
    Usage(1000, 100),
    Usage(201, 7, 100, 1, 7),
    Usage(300_000, 1000, 200_000, 50_000, 500),
    Usage(2_000_000, 64_000, 0, 1_999_999, 0),
]


@pytest.mark.parametrize("usage", USAGES)
def test_our_sum_is_the_librarys(usage: Usage) -> None:
    """For every model of the library; our sum takes 3 us, the library's 129."""
    theirs = TheirUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_reasoning_tokens=usage.reasoning_tokens or None,
    )
    compared = 0
    for vendor in get_snapshot().providers:
        for model in vendor.models:
            if prices := from_genai_prices(model.get_prices(AT)):
                theirs_usd = model.calc_price(theirs, vendor, genai_request_timestamp=AT)
                assert prices.usd(usage) == theirs_usd.total_price, (vendor.id, model.id)
                compared += 1
    assert compared > 1500


def prices(adapter: str, base_url: str | None = None, **table: dict[str, str]) -> PriceList:
    prices_of_file = {
        model.replace("any", "*"): {kind: Decimal(usd) for kind, usd in kinds.items()}
        for model, kinds in table.items()
    }
    provider = ProviderSettings("p", adapter, "m", base_url=base_url, prices=prices_of_file)
    return PriceList(Settings({"p": provider}, {}, version="v1"))


def test_the_answering_model_comes_before_the_requested_one() -> None:
    """A dated model answers for an alias, and the list may lack the dated one."""
    listed = prices("anthropic")

    exact = listed.cost("p", ("claude-haiku-4-5-20251001", "x"), MTOK, AT_MS)
    asked = listed.cost("p", ("no-such-model", "claude-haiku-4-5"), MTOK, AT_MS)

    assert exact == asked
    assert (exact.text, exact.source) == ("6", "genai-prices")


def test_an_unknown_price_is_no_price() -> None:
    """The cost is never 0: the call may have to be paid."""
    assert prices("anthropic").cost("p", ("my-model",), MTOK, AT_MS) == Cost(None, "unpriced")
    local = prices("openai-chat", "http://127.0.0.1:8000/v1")
    assert local.cost("p", ("gpt-4o",), MTOK, AT_MS).source == "unpriced"


def test_a_gateway_in_front_of_a_vendor_has_the_vendors_prices() -> None:
    """A server with OpenAI's chat format has the prices of its address, if it is listed."""
    gateway = prices("anthropic", "https://llm.example.com")
    router = prices("openai-chat", "https://openrouter.ai/api/v1")

    assert gateway.cost("p", ("claude-haiku-4-5",), MTOK, AT_MS).text == "6"
    assert router.cost("p", ("openai/gpt-4o",), MTOK, AT_MS).source == "genai-prices"


def test_the_roles_file_comes_first() -> None:
    """By model, else by `*`; by default cached input costs as much as other input."""
    listed = prices(
        "anthropic",
        special={"input_tokens": "1", "output_tokens": "2", "cached_input_tokens": "0.1"},
        any={"input_tokens": "0.5", "output_tokens": "0.25"},
    )
    usage = Usage(input_tokens=3_000_000, output_tokens=1_000_000, cached_input_tokens=1_000_000)

    special = listed.cost("p", ("special",), usage, AT_MS)
    other = listed.cost("p", ("claude-haiku-4-5",), usage, AT_MS)

    assert (special.text, special.source, special.version) == ("4.1", "roles.yaml", "v1")
    assert other.text == "1.75"


def test_a_call_has_the_price_of_its_day() -> None:
    """o3 cost 10 dollars per million tokens of input until 2025-06-10, then 2."""
    usage = Usage(input_tokens=1_000_000)
    listed = prices("openai")

    then = listed.cost(
        "p", ("o3",), usage, int(datetime(2025, 5, 1, tzinfo=UTC).timestamp()) * 1000
    )
    now = listed.cost("p", ("o3",), usage, AT_MS)

    assert (then.text, now.text) == ("10", "2")


def test_small_costs_keep_their_digits() -> None:
    """Decimal strings without exponents."""
    listed = prices("anthropic", any={"input_tokens": "0.000001", "output_tokens": "0"})

    assert listed.cost("p", ("m",), Usage(input_tokens=1), AT_MS).text == "0.000000000001"
    assert listed.cost("p", ("m",), Usage(), AT_MS).text == "0"


ONE, FIFTY = ({"input_tokens": usd, "output_tokens": usd} for usd in ("1", "50"))


@pytest.mark.parametrize(
    ("named", "models"),
    [
        ("m-1", ("m-1", "m-1")),
        ("m-1", ("m-1-2026-08-06", "m-1")),
        ("m-1", ("m-1-20260806", "m-1")),
        ("m-1", ("M One", "m-1")),
        ("m-1", ("m-1-2026-08-06", "m-1-latest")),
        ("m-1", ("m-1-2026-08-06", "m-1-2026-08-06")),
        ("m-1", ("m-1@20260806", "m-1@20260806")),
        ("m-1", ("m-1-0806", "m-1-0806")),
        ("m-1", ("m-1-001", "m-1-001")),
        ("m-1", ("models/m-1", "models/m-1")),
        ("m-1", ("vendor/m-1-2026-08-06", "vendor/m-1")),
        ("vendor/m-1", ("m-1-2026-08-06", "vendor/m-1")),
        ("m-1-2026-08-06", ("m-1-2026-08-06", "m-1")),
        ("m-*", ("m-1-mini", "m-1-mini")),
        ("m-1-*", ("m-1-mini-2026-08-06", "m-1-mini")),
    ],
)
def test_a_models_own_price_beats_the_catch_all(named: str, models: tuple[str, ...]) -> None:
    """`*` covers models without a price of their own, in any order of the table."""
    provider = ProviderSettings("p", "openai-chat", "m")
    for table in ({"*": FIFTY, named: ONE}, {named: ONE, "*": FIFTY}):
        prices_of_file = {
            name: {kind: Decimal(usd) for kind, usd in each.items()} for name, each in table.items()
        }
        listed = PriceList(Settings({"p": replace(provider, prices=prices_of_file)}, {}))

        assert listed.cost("p", models, Usage(input_tokens=1_000_000), AT_MS).text == "1"


def test_the_nearest_name_wins() -> None:
    """A dated name before its alias, the alias before a family, the longer family first."""
    usd = {"m-1-2026-08-06": "1", "m-1": "2", "m-1-*": "3", "m-*": "4", "*": "5"}
    table = {name: {"input_tokens": each, "output_tokens": each} for name, each in usd.items()}
    prices_of_file = {
        name: {kind: Decimal(usd) for kind, usd in each.items()} for name, each in table.items()
    }
    listed = PriceList(
        Settings({"p": ProviderSettings("p", "openai-chat", "m", prices=prices_of_file)}, {})
    )

    asked = ("m-1-2026-08-06", "m-1-2026-01-01", "m-1-mini", "m-2", "n")

    assert [listed.cost("p", (m, m), Usage(1_000_000), AT_MS).text for m in asked] == [*"12345"]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"input_tokens": Decimal(1)},
        {"input_tokens": None, "output_tokens": None},
        {"input_tokens": Decimal("NaN"), "output_tokens": Decimal(1)},
        {"input_tokens": Decimal("Infinity"), "output_tokens": Decimal(1)},
        {"input_tokens": Decimal(-1), "output_tokens": Decimal(1)},
        {"input_tokens": "1", "output_tokens": Decimal(1)},
        3,
    ],
)
def test_a_bad_price_loses_no_answer(broken: Any) -> None:
    """The call is unpriced, although it was paid for."""
    provider = ProviderSettings("p", "openai-chat", "m", prices={"m": broken})

    cost = PriceList(Settings({"p": provider}, {})).cost("p", ("m",), Usage(10, 1), AT_MS)

    assert cost == Cost(None, "unpriced")


def test_a_price_list_that_fails_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever genai-prices raises, for any name."""

    def fail(*_: object) -> None:
        raise RuntimeError("CANARY")

    listed = prices("openai")
    for models in (("gpt-6\x00",), ("",), ("x" * 100_000,), (None,), (3.5,)):
        assert listed.cost("p", models, Usage(10, 1), AT_MS).usd is None  # type: ignore[arg-type]
    monkeypatch.setattr("tasks.ledger.prices._listed", fail)

    assert listed.cost("p", ("o3",), Usage(10, 1), AT_MS) == Cost(None, "unpriced")
    assert listed.cost("unknown", ("o3",), Usage(10, 1), AT_MS) == Cost(None, "unpriced")


def test_unknown_reasoning_matters_only_where_it_has_its_own_price() -> None:
    """Reasoning is part of the output, whose count is known."""
    usage = Usage(1_000_000, 1_000_000, 0, 0, None)

    assert prices("anthropic", any=ONE).cost("p", ("m",), usage, AT_MS).text == "2"


def test_the_cache_of_prices_is_bounded() -> None:
    """Each answer may name another model."""
    listed = prices("openai")
    for number in range(MAX_CACHED + 10):
        listed._cached["p", str(number)] = (0, None)
        if number < MAX_CACHED - 1:
            continue
        listed.cost("p", (f"m-{number}",), Usage(1, 1), AT_MS)

    assert len(listed._cached) <= MAX_CACHED
