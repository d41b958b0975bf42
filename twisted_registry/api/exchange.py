"""One request on its way through a handler: what it asks, read strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from attrs import field, frozen

from twisted_registry.api.body import request_body
from twisted_registry.api.headers import decode_header, get_header_values
from twisted_registry.api.urls import URLBuilder
from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.reference import NameInvalid, TagInvalid, check_name, parse_reference
from twisted_registry.repository.interfaces import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.api.interfaces import IRequestBody
    from twisted_registry.api.routes import RouteMatch
    from twisted_registry.auth.interfaces import Caller, IGrant
    from twisted_registry.repository.registry import Registry, Repository

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
        return get_header_values(self.request, name) if name.encode("ascii") in self.header_fields else ()

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
