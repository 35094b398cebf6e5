"""
Encryption at rest: what a prompt, a result or an error says is in Redis only as ciphertext.

On when BREAKWATER_ENCRYPTION_KEYS has Fernet keys, separated by commas: the first encrypts, all
decrypt, and so keys can be changed one after the other. Needs the extra `encryption`.

Source: the Fernet specification, github.com/fernet/spec (AES-128-CBC, HMAC-SHA256).
"""

import hashlib
import hmac
import os
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from breakwater.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEYS = "BREAKWATER_ENCRYPTION_KEYS"
ENCODING = "fernet"
"""The `body_encoding` of an encrypted message, beside Celery's base64."""
PREFIX = "gAAAA"
"""How every token begins until the year 2106; no JSON does."""


def keys() -> int:
    """
    Return how many keys there are.

    Raises:
        ConfigError: One of them is none, or the library is not installed.
    """
    given = os.environ.get(KEYS, "")
    return len(_fernet(given)._fernets) if given else 0


def seal(text: str) -> str:
    """
    Encrypt a text, if there are keys.

    Raises:
        ConfigError: As `keys`.
    """
    given = os.environ.get(KEYS, "")
    return _fernet(given).encrypt(text.encode()).decode() if given else text


def opened(text: str) -> str:
    """
    Undo `seal`; a text in the clear stays as it is.

    Raises:
        ConfigError: It is encrypted, and no key here fits.
    """
    return decrypt(text).decode() if text.startswith(PREFIX) else text


def fingerprint(text: str) -> str:
    """
    Return 64 hex digits that stand for a text.

    With keys it is an HMAC under the first: who has no key cannot even try what the text may be.
    """
    if given := os.environ.get(KEYS, ""):
        first = given.partition(",")[0].strip()
        return hmac.new(first.encode(), text.encode(), hashlib.sha256).hexdigest()
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprints(text: str) -> list[str]:
    """Return the fingerprint of a text under each key, 32 hex digits each; the first is written."""
    given = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if not given:
        return [hashlib.sha256(text.encode()).hexdigest()[:32]]
    return [hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()[:32] for key in given]


def decrypt(token: str) -> bytes:
    """
    Decrypt what was encrypted here or elsewhere.

    Raises:
        ConfigError: No key here fits.
    """
    if not (given := os.environ.get(KEYS, "")):
        raise ConfigError(f"it is encrypted, and {KEYS} is not set here; set it as at the workers")
    fernet = _fernet(given)
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 - an extra

    try:
        return fernet.decrypt(token)
    except InvalidToken:
        raise ConfigError(
            f"it is encrypted with none of the keys in {KEYS} here; add the one it was written with"
        ) from None


def seal_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Encrypt the body of a message as kombu publishes it, if there are keys, and show no more."""
    if not (given := os.environ.get(KEYS, "")):
        return message
    properties, body = message["properties"], message["body"].encode()
    if properties.get("body_encoding") == "base64":
        body = b64decode(body)  # so that it grows by a third once, not twice
    sealed = _fernet(given).encrypt(body).decode()
    return {
        **message,
        "body": sealed,
        "properties": {**properties, "body_encoding": ENCODING},
        # `send_task` puts a repr of the arguments here.
        "headers": {**message["headers"], "argsrepr": "(…)", "kwargsrepr": "{…}"},
    }


@lru_cache(maxsize=4)
def _fernet(given: str) -> "MultiFernet":
    try:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            f"{KEYS} is set, but cryptography is missing: pip install 'breakwater-llm[encryption]'"
        ) from None
    fernets = []
    for number, key in enumerate(given.split(","), 1):
        try:
            fernets.append(Fernet(key.strip()))
        except ValueError:
            raise ConfigError(
                f"key {number} of {KEYS} is no Fernet key (32 bytes, urlsafe base64); "
                f"`breakwater docs redis#encryption` shows how to make one"
            ) from None
    return MultiFernet(fernets)
