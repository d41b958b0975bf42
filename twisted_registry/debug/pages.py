"""The pages of the debug address: JSON that a coroutine makes, and text for Prometheus."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from twisted_registry.api.answers import JSON
from twisted_registry.api.headers import get_header_fields
from twisted_registry.api.interfaces import IStreamingResource
from twisted_registry.api.tree import JSONResource, render_error
from twisted_registry.api.urls import get_caller
from twisted_registry.auth.interfaces import MAINTENANCE
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.python.failure import Failure
    from twisted.web.resource import Resource
    from twisted.web.server import Request

    from twisted_registry.auth.interfaces import IAccessController

log = Logger()


@implementer(IStreamingResource)
class DebugPage(JSONResource):
    """Something to read, made anew each time."""

    def __init__(self, make_content: Callable[[], Awaitable[bytes]], content_type: str = JSON) -> None:
        """Take what makes the text."""
        super().__init__()
        self._make_content = make_content
        self._content_type = content_type

    def getChild(self, path: bytes, request: Request) -> Resource:
        """The page itself, for a path that ends with a slash."""
        return self if not path and not request.postpath else super().getChild(path, request)

    def render(self, request: Request) -> Any:
        """Answer a GET."""
        if request.method not in {b"GET", b"HEAD"}:
            headers = (("Allow", "GET, HEAD"),)
            return render_error(request, RegistryError(ErrorCode.UNSUPPORTED, headers=headers))
        return respond_with(request, self._render_content(request))

    async def _render_content(self, request: Request) -> bytes:
        content = await self._make_content()
        request.setHeader("Content-Type", self._content_type)
        request.setHeader("Cache-Control", "no-store")
        return content


class MaintenancePage(DebugPage):
    """The tasks: a GET tells how they are, a POST below it starts one for whoever may."""

    isLeaf = True

    def __init__(
        self,
        make_content: Callable[[], Awaitable[bytes]],
        start: Callable[[str], bool],
        access: IAccessController | None,
        *,
        alone: bool,
    ) -> None:
        """Take who tells, who starts and who decides.

        :param start: begins a run of a task by its name, and tells whether there is such a task.
        :param access: the controller that guards the API; None if none is configured.
        :param alone: whether only this machine reaches the page.
        """
        super().__init__(make_content)
        self._start = start
        self._access = access
        self._alone = alone

    def render(self, request: Request) -> Any:
        """Answer a GET of the page itself, or a POST of a task below it."""
        name = b"/".join(request.postpath or ()).decode("utf-8", "replace")
        if not name:
            return super().render(request)
        if request.method != b"POST":
            error = RegistryError(ErrorCode.UNSUPPORTED, headers=(("Allow", "POST"),))
            return render_error(request, error)
        return respond_with(request, self._start_task(request, name))

    async def _start_task(self, request: Request, name: str) -> bytes:
        await self._authorize(request)
        if not self._start(name):
            raise RegistryError(ErrorCode.UNSUPPORTED, message="no such task", status=404)
        request.setResponseCode(202)
        request.setHeader("Content-Type", JSON)
        return encode_json({"started": name})

    async def _authorize(self, request: Request) -> None:
        header_fields = get_header_fields(request)
        if b"origin" in header_fields:
            # A browser says so of what a page of somebody else asks for, from this machine too.
            raise RegistryError(ErrorCode.DENIED, message="not for pages in a browser")
        if self._access is not None:
            await self._access.authorize(get_caller(request, header_fields), [MAINTENANCE])
        elif not self._alone:
            raise RegistryError(
                ErrorCode.DENIED,
                message="without auth tasks are started on a loopback address alone",
            )


def encode_json(content: object) -> bytes:
    """A document, for people too."""
    return json.dumps(content, indent=1).encode() + b"\n"


def respond_with(request: Request, work: Any) -> Any:
    """Answer a request with what a coroutine returns, or raises."""
    working: Deferred[bytes] = Deferred.fromCoroutine(work)
    gone: list[object] = []
    request.notifyFinish().addErrback(gone.append)

    def failed(failure: Failure) -> bytes:
        error = failure.value
        if not isinstance(error, RegistryError):
            if not isinstance(error, CancelledError):
                log.failure("{uri} failed", failure, uri=request.uri)
            error = RegistryError(ErrorCode.UNKNOWN)
        return render_error(request, error)

    def send(content: bytes) -> None:
        if not gone:
            request.setHeader("Content-Length", str(len(content)))
            request.write(content)
            request.finish()

    working.addErrback(failed).addCallback(send)
    return NOT_DONE_YET
