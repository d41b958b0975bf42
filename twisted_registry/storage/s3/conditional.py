"""Whether a store refuses to replace an object when it is told so.

Some stores do not know that condition and say so; others ignore it, and would replace what is
there. So it is tried once, on a key of our own, before anybody relies on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from twisted_registry.storage.s3.errors import PreconditionFailed, Unsupported

if TYPE_CHECKING:
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.sinks import DeferredGenerator


@define(eq=False)
class ConditionalWriteProbe:
    """What a store was found to do.

    :ivar root: the prefix of our keys.
    """

    _client: IS3Client
    _root: str
    _supported: bool | None = field(init=False, default=None)
    _waiting: list[Deferred[bool]] = field(init=False, factory=list)

    def hold(self) -> Deferred[bool]:
        """Fire with whether the store obeys them; it is asked once."""
        if self._supported is not None:
            return succeed(self._supported)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._probe().addBoth(self._probed)
        return waiting

    def _probed(self, result: Any) -> None:
        if isinstance(result, bool):
            self._supported = result
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(result)

    @inlineCallbacks
    def _probe(self) -> DeferredGenerator:
        key = f"{self._root}.twisted-registry-{uuid4().hex}"
        try:
            yield self._client.put_object(key, b"", absent=True)
        except Unsupported:
            return False
        try:
            yield self._client.put_object(key, b"", absent=True)
        except PreconditionFailed:
            return True
        else:
            return False
        finally:
            yield self._client.delete_object(key)
