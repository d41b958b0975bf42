"""The Resource tree of a whole site: the API, the probes, and JSON errors elsewhere.

twisted.web renders missing pages as HTML; clients of a registry parse JSON. While a health check
fails, the root answers every request 503, except those of the probes.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from twisted_registry.api.response import (
    JSON,
    AsyncResource,
    CommonHeaders,
    Response,
    encode_json,
    send_response,
)
from twisted_registry.health.interfaces import HealthState
from twisted_registry.http.redaction import describe_request
from twisted_registry.oci.errors import ErrorCode, RegistryError, method_not_allowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from twisted.web.resource import Resource
    from twisted.web.server import Request

    from twisted_registry.health.interfaces import IHealth

log = Logger()

_COMMON_HEADERS = CommonHeaders({})
#: A number, since members of an enumeration are slow to look up for each request.
_FAILING = int(HealthState.FAILING)


class JSONResource(AsyncResource):
    """A folder of resources without content: 404 in JSON.

    It responds as soon as the headers are complete, so that no client waits for an unwanted body
    to be read.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002
        """Return a resource that answers 404."""
        return NotFoundResource()

    async def respond(self, request: Request) -> None:
        """Send the response, or that to the error which :meth:`make_response` raises."""
        try:
            response = await self.make_response(request)
        except CancelledError:
            raise
        except RegistryError as error:
            response = Response.from_error(error)
        except Exception:  # noqa: BLE001 - the client gets a response to any error
            log.failure("{request} failed", request=describe_request(request))
            response = Response.from_error(RegistryError(ErrorCode.UNKNOWN))
        await send_response(response, request, _COMMON_HEADERS)

    async def make_response(self, request: Request) -> Response:  # noqa: ARG002
        """Make the response of a request of any method.

        :raises RegistryError: 404.
        """
        raise RegistryError(ErrorCode.UNSUPPORTED, message="no such endpoint", status=404)


class NotFoundResource(JSONResource):
    """Answers 404 for a path and everything below it."""

    isLeaf = True


class PageResource(JSONResource):
    """A page for GET and HEAD, also at its path with a trailing slash.

    :param make_page: makes the response for each request.
    """

    def __init__(self, make_page: Callable[[], Awaitable[Response]]) -> None:
        super().__init__()
        self._make_page = make_page

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return this resource for the path with a trailing slash."""
        return self if not path and not request.postpath else super().getChild(path, request)

    async def make_response(self, request: Request) -> Response:
        """Return the page.

        :raises RegistryError: 405 for another method.
        """
        if request.method not in {b"GET", b"HEAD"}:
            raise method_not_allowed("GET", "HEAD")
        return await self._make_page()


async def make_probe() -> Response:
    """Return the page at ``/``: an empty 200 for load balancers, as from Distribution."""
    return Response(200, [("Cache-Control", "no-cache")])


class UnavailableResource(NotFoundResource):
    """Answers 503 for a path and everything below it."""

    async def make_response(self, request: Request) -> Response:  # noqa: ARG002
        """Refuse the request.

        :raises RegistryError: 503, as Distribution answers while a check fails.
        """
        raise _unavailable()


def _unavailable() -> RegistryError:
    return RegistryError(
        ErrorCode.UNAVAILABLE, detail="health check failed: please see /debug/health"
    )


class SiteRoot(PageResource):
    """The root of a site: the page at ``/``, the probes, and what is mounted below it.

    The probes, for the machinery that starts and stops containers, are ``/livez`` (the process
    answers), ``/readyz`` (every check has run and none fails) and ``/startupz`` (every check has
    run, or one has failed). They need no login, and say nothing but ``ok`` or ``failed``.

    :param health: while it is failing, every request but those of the probes is answered 503. None
        for a registry without checks.
    """

    def __init__(self, health: IHealth | None = None) -> None:
        super().__init__(make_probe)
        state = self._state = _always_healthy if health is None else health.state
        self._probes: Mapping[bytes, Resource] = {
            b"livez": _probe_resource(lambda: True),
            b"readyz": _probe_resource(lambda: state() == HealthState.HEALTHY),
            b"startupz": _probe_resource(lambda: state() != HealthState.STARTING),
        }
        for path, resource in self._probes.items():
            self.putChild(path, resource)

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        """Return the resource of a path, or one that answers 503."""
        if self._state() == _FAILING and (path not in self._probes or any(request.postpath or ())):
            return UnavailableResource()
        found: Resource = super().getChildWithDefault(path, request)
        return found

    async def make_response(self, request: Request) -> Response:
        """Return the page at ``/``.

        :raises RegistryError: 503 while a check fails, or 405.
        """
        # For a root below another path, which may be requested without a slash.
        if self._state() == _FAILING:
            raise _unavailable()
        return await super().make_response(request)


def _always_healthy() -> int:
    return HealthState.HEALTHY


def _probe_resource(is_ok: Callable[[], bool]) -> PageResource:
    async def make_page() -> Response:
        status, text = (200, b"ok") if is_ok() else (503, b"failed")
        return Response(
            status, [("Content-Type", "text/plain"), ("Cache-Control", "no-store")], text
        )

    return PageResource(make_page)


def make_root(
    api: Resource,
    prefix: str,
    others: Mapping[str, Resource] | None = None,
    health: IHealth | None = None,
) -> SiteRoot:
    """Return the tree of a whole site: the API at ``<prefix>v2``, and the probes at the root.

    :param others: further resources by their paths below the prefix.
    :param health: as in :class:`SiteRoot`.
    """
    root = SiteRoot(health)
    for path, resource in {"v2": api, **(others or {})}.items():
        put_path(root, f"{prefix}/{path}", resource)
    return root


def put_path(root: Resource, path: str, resource: Resource) -> None:
    """Mount a resource under a path with slashes, and create the folders above it."""
    *folders, name = (segment.encode() for segment in path.split("/") if segment)
    folder = root
    for segment in folders:
        if segment not in folder.children:
            folder.putChild(segment, JSONResource())
        folder = folder.children[segment]
    folder.putChild(name, resource)


def make_error_body(status: int, message: str) -> tuple[bytes, bytes]:
    """Return the body of an error that the HTTP engine answers itself, such as a malformed request.

    :returns: Content-Type and body, as :class:`~twisted_registry.http.site.HTTPSite` takes them.
    """
    unsupported = status in {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}
    code = ErrorCode.UNSUPPORTED if unsupported else ErrorCode.UNKNOWN
    return JSON.encode(), encode_json(RegistryError(code, message=message).as_json())
