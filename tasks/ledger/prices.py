"""
What a completion costs: the prices of `genai-prices`, under those the roles file sets.

genai-prices knows 2,330 models with their tiers, hours and dates, works offline, and takes 129 µs
a look-up; so the prices of a model are looked up once a minute, and the sum is made here.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import structlog

from breakwater.attempt import UNCOUNTED, Cost, Usage
from tasks.catalogue import spec_of

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

    from tasks.config import ProviderSettings, Settings

MILLION = Decimal(1_000_000)
ANY_MODEL = "*"
MAX_KNOWN = 1_000
"""Models whose prices are kept."""
_DATED = re.compile(r"[-@:](latest|\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3}|\d{2}-\d{2,4})$")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens, each perhaps by the length of the input."""

    input: "Decimal | TieredPrices"
    output: "Decimal | TieredPrices"
    cached_input: "Decimal | TieredPrices"
    cache_write: "Decimal | TieredPrices"
    reasoning: "Decimal | TieredPrices"
    per_call_usd: Decimal = Decimal(0)
    """For each, whatever its tokens; in whole US dollars."""

    def usd(self, usage: Usage) -> Decimal | None:
        """Add up, not rounded; None if one of the counts is not known."""
        asked, answered = usage.input_tokens, usage.output_tokens
        cached, written = usage.cached_input_tokens, usage.cache_write_tokens
        reasoned = usage.reasoning_tokens
        if asked is None or answered is None:
            return None
        if reasoned is None and self.reasoning == self.output:
            reasoned = 0
        if cached is None or written is None or reasoned is None:
            return None
        tokens_usd = (
            (asked - cached - written) * tier_price(self.input, asked)
            + cached * tier_price(self.cached_input, asked)
            + written * tier_price(self.cache_write, asked)
            + (answered - reasoned) * tier_price(self.output, asked)
            + reasoned * tier_price(self.reasoning, asked)
        ) / MILLION
        return tokens_usd + self.per_call_usd


class PriceList:
    """The prices of a roles file's providers."""

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._known: dict[tuple[str, str], tuple[int, Prices | None]] = {}
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def cost(self, provider: str, models: tuple[str, ...], usage: Usage, at_ms: int) -> Cost:
        """
        Price one call.

        Args:
            provider: Its name in the roles file.
            models: The model that answered, in the vendor's words, then the one that was asked for.
            usage: As the provider counted; what it did not count makes the cost unknown.
            at_ms: When the call began.
        """
        if usage == UNCOUNTED:
            return Cost()
        try:
            cost = self._cost(provider, models, usage, at_ms)
        except Exception as error:  # noqa: BLE001 - the answer is paid for, whatever a price list does
            return self._unpriced(provider, models, type(error).__name__)
        if cost.usd is not None and not (cost.usd.is_finite() and cost.usd >= 0):
            return self._unpriced(provider, models, "its cost would be negative or no number")
        return cost

    def _cost(self, provider: str, models: tuple[str, ...], usage: Usage, at_ms: int) -> Cost:
        entry = self._settings.providers[provider]
        if table := named(entry.prices, models):
            usd = from_roles_file(table).usd(usage)
            source = ("roles.yaml", self._settings.version)
            return Cost(usd, *source) if usd is not None else Cost(None, "unpriced")
        for model in models:
            if found := self._look_up(entry, model, at_ms):
                usd = found.usd(usage)
                source = ("genai-prices", _version())
                return Cost(usd, *source) if usd is not None else Cost(None, "unpriced")
        return Cost(None, "unpriced")

    def _unpriced(self, provider: str, models: tuple[str, ...], why: str) -> Cost:
        if (provider, why) not in self._warned:  # once, or else with each call
            self._warned.add((provider, why))
            _log.warning("call.unpriced", provider=provider, models=models, why=why)
        return Cost(None, "unpriced")

    def _look_up(self, entry: "ProviderSettings", model: str, at_ms: int) -> Prices | None:
        minute = at_ms // 60_000
        known = self._known.get((entry.name, model))
        if known is None or known[0] != minute:
            with self._lock:  # the library builds its tables on first use
                known = minute, _listed(entry, model, datetime.fromtimestamp(at_ms / 1000, UTC))
            if len(self._known) >= MAX_KNOWN:  # the vendor names the models
                self._known.clear()
            self._known[entry.name, model] = known
        return known[1]


def named(
    prices: Mapping[str, Mapping[str, Decimal]], models: tuple[str, ...]
) -> Mapping[str, Decimal] | None:
    """
    Find a model's prices in a roles file's table.

    The nearest name wins: a model's own, then its name without a date or a version, then the
    longest family (`gpt-6-*`), and last `*`, which stands for models without a price of their own.

    Args:
        models: In the vendor's words the one that answered, then the one that was asked for.
    """
    bare = [_without_path(model) for model in models]
    names = [*models, *bare, *(_undated(model) for model in bare)]
    if own := next((name for name in names if name in prices), None):
        return prices[own]
    families = [
        family
        for family in prices
        if family.endswith(ANY_MODEL) and any(name.startswith(family[:-1]) for name in names)
    ]
    return prices[max(families, key=len)] if families else None


def _without_path(model: str) -> str:
    """Leave a vendor's folder out, as in `models/gemini-3` and `openai/gpt-6`."""
    return model.rpartition("/")[2]


def _undated(model: str) -> str:
    """Leave out a date or a version at a name's end: `m-2026-08-06`, `m@20260806`, `m-001`."""
    return _DATED.sub("", model)


def from_roles_file(table: Mapping[str, Decimal]) -> Prices:
    """Read prices as the roles file gives them; cached input costs as input if not said."""
    given, answer = table["input_tokens"], table["output_tokens"]
    return Prices(
        given,
        answer,
        table.get("cached_input_tokens", given),
        table.get("cache_write_tokens", given),
        answer,
    )


def from_genai_prices(price: "ModelPrice") -> Prices | None:
    """Read a price of the library; None if it is not one by tokens."""
    given, answer = price.input_mtok, price.output_mtok
    if given is None or answer is None:
        return None
    return Prices(
        given,
        answer,
        or_default(price.cache_read_mtok, given),
        or_default(price.cache_write_mtok, given),
        or_default(price.output_reasoning_mtok, answer),
        or_default(price.requests_kcount, Decimal(0)) / 1000,
    )


def _listed(entry: "ProviderSettings", model: str, at: datetime) -> Prices | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - 28 MB; not in producers

    snapshot = get_snapshot()
    for vendor, address in ((None, entry.base_url), (spec_of(entry.adapter).price_vendor, None)):
        if vendor or address:
            try:
                _, found = snapshot.find_provider_model(model, None, vendor, address)
            except LookupError:
                continue
            return from_genai_prices(found.get_prices(at))
    return None


def _version() -> str:
    from genai_prices import __version__  # noqa: PLC0415 - as above

    return str(__version__)


def or_default(price: Any, otherwise: Any) -> Any:
    return otherwise if price is None else price


def tier_price(price: "Decimal | TieredPrices", asked: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    for tier in reversed(price.tiers):
        if asked > tier.start:
            return tier.price
    return price.base
