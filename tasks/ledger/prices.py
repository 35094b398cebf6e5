"""
Price a completion by the roles file, or else by `genai-prices`.

genai-prices has the prices of 2,330 models with their tiers, hours and dates, and works offline. A
look-up takes 129 µs. So the prices of a model are looked up once a minute, and costs are computed
here.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias, cast

import structlog

from breakwater.attempt import UNCOUNTED, Cost, Usage
from tasks.catalogue import spec_of

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

    from tasks.config import ProviderSettings, Settings

TokenPrice: TypeAlias = "Decimal | TieredPrices"
"""US dollars per million tokens; in tiers if the price depends on the length of the input."""

MILLION = Decimal(1_000_000)
ANY_MODEL = "*"
MAX_CACHED = 1_000
"""How many models' prices are cached."""
_DATED = re.compile(r"[-@:](latest|\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3}|\d{2}-\d{2,4})$")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of one model."""

    input: TokenPrice
    output: TokenPrice
    cached_input: TokenPrice
    cache_write: TokenPrice
    reasoning: TokenPrice
    per_call_usd: Decimal = Decimal(0)
    """US dollars per call, in addition to its tokens."""

    def usd(self, usage: Usage) -> Decimal | None:
        """Return the cost of a call, not rounded; None if a count is missing."""
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
        self._cached: dict[tuple[str, str], tuple[int, Prices | None]] = {}
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def cost(self, provider: str, models: tuple[str, ...], usage: Usage, at_ms: int) -> Cost:
        """
        Price one call.

        Args:
            provider: Its name in the roles file.
            models: The model that answered, by the vendor's name, then the one that was requested.
            usage: The provider's counts; a count that it did not send makes the cost unknown.
            at_ms: When the call began.
        """
        if usage == UNCOUNTED:
            return Cost()
        try:
            cost = self._cost(provider, models, usage, at_ms)
        except Exception as error:  # noqa: BLE001 - the answer is paid for, and must not be lost
            return self._unpriced(provider, models, type(error).__name__)
        if cost.usd is not None and not (cost.usd.is_finite() and cost.usd >= 0):
            return self._unpriced(provider, models, "its cost would be negative or not a number")
        return cost

    def _cost(self, provider: str, models: tuple[str, ...], usage: Usage, at_ms: int) -> Cost:
        entry = self._settings.providers[provider]
        if table := find_prices(entry.prices, models):
            usd = from_roles_file(table).usd(usage)
            return _priced(usd, "roles.yaml", self._settings.version)
        for model in models:
            if prices := self._look_up(entry, model, at_ms):
                return _priced(prices.usd(usage), "genai-prices", _version())
        return Cost(None, "unpriced")

    def _unpriced(self, provider: str, models: tuple[str, ...], why: str) -> Cost:
        if (provider, why) not in self._warned:  # once, not with every call
            self._warned.add((provider, why))
            _log.warning("call.unpriced", provider=provider, models=models, why=why)
        return Cost(None, "unpriced")

    def _look_up(self, entry: "ProviderSettings", model: str, at_ms: int) -> Prices | None:
        minute = at_ms // 60_000
        cached = self._cached.get((entry.name, model))
        if cached is None or cached[0] != minute:
            with self._lock:  # the library builds its tables on first use
                cached = minute, _listed(entry, model, datetime.fromtimestamp(at_ms / 1000, UTC))
            if len(self._cached) >= MAX_CACHED:  # vendors choose the names, so there is no limit
                self._cached.clear()
            self._cached[entry.name, model] = cached
        return cached[1]


def _priced(usd: Decimal | None, source: str, version: str) -> Cost:
    if usd is None:
        return Cost(None, "unpriced")
    return Cost(usd, source, version)


def find_prices(
    tables: Mapping[str, Mapping[str, Decimal]], models: tuple[str, ...]
) -> Mapping[str, Decimal] | None:
    """
    Find the prices of a model in a roles file.

    The closest name wins: the model's own, then its name without a date or a version, then the
    longest family (`gpt-6-*`), and last `*`, which covers models without prices of their own.

    Args:
        tables: Prices by model name or family.
        models: The model that answered, by the vendor's name, then the model that was requested.
    """
    bare = [_without_path(model) for model in models]
    names = [*models, *bare, *(_undated(model) for model in bare)]
    if own := next((name for name in names if name in tables), None):
        return tables[own]
    families = [
        family
        for family in tables
        if family.endswith(ANY_MODEL) and any(name.startswith(family[:-1]) for name in names)
    ]
    if not families:
        return None
    return tables[max(families, key=len)]


def _without_path(model: str) -> str:
    """Remove a vendor's folder, as in `models/gemini-3` and `openai/gpt-6`."""
    return model.rpartition("/")[2]


def _undated(model: str) -> str:
    """Remove a date or a version at a name's end: `m-2026-08-06`, `m@20260806`, `m-001`."""
    return _DATED.sub("", model)


def from_roles_file(table: Mapping[str, Decimal]) -> Prices:
    """Read the prices of a roles file; by default cached input and cache writes cost as input."""
    input_price, output_price = table["input_tokens"], table["output_tokens"]
    return Prices(
        input_price,
        output_price,
        table.get("cached_input_tokens", input_price),
        table.get("cache_write_tokens", input_price),
        output_price,
    )


def from_genai_prices(price: "ModelPrice") -> Prices | None:
    """Read a price of the library; None if the model is not priced by tokens."""
    input_price, output_price = price.input_mtok, price.output_mtok
    if input_price is None or output_price is None:
        return None
    # Never in tiers; if it were, the division would fail, and the call would be unpriced.
    per_thousand_calls = cast("Decimal", or_default(price.requests_kcount, Decimal(0)))
    return Prices(
        input_price,
        output_price,
        or_default(price.cache_read_mtok, input_price),
        or_default(price.cache_write_mtok, input_price),
        or_default(price.output_reasoning_mtok, output_price),
        per_thousand_calls / 1000,
    )


def _listed(entry: "ProviderSettings", model: str, at: datetime) -> Prices | None:
    """Look a model up by the provider's address, then by the vendor of its adapter."""
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - 28 MB; not in producers

    snapshot = get_snapshot()
    for vendor, address in ((None, entry.base_url), (spec_of(entry.adapter).price_vendor, None)):
        if vendor or address:
            try:
                _, listed = snapshot.find_provider_model(model, None, vendor, address)
            except LookupError:
                continue
            return from_genai_prices(listed.get_prices(at))
    return None


def _version() -> str:
    from genai_prices import __version__  # noqa: PLC0415 - as above

    return str(__version__)


def or_default(price: "TokenPrice | None", default: TokenPrice) -> TokenPrice:
    """Return the price; the default if there is none. A price of 0 is a price."""
    if price is None:
        return default
    return price


def tier_price(price: TokenPrice, input_tokens: int) -> Decimal:
    """Return the price that applies to a call with so much input."""
    if isinstance(price, Decimal):
        return price
    for tier in reversed(price.tiers):
        if input_tokens > tier.start:
            return tier.price
    return price.base
