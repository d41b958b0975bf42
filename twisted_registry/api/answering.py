"""How a connection sends an answer, and knows whether another may follow.

An answer is complete or visibly broken: if its Content-Length can not be kept, or anything
fails after its first byte, the connection is reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import fail
from twisted.internet.error import ConnectionAborted
from twisted.logger import Logger

from twisted_registry.api.ending import MortalConnection
from twisted_registry.api.framing import ResponseHead, response_head

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred
    from twisted.web.http_headers import Headers

    from twisted_registry.api.site import HTTPSite

log = Logger()


class AnsweringConnection(MortalConnection):
    """What a Request calls to send its answer; see the module."""

    def __init__(self, site: HTTPSite) -> None:
        super().__init__(site)
        self._keep_alive = True
        self._unsent_body_bytes: int | None = None  # bytes of the answer still to come
        self._self_delimited = True
        self._expects_continue = False

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers | Iterable[Any]
    ) -> None:
        """Send the head of an answer, and decide whether another may follow."""
        del version
        request = self.request
        assert request is not None
        head = ResponseHead(request.method, code, reason, headers)
        self._unsent_body_bytes = head.length
        # Or else only the end of the connection says where the answer ends.
        self._self_delimited = head.framed or bool(request.chunked)
        self._keep_alive = self._can_keep_alive() and not head.close
        if not self.closing:
            self.output.write(head.render(closing=not self._keep_alive))

    def write(self, data: bytes) -> None:
        """Send a part of an answer's body."""
        if self._count_sent(len(data)) and not self.closing:
            self.output.write(data)

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Send several parts."""
        self.write(b"".join(parts))

    def send_response(
        self, status: int, reason: bytes, fields: bytes, body: bytes, length: int | None
    ) -> None:
        """Send a whole answer, head and body in one piece.

        :param length: Content-Length of an answer without a body; None for that of ``body``.
        """
        said = len(body) if length is None else length
        head = self.make_response_head(status, reason, fields, said)
        self._unsent_body_bytes = None
        if not self.closing:
            self.output.write(head + body)

    def make_response_head(self, status: int, reason: bytes, fields: bytes, length: int) -> bytes:
        """The head of an answer whose fields are ready, and decide whether another may follow."""
        self._unsent_body_bytes, self._self_delimited = length, True
        self._keep_alive = self._can_keep_alive()
        return response_head(status, reason, self.site.date(), fields, length, closing=not self._keep_alive)

    def send_file(self, descriptor: int, offset: int, length: int) -> Deferred[None]:
        """Send a range of a file. Only on an output that sends files."""
        output: Any = self.output
        assert output.sends_files
        if self.closing or not self._count_sent(length):
            return fail(ConnectionAborted())
        sent: Deferred[None] = output.send_file(descriptor, offset, length)
        return sent

    def send_head_and_file(
        self, head: bytes, descriptor: int, offset: int, length: int
    ) -> Deferred[None] | None:
        """Send what :meth:`make_response_head` made, and a range of a file.

        Only on an output that sends files.

        :returns: None if all has been sent.
        """
        if self.closing:
            return fail(ConnectionAborted())
        output: Any = self.output
        assert output.sends_files
        self._unsent_body_bytes = None
        sent: Deferred[None] | None = output.send_head_and_file(head, descriptor, offset, length)
        return sent

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001
        """Pause and resume ``producer`` as the peer takes what it writes."""
        self.output.register_producer(producer, streaming=streaming)

    def unregisterProducer(self) -> None:
        """The producer has written everything."""
        self.output.unregister_producer()

    def loseConnection(self) -> None:
        """Close once everything written has been sent."""
        request = self.request
        if request is not None and request.startedWriting and not self._self_delimited:
            self.abort()
        else:
            self._close_when_sent(linger=False)

    def _can_keep_alive(self) -> bool:
        """Whether another request can follow the answer that begins now."""
        head = self._head
        assert head is not None
        if self.site.draining or not head.keep_alive or (self._read_closed and not self._events):
            return False
        if head.complete:
            return True
        if head.length is None or (self._expects_continue and head.body_bytes_read == 0):
            # The end is not in sight; or the client may or may not send the body.
            return False
        return head.length - head.body_bytes_read <= self._limits.linger_bytes

    def _count_sent(self, amount: int) -> bool:
        """Whether that much still fits into what the head said."""
        if self._unsent_body_bytes is not None:
            self._unsent_body_bytes -= amount
            if self._unsent_body_bytes < 0:
                log.error("{request} was answered with more than it said", request=self.request)
                self._unsent_body_bytes = None
                self.abort()
                return False
        return True
