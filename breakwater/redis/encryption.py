"""
Encryption at rest: Redis holds the content of prompts, results and errors only as ciphertext.

It is on if BREAKWATER_ENCRYPTION_KEYS has Fernet keys, separated by commas. The first key encrypts,
and all of them decrypt, so keys can be rotated. It needs the extra `encryption`.

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
Message = Mapping[str, Any]
"""A message of kombu, which has no types."""
ENCODING = "fernet"
"""The `body_encoding` of an encrypted message, in place of Celery's base64."""
PREFIX = "gAAAA"
"""The beginning of every token until the year 2106; no JSON text begins like this."""


def keys() -> int:
    """
    Return the number of keys.

    Raises:
        ConfigError: A key is not valid, or the library is not installed.
    """
    value = os.environ.get(KEYS, "")
    if not value:
        return 0
    return len(_fernet(value)._fernets)


def seal(text: str) -> str:
    """
    Encrypt a text, if there are keys.

    Raises:
        ConfigError: As `keys`.
    """
    value = os.environ.get(KEYS, "")
    if not value:
        return text
    return _fernet(value).encrypt(text.encode()).decode()


def opened(text: str) -> str:
    """
    Undo `seal`; plain text is returned unchanged.

    Raises:
        ConfigError: The text is encrypted, and this process has no key for it.
    """
    if not text.startswith(PREFIX):
        return text
    return decrypt(text).decode()


def fingerprint(text: str) -> str:
    """
    Return a digest of a text, 64 hex digits.

    With keys, it is an HMAC under the first one: without that key, a guess cannot be tested.
    """
    if value := os.environ.get(KEYS, ""):
        first = value.partition(",")[0].strip()
        return hmac.new(first.encode(), text.encode(), hashlib.sha256).hexdigest()
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprints(text: str) -> list[str]:
    """Return digests of a text under each key, 32 hex digits each; only the first one is stored."""
    keys_ = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if not keys_:
        return [hashlib.sha256(text.encode()).hexdigest()[:32]]
    return [hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()[:32] for key in keys_]


def decrypt(token: str) -> bytes:
    """
    Decrypt a token that any process of this fleet encrypted.

    Raises:
        ConfigError: This process has no key for it.
    """
    if not (value := os.environ.get(KEYS, "")):
        raise ConfigError(f"it is encrypted, and {KEYS} is not set here; set it as at the workers")
    fernet = _fernet(value)
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 - an extra

    try:
        return fernet.decrypt(token)
    except InvalidToken:
        raise ConfigError(
            f"none of the keys in {KEYS} here decrypts it; add the key that encrypted it"
        ) from None


def seal_message(message: Message) -> Message:
    """Encrypt the body of a message of kombu and hide its arguments, if there are keys."""
    if not (value := os.environ.get(KEYS, "")):
        return message
    properties, body = message["properties"], message["body"].encode()
    if properties.get("body_encoding") == "base64":
        body = b64decode(body)  # so that it grows by a third only once
    sealed = _fernet(value).encrypt(body).decode()
    return {
        **message,
        "body": sealed,
        "properties": {**properties, "body_encoding": ENCODING},
        # `send_task` writes a repr of the arguments here.
        "headers": {**message["headers"], "argsrepr": "(…)", "kwargsrepr": "{…}"},
    }


@lru_cache(maxsize=4)
def _fernet(value: str) -> "MultiFernet":
    try:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            f"{KEYS} is set, but cryptography is missing: pip install 'breakwater-llm[encryption]'"
        ) from None
    fernets = []
    for number, key in enumerate(value.split(","), 1):
        try:
            fernets.append(Fernet(key.strip()))
        except ValueError:
            raise ConfigError(
                f"key {number} of {KEYS} is not a valid Fernet key (32 bytes, urlsafe base64); "
                f"`breakwater docs redis#encryption` shows how to make one"
            ) from None
    return MultiFernet(fernets)
