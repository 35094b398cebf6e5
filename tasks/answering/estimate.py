"""
What a call may use, guessed before it is made: for gates that limit tokens or money.

No tokenizer: each vendor has another one, and gates correct the guess when the call has ended.

Source of the characters per token: OpenAI's help page "What are tokens and how to count them" and
Google's "Understand and count tokens" (4 characters of English each). The other figures are rough
assumptions of ours.
"""

import json
from collections.abc import Iterable, Iterator

from breakwater.attempt import Usage
from breakwater.content import Media
from tasks.admission.gate import Estimate
from tasks.ledger.prices import PriceList
from tasks.providers.base import Request

CHARS_PER_TOKEN = 4
"""Of ASCII text. Any other character counts as one token."""
MESSAGE_TOKENS = 4
"""The frame of a message: its role, its beginning and its end."""
MEDIA_TOKENS = {"image": 1_600, "document": 3_000}
"""Of an image, and of a document with one page; their sizes are unknown before the call."""


def estimate(request: Request, provider: str, prices: PriceList, at_ms: int) -> Estimate:
    """
    Estimate the tokens and the cost of a call.

    Args:
        request: The call.
        provider: Its name in the roles file, for the price.
        prices: The price list; without a price of the model the cost is None.
        at_ms: When the call is made: prices may depend on it.
    """
    input_tokens = sum(token_count(text) for text in _texts(request)) + _media_tokens(request)
    input_tokens += MESSAGE_TOKENS * len(request.messages)
    limit = request.params.get("max_output_tokens")
    if not isinstance(limit, int):
        return Estimate(input_tokens, None, None)
    most = Usage(input_tokens=input_tokens, output_tokens=limit)
    cost = prices.cost(provider, (request.model,), most, at_ms)
    return Estimate(input_tokens, limit, cost.usd)


def token_count(text: str) -> int:
    """Guess how many tokens a text has, rounded up."""
    if text.isascii():
        return -(-len(text) // CHARS_PER_TOKEN)
    ascii_count = len(text.encode("ascii", "ignore"))
    return -(-ascii_count // CHARS_PER_TOKEN) + len(text) - ascii_count


def _texts(request: Request) -> Iterator[str]:
    """Return all text that the vendor counts as input."""
    yield request.system or ""
    for message in request.messages:
        yield message.text
        for tool_call in message.tool_calls:
            yield tool_call.name + json.dumps(dict(tool_call.arguments))
    for tool in request.tools:
        yield tool.name + tool.description + json.dumps(dict(tool.parameters))
    if request.schema is not None:
        yield json.dumps(dict(request.schema))


def _media_tokens(request: Request) -> int:
    parts: Iterable[str | Media] = (part for message in request.messages for part in message.parts)
    return sum(MEDIA_TOKENS[part.kind] for part in parts if isinstance(part, Media))
