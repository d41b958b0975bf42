"""Reading request headers: whatever bytes a client sends are text in some way, never an error.

``Request.getHeader`` raises on a value that is not UTF-8.

Absolute URLs as the client sees us, behind proxies as well.

``http.host`` beats everything; then what a proxy says (``X-Forwarded-Proto``,
``X-Forwarded-Host``, RFC 7239 ``Forwarded``), then ``Host``. What does not look like a host is
not repeated: the answer is then a path, which clients resolve themselves.

One request on its way through a handler: what it asks, read strictly.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from attrs import field, frozen

from twisted_registry.auth.interfaces import Caller
from twisted_registry.http.body import request_body
from twisted_registry.http.interfaces import IStreamingRequest
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import NameInvalid, TagInvalid, check_name, parse_reference
from twisted_registry.repository.interfaces import Origin
from twisted_registry.tls.interfaces import IClientCertificateTransport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.api.routes import RouteMatch
    from twisted_registry.auth.interfaces import IGrant
    from twisted_registry.http.interfaces import IRequestBody
    from twisted_registry.repository.registry import Registry, Repository
    from twisted_registry.tls.interfaces import ClientCertificate


def get_header_fields(request: Request) -> Mapping[bytes, bytes]:
    """The last value of each header, by its name in lower case."""
    if IStreamingRequest.providedBy(request):
        fields: Mapping[bytes, bytes] = request.headerFields
    else:
        fields = request.getAllHeaders()
    return fields


def get_header_values(request: Request, name: str) -> list[str]:
    """All values of a header, in order."""
    wanted = name.encode("ascii")
    values: Sequence[bytes] = (
        request.getHeaderValues(wanted)
        if IStreamingRequest.providedBy(request)
        else request.requestHeaders.getRawHeaders(wanted, ())
    )
    return [value.decode("utf-8", "replace") for value in values]


def header(request: Request, name: str) -> str | None:
    """The last value of a header, or None if it was not sent."""
    return decode_header(get_header_fields(request).get(name.encode("ascii")))


def decode_header(value: bytes | None) -> str | None:
    """A value that may not be there."""
    return None if value is None else value.decode("utf-8", "replace")


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

    :param sent: what :func:`~twisted_registry.api.context.get_header_fields` says.
    """
    get = header_fields.get
    host, scheme = _parse_forwarding_headers(
        get(b"forwarded"), get(b"x-forwarded-proto"), get(b"x-forwarded-host"), get(b"host")
    )
    said = _forwarded_client_address(get(b"x-forwarded-for"), get(b"x-real-ip"))
    return Caller(
        decode_header(get(b"authorization")),
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


#: Parameters of one query; more are refused.
_MAX_PARAMETERS = 128


@frozen
class APISettings:
    """What an operator can set of the API.

    :ivar links: how URLs are made.
    :ivar headers: name -> values, on every answer.
    :ivar delete: whether manifests, tags and blobs may be deleted.
    :ivar read_only: whether nothing may be written.
    :ivar redirect: whether clients are sent to the store for blobs where it has URLs.
    :ivar catalog_limit: the largest ``n`` of the catalog.
    :ivar tags_limit: the largest ``n`` of a list of tags; larger ones are cut to it.
    :ivar tags_per_push: how many ``tag`` parameters a manifest PUT may have.
    """

    links: URLBuilder = field(factory=URLBuilder)
    headers: Mapping[str, Sequence[str]] = field(factory=dict)
    delete: bool = True
    read_only: bool = False
    redirect: bool = True
    catalog_limit: int = 1000
    tags_limit: int = 1000
    tags_per_push: int = 64


class RequestContext:
    """A request that was allowed, with all that a handler needs.

    :ivar sent: the last value of each header, by its name in lower case.
    """

    def __init__(
        self,
        request: Request,
        method: str,
        match: RouteMatch,
        query: Query,
        header_fields: Mapping[bytes, bytes],
        caller: Caller,
        grant: IGrant,
        registry: Registry,
        settings: APISettings,
        clock: IReactorTime,
        request_ids: Iterator[str],
    ) -> None:
        self.request = request
        self.method = method
        self.match = match
        self.query = query
        self.header_fields = header_fields
        self.caller = caller
        self.grant = grant
        self.registry = registry
        self.settings = settings
        self._clock = clock
        self._request_ids = request_ids
        self._body: IRequestBody | None = None
        self._origin: Origin | None = None

    @property
    def name(self) -> str:
        """The repository's name, checked when the request was routed."""
        return self.match.name

    @property
    def body(self) -> IRequestBody:
        """What the client sends."""
        if self._body is None:
            self._body = request_body(self.request, self._clock)
        return self._body

    @property
    def origin(self) -> Origin:
        """Who is to be named in events."""
        if self._origin is None:
            caller = self.caller
            self._origin = Origin(
                self.grant.user,
                caller.address,
                self.method,
                caller.host,
                self.header("user-agent") or "",
                next(self._request_ids),
            )
        return self._origin

    @property
    def repository(self) -> Repository:
        """The repository that is asked for."""
        if not self.registry.has_listener:
            return self.registry.repository(self.match.name)
        return self.registry.repository(self.match.name, self.origin)

    def header(self, name: str) -> str | None:
        """The last value of a request header."""
        return decode_header(self.header_fields.get(name.encode("ascii")))

    def headers(self, name: str) -> Sequence[str]:
        """All values of a request header."""
        return (
            get_header_values(self.request, name)
            if name.encode("ascii") in self.header_fields
            else ()
        )

    def digest(self) -> Digest:
        """The digest in the path.

        :raises RegistryError: DIGEST_INVALID.
        """
        value = self.match.value
        return value if isinstance(value, Digest) else parse_digest(self.match.variable)

    def reference(self) -> Digest | str:
        """The tag or digest in the path.

        :raises RegistryError: DIGEST_INVALID or TAG_INVALID.
        """
        if self.match.value is not None:
            return self.match.value
        try:
            return parse_reference(self.match.variable)
        except DigestInvalid as error:
            raise RegistryError(ErrorCode.DIGEST_INVALID, detail=str(error)) from error
        except TagInvalid as error:
            raise RegistryError(ErrorCode.TAG_INVALID, detail=str(error)) from error

    def url(self, *path: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """A URL of ours as the client sees it."""
        return self.settings.links.url(self.request, *path, query=query)


@frozen
class Query:
    """The parameters of a URL."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, raw: bytes) -> Query:
        """Read what stands behind the question mark.

        :raises RegistryError: 400 UNSUPPORTED if it is not text, or has very many parameters.
        """
        try:
            text = raw.decode("ascii")
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
            )
        except ValueError as error:
            raise RegistryError(
                ErrorCode.UNSUPPORTED, message="the query can not be read", status=400
            ) from error
        return cls(tuple(pairs))

    def first(self, name: str) -> str | None:
        """The first value of a parameter, or None."""
        return next((value for key, value in self.pairs if key == name), None)

    def all(self, name: str) -> list[str]:
        """All values of a parameter."""
        return [value for key, value in self.pairs if key == name]

    def digest(self, name: str) -> Digest | None:
        """The digest in a parameter, or None if it is not there or empty.

        :raises RegistryError: DIGEST_INVALID.
        """
        text = self.first(name)
        return parse_digest(text) if text else None

    def number(self, name: str) -> int | None:
        """The number in a parameter, or None if it is not there.

        :raises RegistryError: PAGINATION_NUMBER_INVALID if it is not one, or below zero.
        """
        text = self.first(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise RegistryError(ErrorCode.PAGINATION_NUMBER_INVALID, detail={name: text[:64]})
        return int(text)


#: What stands behind a question mark that is not there.
EMPTY_QUERY = Query(())


def parse_digest(text: str) -> Digest:
    """Parse a digest that a client sent.

    :raises RegistryError: DIGEST_INVALID.
    """
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise RegistryError(
            ErrorCode.DIGEST_INVALID, detail={"digest": text[:200], "reason": str(error)}
        ) from error


def validate_name(text: str) -> str:
    """Check the name of a repository that a client sent.

    :raises RegistryError: NAME_INVALID.
    """
    try:
        return check_name(text)
    except NameInvalid as error:
        raise RegistryError(
            ErrorCode.NAME_INVALID, detail={"name": text[:300], "reason": str(error)}
        ) from error
