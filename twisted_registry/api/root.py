"""The Resource tree of a whole site: the API, an answer for probes, and nothing else.

twisted.web's own pages for what is not there are HTML; clients of a registry read JSON.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.web.resource import Resource
from zope.interface import implementer

from twisted_registry.api.response import JSON
from twisted_registry.http.interfaces import IStreamingResource
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.web.server import Request


@implementer(IStreamingResource)
class JSONResource(Resource):
    """A place that holds others, and has nothing to say itself.

    It streams, so that nobody waits for a body that is not wanted.
    """

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002
        """Answer for whatever is not there."""
        return NotFoundResource()

    def render(self, request: Request) -> bytes:
        """Say that there is nothing here, whatever the method."""
        return render_error(
            request, RegistryError(ErrorCode.UNSUPPORTED, message="no such endpoint", status=404)
        )


class NotFoundResource(JSONResource):
    """Stands for every path that is not there."""

    isLeaf = True


class ProbeResource(JSONResource):
    """``GET /``: 200 and nothing, for load balancers, as Distribution answers."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Answer for the folder itself."""
        return self if not path and not request.postpath else super().getChild(path, request)

    def render(self, request: Request) -> bytes:
        """Say nothing, successfully."""
        if request.method not in {b"GET", b"HEAD"}:
            return method_not_allowed(request)
        request.defaultContentType = None
        request.setHeader("Cache-Control", "no-cache")
        return b""


class DocumentResource(JSONResource):
    """Something short to download, for everybody.

    :ivar type: the media type.
    :ivar content: answers what it holds at this moment.
    """

    isLeaf = True

    def __init__(self, type_: str, content: Callable[[], bytes]) -> None:
        super().__init__()
        self._type = type_
        self._content = content

    def render(self, request: Request) -> bytes:
        """Answer with the content."""
        if request.postpath:
            return super().render(request)
        if request.method not in {b"GET", b"HEAD"}:
            return method_not_allowed(request)
        request.setHeader("Content-Type", self._type)
        return self._content()


def make_root(api: Resource, prefix: str, others: Mapping[str, Resource] | None = None) -> Resource:
    """The tree of a whole site: the API at ``<prefix>v2``, and an answer for probes at ``/``.

    :param others: what else there is, by its path below the prefix.
    """
    root = ProbeResource()
    for path, resource in {"v2": api, **(others or {})}.items():
        *folders, name = filter(None, f"{prefix}/{path}".split("/"))
        folder: Resource = root
        for segment in map(str.encode, folders):
            if segment not in folder.children:
                folder.putChild(segment, JSONResource())
            folder = folder.children[segment]
        folder.putChild(name.encode(), resource)
    return root


def method_not_allowed(request: Request) -> bytes:
    """Refuse a method that would change what can not be changed."""
    return render_error(
        request, RegistryError(ErrorCode.UNSUPPORTED, headers=(("Allow", "GET, HEAD"),))
    )


def render_error(request: Request, error: RegistryError) -> bytes:
    """Make the answer of a request an error, and return its body."""
    request.setResponseCode(error.http_status)
    request.setHeader("Content-Type", JSON)
    for name, value in error.headers:
        request.setHeader(name, value)
    return json.dumps(error.as_json(), separators=(",", ":")).encode()


def make_error_body(status: int, message: str) -> tuple[bytes, bytes]:
    """Make the body of an error that the HTTP engine answers itself, such as a malformed request.

    :returns: Content-Type and body, as :class:`~twisted_registry.http.site.HTTPSite` takes them.
    """
    unsupported = status in {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}
    code = ErrorCode.UNSUPPORTED if unsupported else ErrorCode.UNKNOWN
    error = RegistryError(code, message=message)
    return JSON.encode(), json.dumps(error.as_json()).encode()
