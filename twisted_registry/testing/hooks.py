"""Hooks through which each request of a registry passes.

A hook is a coroutine function. It answers the request, or awaits ``proceed`` to pass it on to the
next hook and then to the registry::

    async def refuse_pushes(request, proceed):
        if request.method == b"PUT":
            request.setResponseCode(503)
            request.finish()
        else:
            await proceed(request)

It runs on the thread of the registry's reactor when the head of the request has been read; the body
has not. ``proceed`` returns when the response has been sent or the client has left. A client that
leaves cancels the hook wherever it waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.web.resource import getChildForRequest

from twisted_registry.api.response import AsyncResource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred
    from twisted.web.resource import Resource

#: Answers a request; takes the request.
Proceed: TypeAlias = Callable[[Any], Awaitable[None]]
#: Answers a request or passes it on; takes the request and what answers it otherwise.
RequestHook: TypeAlias = Callable[[Any, Proceed], Awaitable[None]]


class HookedResource(AsyncResource):
    """A Resource tree behind hooks.

    :param root: the root of the tree.
    :param hooks: in the order in which requests pass them. Later changes apply to the requests that
        begin afterwards.
    """

    isLeaf = True

    def __init__(self, root: Resource, hooks: Sequence[RequestHook]) -> None:
        super().__init__()
        self._root = root
        self._hooks = hooks

    async def respond(self, request: Any) -> None:
        """Pass the request through the hooks."""
        proceed: Proceed = self._answer
        for hook in reversed(self._hooks):
            proceed = _bind(hook, proceed)
        await proceed(request)

    async def _answer(self, request: Any) -> None:
        ended: Deferred[None] = request.notifyFinish()
        ended.addErrback(lambda _: None)  # the client has left
        request.render(getChildForRequest(self._root, request))
        await ended


def _bind(hook: RequestHook, proceed: Proceed) -> Proceed:
    async def answer(request: Any) -> None:
        await hook(request, proceed)

    return answer
