"""
What this host needs before it can call a provider: its proxy, its certificates, its packages.

A fault here is not the provider's: other hosts of the fleet may well reach it. So it is
`HostFault`, which names the setting, and no breaker counts it.
"""

import errno
import os
import ssl
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import httpcore2
import httpx2

from breakwater.errors import HostFault
from tasks.providers.http.host_faults import why

_LOCAL = {
    errno.EMFILE: "it has too many open files; raise its limit (ulimit -n)",
    errno.ENFILE: "it has too many open files",
    errno.ENOMEM: "it has no memory left",
    errno.ENOBUFS: "it has no memory left for sockets",
    errno.EADDRNOTAVAIL: "it has no local port left",
    errno.ENETUNREACH: "its network is unreachable",
    errno.ENETDOWN: "its network is down",
    errno.EACCES: "its firewall does not let the connection out",
    errno.EPERM: "its firewall does not let the connection out",
}
"""Errors of a socket that are this host's fault."""
_UNTRUSTED = {
    2: "unable to get issuer certificate",
    9: "certificate is not yet valid: is its clock right?",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
}
"""OpenSSL's verify codes that this host's certificates or clock cause."""
_SCHEMES = "http://, https://, socks5:// or socks5h://"


def ssl_context() -> ssl.SSLContext:
    """
    Build the context for TLS, with the certificates that this host trusts.

    Raises:
        HostFault: SSL_CERT_FILE or SSL_CERT_DIR cannot be used.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and folder and not (Path(folder).is_dir() and os.access(folder, os.R_OK)):
        raise HostFault(f"SSL_CERT_DIR is {folder!r}, which is not a folder that can be read")
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one, for a file that holds no certificate
        if not file:
            raise HostFault(f"this host's certificates cannot be read ({why(error)})") from None
        message = f"SSL_CERT_FILE is {file!r}, which cannot be read as certificates ({why(error)})"
        raise HostFault(message) from None


def proxy_for(base_url: str) -> httpcore2.Proxy | None:
    """
    Find the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name for an address.

    Raises:
        HostFault: The variable does not hold a usable proxy. The message leaves its value out,
            because it may have a password.
    """
    url = httpx2.URL(base_url)
    proxies = urllib.request.getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    host = url.host
    if url.port:
        host += f":{url.port}"
    if not address or urllib.request.proxy_bypass(host):
        return None
    name = proxy_variable(url.scheme)
    try:
        if "://" not in address:
            address = f"http://{address}"
        proxy = httpx2.Proxy(address)
        if not proxy.url.host:
            raise ValueError("no host")
    except (ValueError, TypeError, httpx2.InvalidURL):
        raise HostFault(f"{name} is not the address of a proxy; it must be {_SCHEMES}") from None
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        message = f"{name} names a SOCKS proxy, and the package socksio is not installed"
        raise HostFault(f"{message}; install it, or unset {name}")
    return httpcore2.Proxy(str(proxy.url), proxy.raw_auth)


def proxy_variable(scheme: str) -> str:
    """Return the variable that names the proxy for a scheme, as the environment spells it."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelt in (name, name.upper()):
            if os.environ.get(spelt):
                return spelt
    return "the system's proxy setting"


def host_fault(error: BaseException) -> HostFault | None:
    """Return this host's fault that caused an error; None if the fault is not this host's."""
    if isinstance(error, ImportError):
        return HostFault(f"a package is missing on this host ({why(error)})")
    if isinstance(error, MemoryError):
        return HostFault("this host cannot make the call: it has no memory left")
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNTRUSTED:
        reason = _UNTRUSTED[error.verify_code]
        return HostFault(f"this host does not trust the certificate ({reason}); see SSL_CERT_FILE")
    if isinstance(error, OSError) and error.errno in _LOCAL and not isinstance(error, ssl.SSLError):
        return HostFault(f"this host cannot make the call: {_LOCAL[error.errno]}")
    if isinstance(error, httpx2.ProxyError) and str(error)[:3] in {"401", "403", "407"}:
        return HostFault(f"the proxy refuses this host ({str(error)[:3]}); see HTTPS_PROXY")
    return None
