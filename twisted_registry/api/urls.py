"""Absolute URLs as the client sees us, behind proxies as well.

``http.host`` beats everything; then what a proxy says (``X-Forwarded-Proto``,
``X-Forwarded-Host``, RFC 7239 ``Forwarded``), then ``Host``. What does not look like a host is
not repeated: the answer is then a path, which clients resolve themselves.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from attrs import frozen

from twisted_registry.api.headers import decode_header, get_header_fields
from twisted_registry.api.interfaces import IShowingRequest
from twisted_registry.auth.clientcertificate import IClientCertificateTransport
from twisted_registry.auth.interfaces import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.web.server import Request

    from twisted_registry.auth.clientcertificate import ClientCertificate

_HOST_RE = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
#: A name has 253 characters at most (RFC 1035), a port five more.
_MAX_HOST_LENGTH = 260
#: Compiled when the first such header comes, which few have; not at each start.
_FORWARDED_PATTERN = r'\s*([a-z]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))\s*'


@frozen
class URLBuilder:
    """Makes URLs.

    :ivar host: scheme and host that the operator set, without a path, or empty.
    :ivar relative: whether paths are enough.
    """

    host: str = ""
    relative: bool = False

    def url(self, request: Request, *path: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """A URL below the place where the API is mounted.

        :param path: segments; slashes in them stay.
        :param query: pairs.
        """
        prefix = "/".join(quote(segment) for segment in _mount_path(request))
        text = f"/{prefix}/{'/'.join(quote(segment, safe='/:') for segment in path)}"
        if query:
            text += "?" + urlencode(query, safe="=:")
        return text if self.relative else self.origin(request) + text

    def origin(self, request: Request) -> str:
        """Scheme and host for this client, or an empty string if none can be told."""
        if self.host:
            return self.host.rstrip("/")
        host, secure = external_host(request)
        return f"{'https' if secure else 'http'}://{host}" if host else ""


def external_host(request: Request) -> tuple[str, bool]:
    """The host that the client asked for (or an empty string), and whether over TLS."""
    caller = get_caller(request, get_header_fields(request))
    return caller.host, caller.secure


@lru_cache(maxsize=256)
def _parse_forwarding_headers(
    forwarded: bytes | None, proto: bytes | None, forwarded_host: bytes | None, host: bytes | None
) -> tuple[str, str]:
    """Host and scheme, each of them empty if nothing sound was said of it."""
    said = _parse_forwarded(decode_header(forwarded) or "")
    found = _first_element(forwarded_host) or said.get("host", "") or decode_header(host) or ""
    scheme = _first_element(proto) or said.get("proto", "")
    sound = len(found) <= _MAX_HOST_LENGTH and _HOST_RE.fullmatch(found) is not None
    return found if sound else "", scheme.lower()


def client_address(request: Request) -> str:
    """The client's address, or what the nearest proxy says of it: for logs only."""
    return get_caller(request, get_header_fields(request)).address


def _peer_address(request: Request) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))


@lru_cache(maxsize=256)
def _forwarded_client_address(forwarded_for: bytes | None, real: bytes | None) -> str:
    """The address that a proxy says the client has, or nothing."""
    said = _first_element(forwarded_for) or _first_element(real)
    return said if len(said) <= 64 and said.isprintable() else ""


def get_caller(request: Request, header_fields: Mapping[bytes, bytes]) -> Caller:
    """Who asks, for the access controller.

    :param sent: what :func:`~twisted_registry.api.headers.get_header_fields` says.
    """
    get = header_fields.get
    host, scheme = _parse_forwarding_headers(
        get(b"forwarded"), get(b"x-forwarded-proto"), get(b"x-forwarded-host"), get(b"host")
    )
    said = _forwarded_client_address(get(b"x-forwarded-for"), get(b"x-real-ip"))
    authorization: str | None = request.shown if IShowingRequest.providedBy(request) else None
    if authorization is None:
        authorization = decode_header(get(b"authorization"))
    return Caller(
        authorization,
        said or _peer_address(request),
        host,
        scheme == "https" if scheme else request.isSecure(),
        scheme,
        _client_certificate(request),
    )


def _client_certificate(request: Request) -> ClientCertificate | None:
    transport: Any = request.transport
    if request.isSecure() and IClientCertificateTransport.providedBy(transport):
        found: ClientCertificate | None = transport.certificate
        return found
    return None


def _mount_path(request: Request) -> list[str]:
    return [segment.decode("utf-8", "replace") for segment in request.prepath or () if segment]


def _first_element(header: bytes | None) -> str:
    return header.decode("utf-8", "replace").partition(",")[0].strip() if header else ""


def _parse_forwarded(header: str) -> dict[str, str]:
    """The first element of a Forwarded header."""
    element = header.partition(",")[0]
    pairs = (re.fullmatch(_FORWARDED_PATTERN, part, re.IGNORECASE) for part in element.split(";"))
    return {pair[1].lower(): pair[2] or pair[3] or "" for pair in pairs if pair}
