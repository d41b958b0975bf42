"""Sizes of blobs remembered in Redis, where several registries find them.

A Redis that is down or slow is a line in the log, and whatever it would have known is asked of the
store: nobody waits for it longer than :data:`REPLY_TIMEOUT_S`, and no client hears of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.repository.cache import IDescriptorCache

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.oci.digest import Digest

log = Logger()

#: Seconds that an answer may take, unless the operator says otherwise.
REPLY_TIMEOUT_S = 1.0
#: Seconds that closing may take.
_CLOSE_TIMEOUT_S = 2.0


@implementer(IDescriptorCache)
@define(eq=False, repr=False)
class RedisDescriptorCache:
    """Remembers in Redis.

    :ivar client: has ``get``, ``set`` and ``disconnect``, which answer with Deferreds.
    :ivar connected: whether it has a connection now.
    :ivar where: the server, for the log.
    :ivar patience: seconds that an answer may take.
    """

    client: Any
    connected: Any
    _clock: IReactorTime
    where: str
    reply_timeout: float = REPLY_TIMEOUT_S
    _is_down: bool = field(init=False, default=False)

    def size(self, digest: Digest) -> Deferred[int | None]:
        """Ask; None whatever goes wrong."""
        if not self.connected():
            self._log_down("there is no connection")
            return succeed(None)
        asking: Deferred[Any] = self.client.get(_key(digest))
        asking.addTimeout(self.reply_timeout, self._clock)
        return asking.addCallbacks(self._size, self._failed)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Tell it, and do not wait."""
        if self.connected():
            telling: Deferred[Any] = self.client.set(_key(digest), str(size))
            telling.addTimeout(self.reply_timeout, self._clock)
            telling.addCallbacks(self._log_up, self._failed)

    def close(self) -> Deferred[None]:
        """Close the connections, in a moment or not at all."""
        closing: Deferred[Any] = self.client.disconnect()
        closing.addTimeout(_CLOSE_TIMEOUT_S, self._clock, lambda _, __: None)
        return closing.addCallbacks(lambda _: None, lambda _: None)

    def _size(self, answer: object) -> int | None:
        self._log_up(answer)
        try:
            size = int(str(answer))
        except ValueError:
            # Never noted, or not by us.
            return None
        return size if size >= 0 else None

    def _log_up(self, _: object) -> None:
        if self._is_down:
            self._is_down = False
            log.info("Redis at {where} answers again", where=self.where)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            # A client has left.
            failure.raiseException()
        self._log_down(failure.getErrorMessage() or repr(failure.value))

    def _log_down(self, why: str) -> None:
        # Once for each time, and not for each request.
        if not self._is_down:
            self._is_down = True
            log.warn(
                "Redis at {where} does not answer, the store is asked instead: {why}",
                where=self.where,
                why=why,
            )


def _key(digest: Digest) -> str:
    return f"twisted-registry:size:{digest}"
