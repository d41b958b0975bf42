"""The Resource tree of a whole site: the API, the probe at ``/``, and JSON errors elsewhere.

twisted.web renders missing pages as HTML; clients of a registry parse JSON.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.web.resource import Resource
from zope.interface import implementer

from twisted_registry.api.response import JSON, Response, encode_json
from twisted_registry.http.interfaces import IStreamingResource
from twisted_registry.oci.errors import ErrorCode, RegistryError, method_not_allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.web.server import Request


@implementer(IStreamingResource)
class JSONResource(Resource):
    """A folder of resources without content of its own: 404 in JSON.

    It renders as soon as the headers are complete, so that no client waits for an unwanted body
    to be read.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002
        """Return a resource that answers 404."""
        return NotFoundResource()

    def render(self, request: Request) -> bytes:
        """Answer 404 to every method."""
        return render_error(
            request, RegistryError(ErrorCode.UNSUPPORTED, message="no such endpoint", status=404)
        )


class NotFoundResource(JSONResource):
    """Answers 404 for a path and everything below it."""

    isLeaf = True


class ProbeResource(JSONResource):
    """``GET /``: an empty 200 for load balancers, as from Distribution."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return this resource for the path with a trailing slash."""
        return self if not path and not request.postpath else super().getChild(path, request)

    def render(self, request: Request) -> bytes:
        """Answer GET and HEAD."""
        if request.method not in {b"GET", b"HEAD"}:
            return render_error(request, method_not_allowed("GET", "HEAD"))
        request.defaultContentType = None
        request.setHeader("Cache-Control", "no-cache")
        return b""


class DocumentResource(JSONResource):
    """A short public document.

    :param content_type: its media type.
    :param content: returns its current content.
    """

    isLeaf = True

    def __init__(self, content_type: str, content: Callable[[], bytes]) -> None:
        super().__init__()
        self._content_type = content_type
        self._content = content

    def render(self, request: Request) -> bytes:
        """Answer GET and HEAD with the document."""
        if request.postpath:
            return super().render(request)
        if request.method not in {b"GET", b"HEAD"}:
            return render_error(request, method_not_allowed("GET", "HEAD"))
        request.setHeader("Content-Type", self._content_type)
        return self._content()


def make_root(api: Resource, prefix: str, others: Mapping[str, Resource] | None = None) -> Resource:
    """Return the tree of a whole site: the API at ``<prefix>v2``, and the probe at ``/``.

    :param others: further resources by their paths below the prefix.
    """
    root = ProbeResource()
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


def render_error(request: Request, error: RegistryError) -> bytes:
    """Make an error the response of a request, and return the body.

    For a Resource whose ``render`` returns its body.
    """
    response = Response.from_error(error)
    request.setResponseCode(response.status)
    for name, value in response.headers:
        request.setHeader(name, value)
    body = response.body
    assert isinstance(body, bytes)
    return body


def make_error_body(status: int, message: str) -> tuple[bytes, bytes]:
    """Return the body of an error that the HTTP engine answers itself, such as a malformed request.

    :returns: Content-Type and body, as :class:`~twisted_registry.http.site.HTTPSite` takes them.
    """
    unsupported = status in {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}
    code = ErrorCode.UNSUPPORTED if unsupported else ErrorCode.UNKNOWN
    return JSON.encode(), encode_json(RegistryError(code, message=message).as_json())
