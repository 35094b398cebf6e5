"""Every form of REDIS_URL, and what is said of one that cannot be used."""

import re
import resource

import pytest
from redis.exceptions import ConnectionError as NotConnected

from breakwater.redis.address import Address

FORMS = {
    "redis://": {"host": "127.0.0.1", "port": 6379, "db": 0},
    "redis://cache.internal:6380/3": {"host": "cache.internal", "port": 6380, "db": 3},
    "redis://[::1]:6380": {"host": "::1", "port": 6380},
    "redis://:p%40%2F%3A%25@h": {"host": "h", "password": "p@/:%"},
    "redis://app:pw@h/1": {"username": "app", "password": "pw", "db": 1},
    "redis://h?db=2&socket_timeout=1.5": {"db": 2, "socket_timeout": 1.5},
    "rediss://h?ssl_cert_reqs=CERT_NONE": {"ssl_cert_reqs": "none"},
    "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=false": {
        "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False,
    },
    "unix:///run/redis.sock?db=2": {"path": "/run/redis.sock", "db": 2},
    "redis+socket://:pw@/run/redis.sock?virtual_host=3": {
        "path": "/run/redis.sock", "password": "pw", "db": 3,
    },
    "sentinel://app:pw@a/4?master=m": {"username": "app", "password": "pw", "db": 4},
}  # fmt: skip

FAULTS = {
    "redsi://h": "it must begin with redis://, rediss://, unix://",
    "localhost:6379": "it must begin with",
    "redis://:hunter2/x@h": "its database must be a number, as in /0; a password with any of",
    "redis://:hunter2@h:66000": "a port must be a number",
    "redis://hunter:2x#@h": "there is a # in it; a password with any of",
    "redis://:123#hunter2@h": "there is a # in it",
    "redis://:hunter2?x@h": "unknown option",
    "redis://[::1": "it is not a valid URL",
    "redis://h/first": "its database must be a number",
    "redis://h?hunter2=1": "unknown option; redis:// has db, client_name",
    "redis://h?ssl_cert_reqs=none": "ssl_cert_reqs is for rediss://",
    "rediss://h?ssl_cert_reqs=hunter2": "the value of its option ssl_cert_reqs cannot be used",
    "unix://hunter2": "unix:// needs the path of a socket",
    "sentinel://h1;h2": "sentinel:// needs ?master=NAME",
}


@pytest.mark.parametrize("url", FORMS)
def test_a_url_is_read(url: str) -> None:
    """Percent-encoded characters are decoded once, in users and passwords as in options."""
    options = Address.of(url).options

    assert {name: options.get(name) for name in FORMS[url]} == FORMS[url]


@pytest.mark.parametrize("separator", [";", ","])
def test_sentinels_are_read(separator: str) -> None:
    """Kombu's semicolon or a comma; their password is their own, and TLS is for both."""
    hosts = separator.join(["a:1", "b", "[::1]:3"])

    address = Address.of(
        f"sentinels://:pw@{hosts}/1?master=m&sentinel_password=s%26&ssl_ca_certs=c"
    )

    assert address.sentinels == (("a", 1), ("b", 26379), ("::1", 3))
    assert address.master == "m"
    assert address.sentinel_options == {"password": "s&", "ssl_ca_certs": "c", "ssl": True}
    assert address.options == {"password": "pw", "db": 1, "ssl_ca_certs": "c"}


@pytest.mark.parametrize("url", FAULTS)
def test_a_bad_url_is_explained_and_not_repeated(url: str) -> None:
    """Whatever part of it a password has come to stand in."""
    with pytest.raises(ValueError, match=re.escape(FAULTS[url])) as fault:
        Address.of(url)

    assert "hunter" not in str(fault.value)
    assert fault.value.__suppress_context__ or fault.value.__context__ is None


@pytest.mark.parametrize("url", ["redis://u:hunter2@h/1", "sentinel://:hunter2@h?master=m"])
def test_no_password_is_shown(url: str) -> None:
    """Neither by the address nor by the pool that is made of it."""
    address = Address.of(url)

    assert "hunter2" not in repr(address) + address.shown + repr(address.pool())


def test_what_the_url_says_wins() -> None:
    """A timeout in it is the operator's word."""
    pool = Address.of("redis://h?socket_timeout=9").pool(socket_timeout=1, socket_connect_timeout=1)

    assert pool.connection_kwargs["socket_timeout"] == 9
    assert pool.connection_kwargs["socket_connect_timeout"] == 1


def test_a_host_without_files_cannot_connect() -> None:
    """Redis is away then, as every caller knows to handle; a raw OSError would fail the task."""
    pool = Address.of("redis://127.0.0.1:1").pool()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(NotConnected, match="Too many open files"):
            pool.get_connection()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
