"""A record of all requests that a registry received, for assertions.

::

    assert registry.journal.count("PUT", "manifests") == 1
    assert registry.journal.pushed("app:1")
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from attrs import define, field

from twisted_registry.testing.contents import Reference
from twisted_registry.testing.matching import RequestPattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twisted_registry.testing.hooks import Proceed

_MANIFEST_RE = re.compile(r".*?/v2/(.+)/manifests/([^/]+)")


@define(eq=False, repr=False)
class RecordedRequest:
    """A request and the beginning of its response.

    :ivar method: the method.
    :ivar path: the path, decoded, without the query.
    :ivar query: the query, as it was sent.
    :ivar headers: the last value of each header, by its name in lower case.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    _request: Any = None
    _result: tuple[int | None, int] = field(init=False, default=(None, 0))

    @property
    def status(self) -> int | None:
        """The status of the response; None if none was sent, or not yet."""
        return self._read_result()[0]

    @property
    def sent_bytes(self) -> int:
        """The bytes of the body of the response that were sent so far."""
        return self._read_result()[1]

    def _read_result(self) -> tuple[int | None, int]:
        request = self._request
        if request is None:
            return self._result
        return (request.code if request.startedWriting else None), request.sentLength

    def _finish(self) -> None:
        self._result = self._read_result()
        self._request = None

    def __repr__(self) -> str:
        target = f"{self.path}?{self.query}" if self.query else self.path
        return f"{self.method} {target} {self.status or 'without response'}"


class Journal:
    """The requests of a registry, in the order in which they arrived.

    A request is in the journal before its response is sent: a client that has the response finds
    it. Methods may be called on any thread. Requests that the HTTP engine refuses, because they are
    malformed, are left out.
    """

    def __init__(self) -> None:
        self._requests: list[RecordedRequest] = []
        self._lock = threading.Lock()

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """All requests."""
        with self._lock:
            return tuple(self._requests)

    def find(
        self, method: str = "*", path: str = "", *, status: int | None = None
    ) -> list[RecordedRequest]:
        """Return the requests that match.

        :param method: as ``GET``; ``*`` for any.
        :param path: segments such as ``manifests`` or ``app/manifests/1``, or a whole path with a
            leading slash; ``*`` matches any part of a segment.
        :param status: the status of the response; None for any.
        """
        pattern = RequestPattern.make(method, path)
        return [
            request
            for request in self.requests
            if pattern.matches(request.method, request.path)
            and (status is None or request.status == status)
        ]

    def count(self, method: str = "*", path: str = "", *, status: int | None = None) -> int:
        """Return the number of requests that match, as :meth:`find` finds them."""
        return len(self.find(method, path, status=status))

    def assert_count(
        self, expected: int, method: str = "*", path: str = "", *, status: int | None = None
    ) -> None:
        """Check the number of requests that match.

        :raises AssertionError: with all requests, if the number is another one.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        found = self.count(method, path, status=status)
        if found != expected:
            wanted = f"{method} {path or 'any path'}" + ("" if status is None else f" {status}")
            raise AssertionError(f"{found} instead of {expected} requests {wanted} in:\n{self}")

    def pushed(self, reference: str) -> bool:
        """Return whether a client has pushed a manifest under a tag or digest.

        :param reference: such as ``app:1``.
        """
        return self._has_manifest("PUT", Reference.parse(reference))

    def pulled(self, reference: str) -> bool:
        """Return whether a client has pulled a manifest by a tag or digest.

        This includes clients that ask for the digest of the tag by HEAD first, and then pull a
        manifest of the repository by digest, as Docker does.

        :param reference: such as ``app:1``.
        """
        where = Reference.parse(reference)
        return self._has_manifest("GET", where) or (
            where.digest is None
            and self._has_manifest("HEAD", where)
            and any(
                ":" in name for names in self._answered("GET", where.repository) for name in names
            )
        )

    def clear(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._requests.clear()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[RecordedRequest]:
        return iter(self.requests)

    def __str__(self) -> str:
        return "\n".join(map(repr, self.requests)) or "(no requests)"

    def __repr__(self) -> str:
        return f"<Journal of {len(self)} requests: {', '.join(map(repr, self.requests[-5:]))}>"

    async def record(self, request: Any, proceed: Proceed) -> None:
        """Record a request and pass it on: the hook of the registry."""
        recorded = RecordedRequest(
            request.method.decode("latin-1"),
            unquote(request.path.decode("latin-1")),
            request.uri.partition(b"?")[2].decode("latin-1"),
            {
                name.decode("latin-1"): value.decode("utf-8", "replace")
                for name, value in request.headerFields.items()
            },
            request,
        )
        with self._lock:
            self._requests.append(recorded)
        request.notifyFinish().addBoth(lambda _: recorded._finish())  # noqa: SLF001 - same module
        await proceed(request)

    def _has_manifest(self, method: str, where: Reference) -> bool:
        names = {name for name in (where.tag, where.digest) if name is not None}
        return any(names <= found for found in self._answered(method, where.repository))

    def _answered(self, method: str, repository: str) -> Iterator[set[str]]:
        """Yield the tags and digests of each successful request for a manifest."""
        for request in self.find(method, "manifests"):
            match = _MANIFEST_RE.fullmatch(request.path)
            if match is not None and match[1] == repository and request.status in {200, 201}:
                tags = parse_qs(request.query).get("tag", []) if method == "PUT" else []
                yield {match[2], *tags}
