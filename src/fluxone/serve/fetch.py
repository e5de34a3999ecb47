"""Going out to addresses that strangers name: to public hosts only, and only to the address that was checked.

    url -> host -> addresses, all of them public -> a connection to one of these, whatever the name says a moment later

A name that changes its address between check and connection (DNS rebinding) so gains nothing. Redirects are checked
like first addresses. Hosts in `reachable` are the operator's own and may be private.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

from fluxone.errors import BadRequest

SECONDS = 10.0
WHOLE = 60.0  # s for a picture: who sends a byte now and then holds nobody up for ever
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address, which may be private, in its last 32 bits
REDIRECTS = 3
CHUNK = 2**16
PORTS = {"http": 80, "https": 443}
MOVED = frozenset({301, 302, 303, 307, 308})


def fetch(url: str, *, limit: int, reachable: Collection[str] = ()) -> bytes:
    """What is at a URL.

    Args:
        limit: bytes.

    Raises:
        BadRequest: it is no public address, does not answer, or is too large.
    """
    for _ in range(REDIRECTS + 1):
        with _Connection(url, reachable) as connection:
            response = connection.send("GET", b"", {"Accept": "image/*"})
            if response.status in MOVED and (there := response.getheader("Location")):
                url = urljoin(url, there)
                continue
            if response.status != http.client.OK:
                raise BadRequest(f"{_shown(url)} answers {response.status}", hint="give a URL that anybody can read")
            return connection.read(response, limit)
    raise BadRequest(f"{_shown(url)} redirects more than {REDIRECTS} times")


def post(url: str, body: bytes, headers: Mapping[str, str], *, reachable: Collection[str] = ()) -> int:
    """Send to a URL and return the status of the answer; redirects are not followed.

    Raises:
        BadRequest: it is no public address, or does not answer.
    """
    with _Connection(url, reachable) as connection:
        return connection.send("POST", body, headers).status


def check(url: str, *, reachable: Collection[str] = ()) -> str:
    """An address that the URL's host has now, if all of them may be gone to.

    Raises:
        BadRequest: it is no URL of http or https, or not of a public host.
    """
    parts = _parts(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or PORTS[parts.scheme], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadRequest(f"the host of {_shown(url)} is not known", hint="give a public address") from None
    addresses = [str(entry[4][0]) for entry in found]
    if host not in reachable and not all(_public(address) for address in addresses):
        raise BadRequest(f"{_shown(url)} is not a public address", hint="the server's operator can make it reachable")
    return addresses[0]


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if ip.version == NAT64.version and ip in NAT64:
        inner = ipaddress.IPv4Address(ip.packed[-4:])
    return (inner or ip).is_global and not (inner or ip).is_multicast


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in PORTS or not parts.hostname or parts.username or not _port(parts):
        raise BadRequest(f"{_shown(url)} is no URL that can be used", hint="give one of http or https, without a user")
    return parts


def _port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _shown(url: str) -> str:
    """As much of a URL as may be told: keys are often behind the question mark."""
    return url.split("?")[0][:200]


class _Connection:
    """A connection to the address of a URL that was checked, for one request."""

    def __init__(self, url: str, reachable: Collection[str]) -> None:
        self.url, self.parts = url, _parts(url)
        self.address = check(url, reachable=reachable)

    def __enter__(self) -> _Connection:
        port = self.parts.port or PORTS[self.parts.scheme]
        self._http = http.client.HTTPConnection(self.parts.hostname or "", port, timeout=SECONDS)
        try:
            plain = socket.create_connection((self.address, port), timeout=SECONDS)
            if self.parts.scheme == "https":
                self._http.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.parts.hostname)
            else:
                self._http.sock = plain
        except OSError as error:
            raise BadRequest(f"{_shown(self.url)} cannot be reached: {error}") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def send(self, method: str, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        path = (self.parts.path or "/") + (f"?{self.parts.query}" if self.parts.query else "")
        try:
            self._http.request(method, path, body or None, {"User-Agent": "fluxone", **headers})
            return self._http.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BadRequest(f"{_shown(self.url)} does not answer: {error}") from None

    def read(self, response: http.client.HTTPResponse, limit: int) -> bytes:
        found, end = bytearray(), time.monotonic() + WHOLE
        try:
            while chunk := response.read1(CHUNK):
                found += chunk
                if len(found) > limit:
                    raise BadRequest(f"{_shown(self.url)} is larger than {limit} bytes")
                if time.monotonic() > end:
                    raise BadRequest(f"{_shown(self.url)} takes longer than {WHOLE:g} s", hint="send the file itself")
        except (OSError, http.client.HTTPException) as error:
            raise BadRequest(f"{_shown(self.url)} breaks off: {error}") from None
        return bytes(found)
