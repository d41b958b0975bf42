"""The context of an API request: headers, URLs, query, caller, and the repository it is about.

Request headers are decoded as UTF-8 with replacement characters, so that no bytes of a client are
an error; ``Request.getHeader`` raises on values that are not UTF-8.

Absolute URLs are those that the client uses, also behind trusted proxies: ``http.host`` of the
configuration, then ``X-Forwarded-Proto`` and ``X-Forwarded-Host``, then ``Forwarded`` (RFC 7239),
then ``Host``. A value that does not look like a host is ignored; the URL is then a path, which
clients resolve themselves.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from attrs import define, field, frozen

from twisted_registry.auth.interfaces import Caller
from twisted_registry.http.body import request_body
from twisted_registry.http.interfaces import IStreamingRequest
from twisted_registry.http.proxies import client_info
from twisted_registry.http.request_id import get_request_id
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import NameInvalid, TagInvalid, check_name, parse_reference
from twisted_registry.repository.interfaces import Origin
from twisted_registry.tls.interfaces import IClientCertificateTransport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.api.routes import RouteMatch
    from twisted_registry.auth.interfaces import IGrant
    from twisted_registry.auth.rate_limits import UploadSlots
    from twisted_registry.http.interfaces import IRequestBody
    from twisted_registry.repository.quotas import Account
    from twisted_registry.repository.registry import Registry, Repository
    from twisted_registry.tls.interfaces import ClientCertificate

#: Parameters of one query; a request with more is refused.
_MAX_PARAMETERS = 128
_MAX_NUMBER_DIGITS = 18
#: A host name has at most 253 characters (RFC 1035), a port six with its colon.
_MAX_HOST_LENGTH = 260
_HOST_RE = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


def get_header_fields(request: Request) -> Mapping[bytes, bytes]:
    """Return the last value of each request header, by its name in lower case."""
    if IStreamingRequest.providedBy(request):
        fields: Mapping[bytes, bytes] = request.headerFields
    else:
        fields = request.getAllHeaders()
    return fields


def get_header_values(request: Request, name: str) -> list[str]:
    """Return all values of a request header, in order."""
    encoded_name = name.encode("ascii")
    values: Sequence[bytes] = (
        request.getHeaderValues(encoded_name)
        if IStreamingRequest.providedBy(request)
        else request.requestHeaders.getRawHeaders(encoded_name, ())
    )
    return [value.decode("utf-8", "replace") for value in values]


def header(request: Request, name: str) -> str | None:
    """Return the last value of a request header, or None without the header."""
    return decode_header(get_header_fields(request).get(name.encode("ascii")))


def decode_header(value: bytes | None) -> str | None:
    """Decode a header value; None stays None."""
    return None if value is None else value.decode("utf-8", "replace")


def get_caller(request: Request, header_fields: Mapping[bytes, bytes]) -> Caller:
    """Return the caller, for the access controller.

    :param header_fields: as from :func:`get_header_fields`.
    """
    get = header_fields.get
    client = client_info(request, header_fields)
    host, scheme = client.host or get(b"host", b"").decode("utf-8", "replace"), client.scheme
    if len(host) > _MAX_HOST_LENGTH or _HOST_RE.fullmatch(host) is None:
        host = ""
    over_tls = request.isSecure()
    return Caller(
        decode_header(get(b"authorization")),
        client.address,
        host,
        scheme == "https" if scheme else over_tls,
        scheme,
        _client_certificate(request) if over_tls else None,
        client.peer,
    )


def _client_certificate(request: Request) -> ClientCertificate | None:
    transport: Any = request.transport
    if IClientCertificateTransport.providedBy(transport):
        found: ClientCertificate | None = transport.certificate
        return found
    return None


@frozen
class URLBuilder:
    """Builds URLs of the API.

    :ivar host: scheme and host that the operator configured, without a path; or empty.
    :ivar relative: whether to build paths without scheme and host.
    """

    host: str = ""
    relative: bool = False

    def url(self, request: Request, *path: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """Return a URL below the mount point of the API.

        :param path: segments; slashes in them are kept.
        :param query: pairs.
        """
        text = _path_below_api(request, *path)
        if query:
            text += "?" + urlencode(query, safe="=:")
        return text if self.relative else self.origin(request) + text

    def base_url(self, request: Request) -> str:
        """Return the URL of the API with scheme and host, if the host is known."""
        return self.origin(request) + _path_below_api(request)

    def origin(self, request: Request) -> str:
        """Return scheme and host for this client, or an empty string if the host is unknown."""
        if self.host:
            return self.host.rstrip("/")
        caller = get_caller(request, get_header_fields(request))
        return f"{'https' if caller.secure else 'http'}://{caller.host}" if caller.host else ""


def _path_below_api(request: Request, *path: str) -> str:
    mount_path = [segment.decode("utf-8", "replace") for segment in request.prepath or ()]
    prefix = "/".join(quote(segment) for segment in mount_path if segment)
    return f"/{prefix}/{'/'.join(quote(segment, safe='/:') for segment in path)}"


@frozen
class APISettings:
    """Settings of the API.

    :ivar urls: builds URLs.
    :ivar headers: name -> values, for every response.
    :ivar delete: whether manifests, tags and blobs may be deleted.
    :ivar read_only: whether all writes are refused.
    :ivar redirect: whether blob pulls are redirected to the store where it has URLs.
    :ivar catalog_limit: the largest ``n`` of the catalog.
    :ivar tags_limit: the largest page of a list of tags; a larger ``n`` is reduced to it.
    :ivar tags_per_push: the maximum number of ``tag`` parameters of a manifest PUT.
    :ivar max_blob_bytes: the largest blob that is accepted; 0 for no limit.
    :ivar upload_slots: limits the concurrent uploads of each user; None for no limit.
    """

    urls: URLBuilder = field(factory=URLBuilder)
    headers: Mapping[str, Sequence[str]] = field(factory=dict)
    delete: bool = True
    read_only: bool = False
    redirect: bool = True
    catalog_limit: int = 1000
    tags_limit: int = 1000
    tags_per_push: int = 64
    max_blob_bytes: int = 0
    upload_slots: UploadSlots | None = None


# No generated repr: it would contain the Authorization header.
@define(eq=False, repr=False)
class RequestContext:
    """An authorized request, with everything that a handler needs.

    :ivar header_fields: the last value of each request header, by its name in lower case.
    """

    request: Request
    method: str
    route: RouteMatch
    query: Query
    header_fields: Mapping[bytes, bytes]
    caller: Caller
    grant: IGrant
    registry: Registry
    settings: APISettings
    _clock: IReactorTime
    _body: IRequestBody | None = field(init=False, default=None)
    _repository: Repository | None = field(init=False, default=None)

    @property
    def name(self) -> str:
        """The repository name; it was validated when the request was routed."""
        return self.route.name

    @property
    def body(self) -> IRequestBody:
        """The request body."""
        if self._body is None:
            self._body = request_body(self.request, self._clock)
        return self._body

    @property
    def repository(self) -> Repository:
        """The repository in the path; its events name this request as their origin."""
        if self._repository is None:
            self._repository = self._open_repository()
        return self._repository

    @property
    def account(self) -> Account | None:
        """The account of the caller's pushes to this repository; None without a quota."""
        quotas = self.registry.quotas
        return None if quotas is None else quotas.account(self.name, self.grant.user)

    def header(self, name: str) -> str | None:
        """Return the last value of a request header, or None."""
        return decode_header(self.header_fields.get(name.encode("ascii")))

    def header_values(self, name: str) -> Sequence[str]:
        """Return all values of a request header."""
        if name.encode("ascii") not in self.header_fields:
            return ()
        return get_header_values(self.request, name)

    def digest(self) -> Digest:
        """Return the digest in the path.

        :raises RegistryError: DIGEST_INVALID.
        """
        parsed = self.route.parsed
        return parsed if isinstance(parsed, Digest) else parse_digest(self.route.variable)

    def reference(self) -> Digest | str:
        """Return the tag or digest in the path.

        :raises RegistryError: DIGEST_INVALID or TAG_INVALID.
        """
        if self.route.parsed is not None:
            return self.route.parsed
        try:
            return parse_reference(self.route.variable)
        except DigestInvalid as error:
            raise RegistryError(ErrorCode.DIGEST_INVALID, detail=str(error)) from error
        except TagInvalid as error:
            raise RegistryError(ErrorCode.TAG_INVALID, detail=str(error)) from error

    def url(self, *path: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """Return a URL of the API as the client sees it."""
        return self.settings.urls.url(self.request, *path, query=query)

    def next_page_link(self, *path: str, query: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Return the Link header that names the next page of a list (RFC 8288)."""
        return "Link", f'<{self.url(*path, query=query)}>; rel="next"'

    def _open_repository(self) -> Repository:
        if self.registry.listener is None:
            return self.registry.repository(self.route.name)
        origin = Origin(
            self.grant.user,
            self.caller.address,
            self.method,
            self.caller.host,
            self.header("user-agent") or "",
            get_request_id(self.request),
            self.settings.urls.base_url(self.request),
        )
        return self.registry.repository(self.route.name, origin)


@frozen
class Query:
    """The query parameters of a request."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, raw: bytes) -> Query:
        """Parse a query.

        :param raw: the target after the question mark.
        :raises RegistryError: 400 UNSUPPORTED if it is malformed or has too many parameters.
        """
        try:
            text = raw.decode("ascii")
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
            )
        except ValueError as error:
            raise RegistryError(
                ErrorCode.UNSUPPORTED, message="the query cannot be parsed", status=400
            ) from error
        return cls(tuple(pairs))

    def first(self, name: str) -> str | None:
        """Return the first value of a parameter, or None."""
        return next((value for key, value in self.pairs if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return [value for key, value in self.pairs if key == name]

    def digest(self, name: str) -> Digest | None:
        """Return the digest in a parameter, or None if it is missing or empty.

        :raises RegistryError: DIGEST_INVALID.
        """
        text = self.first(name)
        return parse_digest(text) if text else None

    def number(self, name: str) -> int | None:
        """Return the number in a parameter, or None if it is missing.

        :raises RegistryError: PAGINATION_NUMBER_INVALID if it is not a number, or negative.
        """
        text = self.first(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_NUMBER_DIGITS):
            raise RegistryError(ErrorCode.PAGINATION_NUMBER_INVALID, detail={name: text[:64]})
        return int(text)


#: The query of a target without a question mark.
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
    """Check a repository name that a client sent, and return it.

    :raises RegistryError: NAME_INVALID.
    """
    try:
        return check_name(text)
    except NameInvalid as error:
        raise name_invalid(text, error) from error


def name_invalid(text: str, error: NameInvalid) -> RegistryError:
    """Return the error for a repository name that is refused."""
    return RegistryError(ErrorCode.NAME_INVALID, detail={"name": text[:300], "reason": str(error)})
