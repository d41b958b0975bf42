"""Limits of uploads: concurrent uploads of a user, the size of a blob, and quotas."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository.quotas import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

    from twisted_registry.api.context import RequestContext
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.quotas import Account, Reservation
    from twisted_registry.repository.uploads import Upload


@implementer(IBodyProducer)
@define(eq=False, repr=False)
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


async def start_upload(context: RequestContext) -> Upload:
    """Start an upload, unless a quota is used up.

    :raises LimitExceeded: DENIED.
    """
    account, uploads = context.account, context.repository.uploads
    if account is None:
        return await uploads.start()
    await account.check_room()
    upload = await uploads.start()
    await account.record_upload(upload.id)
    return upload


@asynccontextmanager
async def limited_upload(
    context: RequestContext, upload: Upload, digest: Digest | None = None
) -> AsyncIterator[IBodyProducer]:
    """Receive the body of the request inside the block, within the limits of the caller.

    An upload that exceeds a limit is deleted: its client cannot continue.

    :param digest: the digest of the blob if the request ends the upload.
    :returns: the body.
    :raises RegistryError: TOOMANYREQUESTS.
    :raises LimitExceeded: DENIED, with status 413 if the blob is too large.
    """
    account = context.account
    with nullcontext() if context.body.length == 0 else _count_upload(context):
        try:
            if account is None:
                yield _limited_body(context, upload.size, None)
                return
            async with _accounted_upload(context, account, upload, digest) as reservation:
                yield _limited_body(context, upload.size, reservation)
        except LimitExceeded:
            await discard_upload(context, upload)
            raise


async def discard_upload(context: RequestContext, upload: Upload) -> None:
    """Delete an upload, and the bytes that it takes from its owner's quotas."""
    account = context.account
    if account is not None:
        # Without an exchange: a full disk must not prevent the deletion.
        reservation = await account.reserve(0, exchange=False)
        reservation.settle(-await upload.delete_bytes())
        await account.publish()
    await upload.discard()


async def mount_blob(context: RequestContext, digest: Digest, source: str | None) -> bool:
    """Mount a blob, and return whether that was possible.

    :raises LimitExceeded: DENIED if it exceeds a quota.
    """
    account, blobs = context.account, context.repository.blobs
    if account is None or await blobs.is_linked(digest):
        return await blobs.mount(digest, source) is not None
    reservation = await account.reserve(0)
    try:
        await account.record_content(digest)
        mounted = await blobs.mount(digest, source, reservation.grow) is not None
    finally:
        reservation.settle(reservation.length)
    await account.publish()
    return mounted


@asynccontextmanager
async def _accounted_upload(
    context: RequestContext, account: Account, upload: Upload, digest: Digest | None
) -> AsyncIterator[Reservation]:
    """Account for what an upload stores inside the block.

    What a failed request may have freed counts until everything is counted again, unless that is
    certain: two requests of a client must not free the same bytes twice.
    """
    before, body = upload.size, context.body
    is_linked = digest is not None and await context.repository.blobs.is_linked(digest)
    if digest is not None and not is_linked:
        await account.record_content(digest)
    length = body.length if isinstance(body.length, int) else 0
    reservation = await account.reserve(length, exchange=body.length != 0)
    stored = 0
    try:
        yield reservation
        stored = (0 if is_linked else upload.size) - before
    except BaseException as error:
        is_deleted = isinstance(error, RegistryError) and error.code is ErrorCode.DIGEST_INVALID
        stored = -before if is_deleted else max(0, upload.size - before)
        raise
    finally:
        reservation.settle(stored)
    if stored:
        await account.publish()
    if digest is not None and not upload.is_single_request:
        # The blob is stored, whatever happens to the record.
        with suppress(RegistryError):
            await account.forget_upload(upload.id)


@contextmanager
def _count_upload(context: RequestContext) -> Iterator[None]:
    """Count an upload of the caller inside the block.

    :raises RegistryError: TOOMANYREQUESTS.
    """
    slots, registry = context.settings.upload_slots, context.registry
    user, address = context.grant.user, context.caller.address
    with nullcontext() if slots is None else slots.take(user, address):
        registry.active_uploads += 1
        try:
            yield
        finally:
            registry.active_uploads -= 1


def _limited_body(
    context: RequestContext, stored: int, reservation: Reservation | None
) -> IBodyProducer:
    """Return the body of the request; it fails if the blob is too large, or exceeds a quota.

    :param stored: the bytes of the blob that are stored already.
    :param reservation: has room for a body of known length, and is grown by another as it arrives;
        None without a quota.
    :raises LimitExceeded: if the body is known to be too large.
    """
    body, limit = context.body, context.settings.max_blob_bytes
    checks: list[Callable[[int], object]] = [_size_check(limit, stored)] if limit else []
    if isinstance(body.length, int):
        for check in checks:
            check(body.length)
        # The body itself, because a thread may read it from the socket.
        return body
    if reservation is not None:
        checks.append(reservation.grow)
    if not checks:
        return body

    def admit(length: int) -> None:
        for check in checks:
            check(length)

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
                limit="blobbytes",
            )

    return check
