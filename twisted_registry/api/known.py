"""Requests that were read before, and need not be read a second time.

Clients of one kind send the same request for the same thing, byte for byte. Between two requests a
parser knows nothing of what was before, so bytes that were one request are that request again.

What all connections share holds no credentials: those are cut out of it. But a client pulls with
one token: so a connection also keeps what its last request showed, and others that show the same
are not taken apart anew, and bring along the very object of which a mark was made before. What it
is good for is not kept here: that is asked for each request. The connection keeps its last head
until the next one is in, and this goes no later: no secret stays longer than it has to.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.api.head import (
    END,
    SHOWN,
    Head,
    apart,
    is_one_head,
    joined,
    without_credentials,
)
from twisted_registry.auth.interfaces import Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.api.limits import Limits

#: How many heads are remembered, and of what length in bytes.
REMEMBERED = 512
LONGEST = 1024
# A request that holds one of these is not: a secret should not stay longer than it has to, and an
# Upgrade leaves a parser of its own behind. Of one with credentials the rest is.
_FLEETING = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"upgrade"})


@define(eq=False, repr=False)
class Again:
    """The last request of a connection that showed the same as the one before it.

    :ivar data: all of it.
    :ivar line: its credentials, with what stands around them.
    :ivar head: its head.
    """

    data: bytes
    line: bytes
    head: Head

    def beside(self, data: bytes, heads: Mapping[bytes, Head], most: int) -> Head | None:
        """The head of a request that shows the same, if the rest of it was read before.

        :param most: header fields.
        """
        line = self.line
        place = data.find(SHOWN)
        end = place + len(line)
        if place <= 0 or not compare_digest(data[place:end], line) or not data.endswith(END):
            return None
        bare = heads.get(data[:place] + data[end - 2 :])
        if bare is None or len(bare.headers) >= most:
            return None
        credentials, shown = self.head.fields[b"authorization"], self.head.shown
        self.data = data
        self.head = joined(bare, credentials, data.count(b"\r\n", 0, place), shown)
        return self.head


@define(eq=False, repr=False)
class KnownHeads:
    """What one connection knows.

    :ivar limits: of requests.
    :ivar heads: what was read before under the same limits, by its bytes; shared by many.
    :ivar last: the credentials of the last request, if the rest of it was known; when another one
        is in, or the connection is gone, they are to be forgotten.
    """

    _limits: Limits
    heads: dict[bytes, Head]
    last: Again | bytes | None = field(init=False, default=None)

    def find(self, data: bytes) -> Head | None:
        """The head of a request that was read before, be it with other credentials."""
        limits, last = self._limits, self.last
        # Whoever shares the connection shall not find out by the time how much of theirs is right:
        # so what may hold credentials is compared in a time that does not depend on that.
        if (
            isinstance(last, Again)
            and len(data) == len(last.data)
            and compare_digest(data, last.data)
        ):
            return last.head
        self.last = head = None
        if len(data) > limits.header_bytes:
            return None
        if isinstance(last, Again):
            head = last.beside(data, self.heads, limits.header_count)
            self.last = None if head is None else last
        head = head or self.heads.get(data)
        if head is not None:
            return head
        found = apart(data)
        bare = None if found is None else self.heads.get(found[0])
        if found is None or bare is None or len(bare.headers) >= limits.header_count:
            return None
        _, credentials, before = found
        if not isinstance(last, bytes) or not compare_digest(last, credentials):
            # Many connections bring one request, so that more is not made of it yet.
            self.last = credentials
            return joined(bare, credentials, before)
        head = joined(bare, credentials, before, Shown(credentials.decode("ascii")))
        self.last = Again(data, SHOWN + credentials + b"\r\n", head)
        return head

    def remember(self, data: bytes, head: Head) -> None:
        """Keep ``data``, which could be read, if it was a whole request and nothing else.

        :param head: it said that there is no body.
        """
        if not is_one_head(data):
            return
        if b"authorization" in head.fields:
            found, bare = apart(data), without_credentials(head)
            if found is None or bare is None:
                return
            data, head = found[0], bare
        if len(data) <= LONGEST and _FLEETING.isdisjoint(head.fields):
            heads = self.heads
            heads[data] = head
            if len(heads) > REMEMBERED:
                del heads[next(iter(heads))]
