"""Requests that were read before, and need not be read a second time.

Clients of one kind send the same request for the same thing, byte for byte. Between two requests a
parser knows nothing of what was before, so bytes that were one request are that request again.

What all connections share holds no credentials: those are cut out of it. But a client pulls with
one token: so a connection also keeps its last request with them. The same one again need not be
taken apart, and one that shows the same brings along the very object of which a mark was made
before. What it is good for is not kept here: that is asked for each request. The connection keeps
its last head until the next one is in, and this goes no later: no secret stays longer than it has
to.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.api.head import (
    END_OF_HEAD,
    SHOWN,
    RequestHead,
    ShownHead,
    apart,
    credentials_in,
    is_one_head,
    without_credentials,
)

if TYPE_CHECKING:
    from twisted_registry.api.limits import Limits
    from twisted_registry.auth.interfaces import RawCredentials

#: How many heads are remembered, and of what length in bytes.
REMEMBERED = 512
LONGEST = 1024
# A request that holds one of these is not: a secret should not stay longer than it has to, and an
# Upgrade leaves a parser of its own behind. Of one with credentials the rest is.
_FLEETING = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"upgrade"})


@define(eq=False, repr=False)
class KnownHeads:
    """What one connection knows.

    :ivar limits: of requests.
    :ivar heads: what was read before under the same limits, by its bytes; shared by many.
    :ivar last: the last request, if it showed credentials, and the rest of it was known; when
        another one is in, or the connection is gone, it is to be forgotten.
    """

    _limits: Limits
    heads: dict[bytes, RequestHead]
    last: ShownHead | None = field(init=False, default=None)

    def find(self, data: bytes) -> RequestHead | ShownHead | None:
        """The head of a request that was read before, be it with other credentials."""
        last = self.last
        # Whoever shares the connection shall not find out by the time how much of theirs is right:
        # so what may hold credentials is compared in a time that does not depend on that.
        if last is not None:
            if len(data) == len(last.data) and compare_digest(data, last.data):
                return last
            self.last = None
        place = data.find(SHOWN)
        if place <= 0:
            return self.heads.get(data)
        limits = self._limits
        if len(data) > limits.header_bytes or not data.endswith(END_OF_HEAD):
            return None
        shown = (last and _same(data, place, last)) or credentials_in(data, place)
        if shown is None:
            return None
        head = self.heads.get(data[:place] + data[place + len(SHOWN) + len(shown) :])
        if head is None or len(head.headers) >= limits.header_count:
            return None
        self.last = ShownHead(head, shown, data, place)
        return self.last

    def remember(self, data: bytes, head: RequestHead) -> None:
        """Keep ``data``, which could be read, if it was a whole request and nothing else.

        :param head: it said that there is no body.
        """
        if not is_one_head(data):
            return
        if b"authorization" in head.fields:
            rest, bare = apart(data), without_credentials(head)
            if rest is None or bare is None:
                return
            data, head = rest, bare
        if len(data) <= LONGEST and _FLEETING.isdisjoint(head.fields):
            heads = self.heads
            heads[data] = head
            if len(heads) > REMEMBERED:
                del heads[next(iter(heads))]


def _same(data: bytes, place: int, last: ShownHead) -> RawCredentials | None:
    """The last credentials, if a request shows the same."""
    length = len(SHOWN) + len(last.shown) + 2
    begin = last.place
    same = compare_digest(data[place : place + length], last.data[begin : begin + length])
    return last.shown if same else None
