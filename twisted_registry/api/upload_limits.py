"""Limits of uploads: concurrent uploads of a user, and the size of a blob."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

    from twisted_registry.api.context import RequestContext
    from twisted_registry.repository.uploads import Upload


@frozen(eq=False)
class LimitExceeded(RegistryError):
    """What a client sends exceeds a limit."""


@implementer(IBodyProducer)
@define(eq=False)
class LimitedBody:
    """A body that ends with an error as soon as it exceeds a limit.

    It has no ``append_from``, so a thread does not read it from the socket. Check the length of a
    body before, if it is known, and pass the body itself.

    :ivar admit: called with the length of each piece before the consumer gets it; raises
        LimitExceeded, with which the body then fails.
    """

    body: IBodyProducer
    admit: Callable[[int], object]
    _consumer: IConsumer | None = field(init=False, default=None)
    _refusal: LimitExceeded | None = field(init=False, default=None)

    @property
    def length(self) -> object:
        """The length of the body in bytes, or UNKNOWN_LENGTH."""
        return self.body.length

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Pass the body to ``consumer`` as far as it is admitted."""
        self._consumer = consumer
        done: Deferred[None] = self.body.startProducing(self)
        return done.addBoth(self._end)

    def pauseProducing(self) -> None:
        """Pause the body."""
        self.body.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume the body."""
        self.body.resumeProducing()

    def stopProducing(self) -> None:
        """Stop the body."""
        self.body.stopProducing()

    def write(self, data: bytes) -> None:
        """Pass a piece on, or stop the body."""
        if self._refusal is not None or self._consumer is None:
            return
        try:
            self.admit(len(data))
        except LimitExceeded as error:
            self._refusal = error
            self.body.stopProducing()
            return
        self._consumer.write(data)

    def _end(self, result: Any) -> Any:
        self._consumer = None
        if self._refusal is not None:
            raise self._refusal
        return result


@asynccontextmanager
async def limited_upload(context: RequestContext, upload: Upload) -> AsyncIterator[IBodyProducer]:
    """Receive the body of the request inside the block, within the limits of the caller.

    An upload that exceeds a limit is deleted: its client cannot continue.

    :returns: the body.
    :raises RegistryError: TOOMANYREQUESTS.
    :raises LimitExceeded: DENIED, with status 413 if the blob is too large.
    """
    with nullcontext() if context.body.length == 0 else take_slot(context):
        try:
            yield limited_body(context, upload.size)
        except LimitExceeded:
            await upload.discard()
            raise


def take_slot(context: RequestContext) -> AbstractContextManager[None]:
    """Count an upload of the caller inside the block.

    :raises RegistryError: TOOMANYREQUESTS.
    """
    slots = context.settings.upload_slots
    if slots is None:
        return nullcontext()
    return slots.take(context.grant.user, context.caller.address)


def limited_body(context: RequestContext, stored: int) -> IBodyProducer:
    """Return the body of the request; it fails if the blob becomes too large.

    :param stored: the bytes of the blob that are stored already.
    :raises LimitExceeded: if the body is known to be too large.
    """
    limit, body = context.settings.max_blob_bytes, context.body
    if not limit:
        return body
    admit = _size_check(limit, stored)
    if isinstance(body.length, int):
        # The body itself, because a thread may read it from the socket.
        admit(body.length)
        return body
    return LimitedBody(body, admit)


def _size_check(limit: int, stored: int) -> Callable[[int], None]:
    """Return a function that adds to the size of a blob, and raises LimitExceeded.

    The status is 413. The code is DENIED, because docker repeats an upload after most others.
    """
    size = stored

    def check(length: int) -> None:
        nonlocal size
        size += length
        if size > limit:
            raise LimitExceeded(
                ErrorCode.DENIED,
                message=f"a blob has at most {limit} bytes",
                detail={"limit": limit, "size": size},
                status=413,
            )

    return check
