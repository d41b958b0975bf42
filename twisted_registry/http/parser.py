"""Request parser: bytes in, events out, as strict as RFC 9112 allows a server to be.

llhttp (through ``httptools``) parses the grammar. This module adds what llhttp leaves to its user:
limits, exactly one Host, exactly one framing, no transfer coding except chunked, no tunnels. A
proxy in front of the server and the server must never disagree about where a request ends, so
everything that two parsers could read in two ways is refused.

The parser calls nothing while it parses. It appends events to :attr:`RequestParser.events`, and
the connection handles them after all bytes have been parsed. No Resource runs, and no exception of
a Resource propagates, in the middle of a parse.
"""

from __future__ import annotations

import re
from collections import deque
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Final

from attrs import define, frozen
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

if TYPE_CHECKING:
    from twisted_registry.http.interfaces import Limits

# RFC 3986 section 3.2: host and port without userinfo; the registered characters of a name.
_AUTHORITY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*\Z")
# RFC 9112 section 3.2.1: visible ASCII, and no fragment.
_TARGET = re.compile(rb"[!-\"$-~]+\Z")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]+)(.*)\Z", re.IGNORECASE | re.DOTALL)
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_SINGLETON_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding"})
# Reads of at least this size bypass llhttp inside a body of known length, to avoid a copy.
_BYPASS_MIN_BYTES = 64 * 1024
# Framing that one chunk may have besides its data: size line and CRLFs.
_CHUNK_OVERHEAD_BYTES = 32

_END_OF_HEAD = b"\r\n\r\n"
_AUTHORIZATION = b"\r\nAuthorization: "
_PRINTABLE = bytes(range(0x20, 0x7F))
_SPACE = 0x20
MAX_CACHED_HEADS: Final = 512
MAX_CACHED_HEAD_BYTES: Final = 1024
# Larger objects are not in the pools of Python's allocator. Where one is kept, it lies at the start
# of the 64 KiB that were allocated for a read, and the rest of them fits no other read.
MAX_CACHED_PART_BYTES: Final = 448
# Requests with these fields are not cached: the first three are secrets, and an Upgrade changes the
# state of llhttp. Credentials in Authorization are cut out first.
_UNCACHED_FIELDS = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"upgrade"})


@define(eq=False, repr=False, slots=True)
class RequestHead:
    """A request line with its header fields, and how much of the body has been read.

    The head of a request without a body may be shared by many requests: it must not be changed.

    :ivar target: in origin form, or ``*``.
    :ivar headers: names as sent, values without surrounding white space.
    :ivar fields: the last value of each field, by its name in lower case.
    :ivar keep_alive: whether the client wants, and its version allows, another request after this.
    :ivar length: the body's length in bytes, None if it is chunked.
    :ivar expects_continue: whether the client waits for ``100 Continue``.
    :ivar body_bytes_read: bytes of the body read so far.
    :ivar complete: whether the end of the body has been read.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    keep_alive: bool
    length: int | None = 0
    expects_continue: bool = False
    body_bytes_read: int = 0
    complete: bool = True

    def replace_headers(
        self, headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]
    ) -> RequestHead:
        """Return the head of the same request, which has no body, with other fields."""
        return RequestHead(self.method, self.target, self.version, headers, fields, self.keep_alive)


class HeadCache:
    """Parsed heads of requests without a body, by the bytes of the request or their SHA-256.

    Clients of one kind send the same bytes for the same resource. Between two requests the parser
    has no state, so equal bytes have an equal head. All connections of a site share the cache.

    It holds no credentials: the Authorization line is cut out of the bytes and of the head. A
    request with credentials gets a copy of the cached head, with its own Authorization field last.

    Bounded: :data:`MAX_CACHED_HEADS` of :data:`MAX_CACHED_HEAD_BYTES`, whose target and values have
    at most :data:`MAX_CACHED_PART_BYTES` each; the oldest goes first. The bytes that were read are
    not kept.

    :param limits: of the parsers that use the cache.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._heads: dict[bytes | tuple[bytes], RequestHead] = {}

    def find(self, data: bytes) -> RequestHead | None:
        """Return the head of a request, or None if it has to be parsed.

        :param data: bytes read between two requests.
        """
        start = data.find(_AUTHORIZATION)
        if start < 0:
            return self._heads.get(_key_of(data))
        limits = self._limits
        cut = None if len(data) > limits.header_bytes else _cut_credentials(data, start)
        if cut is None:
            return None
        rest, credentials = cut
        head = self._heads.get(_key_of(rest))
        if head is None or len(head.headers) >= limits.header_count:
            return None
        return head.replace_headers(
            [*head.headers, (b"Authorization", credentials)],
            {**head.fields, b"authorization": credentials},
        )

    def store(self, data: bytes, head: RequestHead) -> None:
        """Cache a head, if ``data`` is exactly that head and the head can be cached.

        :param head: what the parser made of ``data``; it has no body.
        """
        if not data[:1].isalpha() or data.find(_END_OF_HEAD) + len(_END_OF_HEAD) != len(data):
            return
        if b"authorization" in head.fields:
            cut = _cut_credentials(data, data.find(_AUTHORIZATION))
            headers = [field for field in head.headers if field[0].lower() != b"authorization"]
            if cut is None or len(headers) != len(head.headers) - 1:
                return
            data, _ = cut
            fields = head.fields.copy()
            del fields[b"authorization"]
            head = head.replace_headers(headers, fields)
        if (
            len(data) <= MAX_CACHED_HEAD_BYTES
            and _UNCACHED_FIELDS.isdisjoint(head.fields)
            and max(map(len, chain([head.target], *head.headers))) <= MAX_CACHED_PART_BYTES
        ):
            # A copy: the bytes that were read lie in the block of the read.
            self._heads[_key_of(bytes(memoryview(data)))] = head
            if len(self._heads) > MAX_CACHED_HEADS:
                del self._heads[next(iter(self._heads))]


def _key_of(data: bytes) -> bytes | tuple[bytes]:
    """Return the key of a request in the cache, short enough for Python's own pools.

    A digest is in a tuple: a client may send the 32 bytes of a digest, which are no request.
    """
    return data if len(data) <= MAX_CACHED_PART_BYTES else (sha256(data).digest(),)


def _cut_credentials(data: bytes, start: int) -> tuple[bytes, bytes] | None:
    """Split a request into the bytes without the Authorization line, and the credentials.

    :param start: index of :data:`_AUTHORIZATION` in ``data``; -1 if it is not there.
    :returns: None unless ``data`` ends with a head, and the credentials are printable ASCII without
        a space at either end, which llhttp passes on unchanged.
    """
    if start < 0 or not data.endswith(_END_OF_HEAD):
        return None
    begin = start + len(_AUTHORIZATION)
    # One byte is found much faster than two. A CR without LF is in no cached head.
    end = data.find(b"\r", begin)
    raw = data[begin:end]
    if not raw or raw.translate(None, _PRINTABLE) or raw[0] == _SPACE or raw[-1] == _SPACE:
        return None
    return data[:start] + data[end:], raw


@frozen
class ParseError:
    """The rest of the input cannot be parsed: respond with this status and close."""

    status: int

    @property
    def limit(self) -> str | None:
        """The field of :class:`~twisted_registry.http.interfaces.Limits` that was exceeded."""
        return {414: "url_bytes", 431: "header_bytes"}.get(self.status)


class _ParseAborted(Exception):
    """Raised inside a callback to stop llhttp."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


#: The body of the last :class:`RequestHead` is complete. Not sent for a request without a body.
END_OF_BODY: Final = object()


class RequestParser:
    """Turns the bytes of one connection into a queue of events.

    :ivar events: in order: a :class:`RequestHead`; if it is not complete, pieces of its body as
        bytes, then :data:`END_OF_BODY`. A :class:`ParseError` is always the last event.
    :ivar in_head: whether the first byte of a request has been read and its head is not complete.
    :ivar stopped: whether further bytes are ignored: after an error, and after a request that
        asked to close.
    """

    def __init__(self, limits: Limits, head_cache: HeadCache | None = None) -> None:
        """:param head_cache: shared by parsers with the same limits; None to parse every head."""
        self.events: deque[RequestHead | bytes | ParseError | object] = deque()
        self.in_head = False
        self.stopped = False
        self._limits = limits
        self._head_cache = head_cache
        self._parser = HttpRequestParser(self)
        self._head: RequestHead | None = None  # of the request whose body is being read
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fields_bytes = 0  # of the header fields or of the trailer fields
        # Bytes since the head or the chunked body began, without the read in which it began.
        self._bytes_read = 0
        self._allowed_bytes = 0  # of these, data of chunks and as much framing as chunks may have
        self._began_in_this_read = False  # whether that beginning is in the current read
        self._ignoring_callbacks = False
        self._bypassing = False  # whether llhttp has not seen a part of the current body

    def feed(self, data: bytes) -> None:
        """Parse all of ``data``. Errors in it become a :class:`ParseError`."""
        cache = self._head_cache
        if cache is None or self.in_head or self.stopped or self._head is not None:
            self._parse(data)
            return
        head = cache.find(data)
        if head is not None:
            self.events.append(head)
            return
        count = len(self.events)
        self._parse(data)
        if len(self.events) == count + 1 and not (self.in_head or self.stopped):
            event = self.events[-1]
            if isinstance(event, RequestHead) and event.length == 0:
                cache.store(data, event)

    def skip_body(self, amount: int) -> None:
        """Count bytes of a body of known length that a thread read from the socket directly.

        :param amount: at most as many bytes as the body still has.
        """
        head = self._head
        assert head is not None
        assert head.length is not None
        self._bypassing = True
        head.body_bytes_read += amount
        if head.body_bytes_read == head.length:
            self._end_bypass(head)

    def close(self) -> None:
        """Drop all state after the connection was lost. Nothing may be fed afterwards."""
        self.stopped = True
        self.in_head = False
        self.events.clear()
        self._head = None
        # llhttp's parser refers to its callbacks: this breaks the cycle.
        del self._parser

    def _parse(self, data: bytes) -> None:
        while data and not self.stopped:
            head = self._head
            if (
                head is not None
                and head.length is not None
                and (self._bypassing or len(data) >= _BYPASS_MIN_BYTES)
            ):
                data = self._bypass_body(data, head, head.length)
                continue
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            except HttpParserCallbackError as error:
                aborted = error.__context__
                if not isinstance(aborted, _ParseAborted):
                    raise
                self._refuse(aborted.status)
            except HttpParserError as error:
                # httptools has no exception class for a version that llhttp does not know.
                self._refuse(505 if "HTTP version" in str(error) else 400)
            else:
                if self.in_head or self._head is not None:
                    self._limit_overhead(len(data))
                return

    def _bypass_body(self, data: bytes, head: RequestHead, length: int) -> bytes:
        """Append a part of a body of known length to the events, and return what follows the body.

        llhttp would only copy it. A new llhttp parser starts behind the body.
        """
        self._bypassing = True
        rest = length - head.body_bytes_read
        self.on_body(data if len(data) <= rest else data[:rest])
        if head.body_bytes_read < length:
            return b""
        self._end_bypass(head)
        return data[rest:]

    def _end_bypass(self, head: RequestHead) -> None:
        self._bypassing = False
        self._parser = HttpRequestParser(self)
        self._end_body(head)

    def _refuse(self, status: int) -> None:
        self.stopped = True
        self.in_head = False
        self.events.append(ParseError(status))

    def _limit_overhead(self, amount: int) -> None:
        """Refuse heads without an end, and chunked bodies that consist of framing."""
        chunked = self._head is not None and self._head.length is None
        if not (self.in_head or chunked):
            return
        if self._began_in_this_read:
            # The position of the beginning in this read is unknown; one more read is harmless.
            self._began_in_this_read = False
            return
        self._bytes_read += amount
        limits = self._limits
        if self.in_head:
            if self._bytes_read > limits.url_bytes + limits.header_bytes:
                self._refuse(431)
        elif self._bytes_read > self._allowed_bytes + 2 * limits.header_bytes:
            # Twice, so that trailer fields reach their own limit (431) first.
            self._refuse(400)

    def _ignore_upgrade(self) -> None:
        """Continue as if the request had no Upgrade field, as RFC 9110 section 7.8 allows.

        llhttp takes the request to end with its head, whatever the framing says. A new llhttp
        parser is put into the state in which the old one would be: in front of the body.
        """
        self._parser = HttpRequestParser(self)
        head = self._head
        if head is not None:
            framing = (
                b"Transfer-Encoding: chunked"
                if head.length is None
                else b"Content-Length: %d" % head.length
            )
            self._ignoring_callbacks = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._ignoring_callbacks = False

    # Callbacks of llhttp

    def on_message_begin(self) -> None:
        """Handle the first byte of a request."""
        if self._ignoring_callbacks:
            return
        self._target = b""
        self._headers = []
        self._fields_bytes = self._bytes_read = 0
        self.in_head = self._began_in_this_read = True

    def on_url(self, part: bytes) -> None:
        """Handle a part of the request target."""
        if self._ignoring_callbacks:
            return
        self._target += part
        if len(self._target) > self._limits.url_bytes:
            raise _ParseAborted(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header or trailer field."""
        if self._ignoring_callbacks:
            return
        self._fields_bytes += len(name) + len(value) + 4
        headers = self._headers
        if (
            self._fields_bytes > self._limits.header_bytes
            or len(headers) >= self._limits.header_count
        ):
            raise _ParseAborted(431)
        # Trailer fields are counted and then dropped: nothing may act on them.
        headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Handle the empty line after the header fields."""
        if self._ignoring_callbacks:
            return
        self.in_head = False
        head = self._make_head()
        self._headers = []
        self._fields_bytes = 0
        self.events.append(head)
        if not head.complete:
            self._head = head
            self._bytes_read = self._allowed_bytes = 0
            self._began_in_this_read = True
        elif not head.keep_alive:
            self.stopped = True

    def on_chunk_header(self) -> None:
        """Handle the size line of a chunk."""
        self._allowed_bytes += _CHUNK_OVERHEAD_BYTES

    def on_body(self, piece: bytes) -> None:
        """Handle a part of the body."""
        head = self._head
        assert head is not None
        head.body_bytes_read += len(piece)
        self._allowed_bytes += len(piece)
        self.events.append(piece)

    def on_message_complete(self) -> None:
        """Handle the last byte of a request."""
        head = self._head
        if head is not None and not self._parser.should_upgrade():
            self._end_body(head)

    def _end_body(self, head: RequestHead) -> None:
        head.complete = True
        self._head = None
        self.events.append(END_OF_BODY)
        if not head.keep_alive:
            self.stopped = True

    # Checks of a complete head

    def _make_head(self) -> RequestHead:
        parser = self._parser
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise _ParseAborted(505)
        fields: dict[bytes, bytes] = {}
        for name, value in self._headers:
            lower = name.lower()
            if lower in fields and lower in _SINGLETON_FIELDS:
                raise _ParseAborted(400)
            fields[lower] = value
        method = parser.get_method()
        target = self._origin_form(method, fields, version)
        is_http11 = version == "1.1"
        head = RequestHead(
            method,
            target,
            b"HTTP/1.1" if is_http11 else b"HTTP/1.0",
            self._headers,
            fields,
            keep_alive=is_http11 and parser.should_keep_alive(),
        )
        if b"transfer-encoding" in fields:
            self._check_coding(fields, is_http11=is_http11)
            head.length = None
            head.complete = False
        elif b"content-length" in fields:
            digits = fields[b"content-length"]
            if _CONTENT_LENGTH.match(digits) is None:
                raise _ParseAborted(400)
            head.length = int(digits)
            head.complete = head.length == 0
        head.expects_continue = (
            is_http11
            and not head.complete
            and fields.get(b"expect", b"").lower() == b"100-continue"
        )
        return head

    def _check_coding(self, fields: dict[bytes, bytes], *, is_http11: bool) -> None:
        """Allow chunked and nothing else (RFC 9112 section 6.1)."""
        coding = fields[b"transfer-encoding"].lower()
        if not is_http11 or b"content-length" in fields:
            raise _ParseAborted(400)
        if coding != b"chunked":
            # 501 if the framing is right and only the coding is unknown.
            last = coding.rpartition(b",")[2].strip()
            raise _ParseAborted(501 if last == b"chunked" else 400)

    def _origin_form(self, method: bytes, fields: dict[bytes, bytes], version: str) -> bytes:
        """Check Host and target (RFC 9112 section 3.2), and split an absolute target."""
        target = self._target
        host = fields.get(b"host")
        if host is None:
            if version == "1.1":
                raise _ParseAborted(400)
        elif _AUTHORITY.match(host) is None:
            raise _ParseAborted(400)
        if method == b"CONNECT" or _TARGET.match(target) is None:
            raise _ParseAborted(400)
        if target.startswith(b"/"):
            return target
        if target == b"*":
            if method != b"OPTIONS":
                raise _ParseAborted(400)
            return target
        absolute = _ABSOLUTE_FORM.match(target)
        if absolute is None or _AUTHORITY.match(absolute[1]) is None:
            raise _ParseAborted(400)
        # Section 3.2.2: the authority of the target replaces the Host field.
        self._headers = [field for field in self._headers if field[0].lower() != b"host"]
        self._headers.append((b"Host", absolute[1]))
        fields[b"host"] = absolute[1]
        rest: bytes = absolute[2]
        return rest if rest.startswith(b"/") else b"/" + rest
