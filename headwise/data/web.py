"""Files by http and https: streamed to disk, within a size, and from public addresses unless others are allowed.

A name in a source must not make this machine ask its own neighbours: cloud metadata at 169.254.169.254, a router, a
database without a password. So every address that a name stands for is looked at before it is connected to, the
connection goes to the very address that was looked at, and redirects are followed one by one in the same way.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

ALLOWED = "HEADWISE_PRIVATE_HOSTS"  # an environment variable: host or host:port, separated by commas
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
SECONDS = 30  # without an answer
BLOCK = 1 << 20
VALIDATORS = ("ETag", "Last-Modified", "Content-MD5", "Digest")
HEADERS = {"User-Agent": "headwise", "Accept": "*/*", "Accept-Encoding": "identity"}


def netloc(url: str) -> str:
    """`host:port` of a URL; empty where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme.lower(), 0)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname else ""


def download(url: str, folder: Path, name: str, part: Path, limit: int | None, hosts: frozenset[str]) -> Path:
    """A copy FOLDER/NAME-VERSION of what a URL holds; not fetched again while the server says it is the same.

    Arguments:
        part: an empty folder on the same disk, for what is not whole yet.
        limit: most bytes; None: as many as there are.
        hosts: `host:port` that may have private addresses.

    Raises:
        OSError: it cannot be had: no such file, another answer, too large, cut off, a private address.
    """
    with _answer(url, hosts) as answer:
        length = answer.getheader("Content-Length")
        size = int(length) if length and length.isdecimal() and len(length) < 20 else None
        if limit is not None and size is not None and size > limit:
            raise OSError(f"it has {size:,} bytes, an image may have {limit:,}")
        marks = [answer.getheader(key) for key in VALIDATORS]
        version = hashlib.sha256(repr([*marks, length]).encode()).hexdigest()[:32]
        copy = folder / f"{name}-{version}"
        if copy.exists() and any(marks):
            return copy
        _stream(answer, part / name, limit, size)
        keep(part / name, copy)
        return copy


def keep(fetched: Path, copy: Path) -> None:
    """Give a whole file its place, whole or not at all, also when several processes fetch it."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    os.replace(fetched, copy)


def _stream(answer: http.client.HTTPResponse, path: Path, limit: int | None, size: int | None) -> None:
    done = 0
    with path.open("xb") as file:
        while block := answer.read(BLOCK):
            done += len(block)
            if limit is not None and done > limit:
                raise OSError(f"it has more than {limit:,} bytes")
            file.write(block)
    if size is not None and done != size:
        raise OSError(f"the connection broke off after {done:,} of {size:,} bytes")


@contextmanager
def _answer(url: str, hosts: frozenset[str]) -> Iterator[http.client.HTTPResponse]:
    """The answer 200 to a GET, redirects followed."""
    try:
        for _ in range(MOST_REDIRECTS + 1):
            connection, target, headers = _connection(url, hosts)
            with ExitStack() as stack:
                stack.callback(connection.close)
                connection.request("GET", target, headers=headers)
                answer = stack.enter_context(connection.getresponse())
                there = answer.getheader("Location")
                if answer.status in REDIRECTS and there:
                    url = urljoin(url, there)
                    continue
                if answer.status in (404, 410):
                    raise FileNotFoundError(f"{url}: there is no such file")
                if answer.status != 200:
                    raise OSError(f"the server answers {answer.status} {answer.reason}")
                yield answer
                return
        raise OSError(f"more than {MOST_REDIRECTS} redirects")
    except (http.client.HTTPException, UnicodeError, ValueError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _connection(url: str, hosts: frozenset[str]) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection to where a URL leads, what to ask it for, and the headers."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in PORTS or not host:
        raise OSError(f"{url} does not lead to a web server")
    port = parts.port or PORTS[scheme]
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    headers = HEADERS | {"Host": parts.netloc.rpartition("@")[2]}
    allowed = hosts | {name.strip() for name in os.environ.get(ALLOWED, "").split(",")}
    private = f"{host}:{port}" in allowed or host in allowed
    proxy = getproxies().get(scheme)
    if proxy and not proxy_bypass(host):
        return _through(proxy, parts, host, port, target, headers, private)
    raw = _connect(host, port, private)
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    if scheme == "https":
        try:
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise
    connection.sock = raw
    return connection, target, headers


def _through(
    proxy: str, parts: SplitResult, host: str, port: int, target: str, headers: dict[str, str], private: bool
) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """By way of a proxy, which may know names that this machine does not."""
    with suppress(socket.gaierror):
        _addresses(host, port, private)
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme.lower() == "http":
        connection = http.client.HTTPConnection(way.hostname or "", way.port or 80, timeout=SECONDS)
        return connection, f"http://{parts.netloc.rpartition('@')[2]}{target}", headers
    connection = http.client.HTTPSConnection(
        way.hostname or "", way.port or 80, timeout=SECONDS, context=ssl.create_default_context()
    )
    connection.set_tunnel(host, port)
    return connection, target, headers


def _connect(host: str, port: int, private: bool) -> socket.socket:
    """A connection to one of the addresses that were looked at; a second look-up might give others."""
    last: OSError | None = None
    for family, kind, protocol, address in _addresses(host, port, private):
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(SECONDS)
            raw.connect(address)
            return raw
        except OSError as error:
            raw.close()
            last = error
    raise last or OSError(f"{host} has no address")


def _addresses(host: str, port: int, private: bool) -> list[tuple]:
    """
    Raises:
        OSError: no such host, or one with an address that is not public and that nobody allowed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if not private and not public(str(address[0])):
            raise PermissionError(
                f"{host} is at {address[0]}, which is not a public address. If it may be asked, set "
                f"{ALLOWED}={host}:{port}"
            )
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also when it is wrapped in an IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast
