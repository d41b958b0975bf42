"""Faults on demand: responses that fail, stall, break off or are wrong.

::

    registry.faults.fail("GET", "manifests", status=429, headers={"Retry-After": "0"}, times=2)
    with registry.faults.reset("GET", "blobs", after=1000):
        ...

A fault applies to the requests that match its method and path (see
:class:`~twisted_registry.testing.matching.RequestPattern`) until it is removed. ``nth`` and
``times`` restrict it to some of them. Of several faults that apply to a request, the first that
answers it does; others add up.
"""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import unquote

from attrs import define, field, frozen
from twisted.internet.task import deferLater

from twisted_registry.api.response import JSON, CommonHeaders, Response, encode_json, send_response
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.testing.faulty_request import FaultPlan, FaultyRequest
from twisted_registry.testing.matching import RequestPattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from twisted_registry.testing.hooks import Proceed
    from twisted_registry.testing.profiles import Profile

_CODES = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.DENIED,
    405: ErrorCode.UNSUPPORTED,
    416: ErrorCode.RANGE_INVALID,
    429: ErrorCode.TOOMANYREQUESTS,
    503: ErrorCode.UNAVAILABLE,
    507: ErrorCode.UNAVAILABLE,
}
_COMMON_HEADERS = CommonHeaders({"Docker-Distribution-Api-Version": ("registry/2.0",)})
_BEARER = "bearer "
#: The members of the response of a token service that have the token.
_TOKEN_NAMES = ("token", "access_token")
#: No token that the registry has issued.
_EXPIRED = b"Bearer expired"


class Effect(Protocol):
    """What a fault does to a request."""

    def apply(self, plan: FaultPlan, request: Any) -> None:
        """Add to the plan for a request."""


@define(eq=False)
class Fault:
    """A fault that is in force until it is removed; as a context manager, until the block ends.

    :ivar name: what it does.
    :ivar pattern: the requests that it applies to.
    :ivar hits: the number of requests that it was applied to.
    """

    name: str
    pattern: RequestPattern
    _effect: Effect = field(repr=False)
    _first: int
    _last: float
    _remove: Callable[[Fault], None] = field(repr=False)
    hits: int = field(init=False, default=0)
    _seen: int = field(init=False, default=0)

    def remove(self) -> None:
        """Remove the fault; does nothing if it was removed."""
        self._remove(self)

    def __enter__(self) -> Self:
        """Return the fault, which is in force already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the fault."""
        self.remove()

    def apply(self, plan: FaultPlan, request: Any, method: str, path: str) -> None:
        """Add to the plan for a request, if the fault applies to it."""
        if not self.pattern.matches(method, path):
            return
        self._seen += 1
        if self._first <= self._seen <= self._last:
            self.hits += 1
            self._effect.apply(plan, request)


class Faults:
    """The faults of a registry. Methods may be called on any thread."""

    def __init__(self, profile: Profile | None = None) -> None:
        """Begin without faults.

        :param profile: behaviours that stay in force.
        """
        behaviours = () if profile is None else profile.behaviours
        self._behaviours = [(each.pattern, each.make_effect()) for each in behaviours]
        self._faults: tuple[Fault, ...] = ()
        self._issued: set[str] = set()
        self._expired: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    # Making faults

    def fail(
        self,
        method: str = "*",
        path: str = "",
        *,
        status: int = 500,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | Mapping[str, Any] | None = None,
        nth: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Answer requests with an error; the registry does not see them.

        :param method: as ``GET``; ``*`` for any.
        :param path: segments such as ``manifests`` or ``app/manifests/1``, or a whole path with a
            leading slash; ``*`` matches any part of a segment, an empty text any path.
        :param status: of the response.
        :param headers: further headers, such as ``Retry-After``.
        :param body: text, bytes or a JSON document; None for an error of the specification that
            fits the status.
        :param nth: only the request of this number that matches, from 1, and with ``times`` those
            that follow.
        :param times: the number of requests; None for all, or for one with ``nth``.
        """
        found = error_response(status, headers or {}, body)
        return self._add(f"fail {status}", Answer(found), method, path, nth, times)

    def delay(
        self,
        seconds: float,
        method: str = "*",
        path: str = "",
        *,
        nth: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Wait before requests are passed to the registry.

        :param seconds: the time to wait.
        """
        _require(seconds >= 0, "seconds", seconds, "0 or more")
        return self._add(f"delay {seconds} s", _Delay(seconds), method, path, nth, times)

    def throttle(
        self,
        bytes_per_second: float,
        method: str = "*",
        path: str = "",
        *,
        nth: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Receive request bodies and send response bodies at a low rate.

        :param bytes_per_second: of each request.
        """
        _require(bytes_per_second > 0, "bytes_per_second", bytes_per_second, "more than 0")
        effect = _Throttle(bytes_per_second)
        return self._add(f"throttle {bytes_per_second} B/s", effect, method, path, nth, times)

    def truncate(
        self,
        method: str = "*",
        path: str = "",
        *,
        after: int = 0,
        nth: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Close the connection orderly within a response.

        The registry carries the request out. A body that is not longer than ``after`` is complete.

        :param after: bytes of the body that are sent; 0 for no response at all.
        """
        _require(after >= 0, "after", after, "0 or more bytes")
        effect = _Cut(after, resets=False)
        return self._add(f"truncate after {after}", effect, method, path, nth, times)

    def reset(
        self,
        method: str = "*",
        path: str = "",
        *,
        after: int = 0,
        received: int | None = None,
        nth: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Reset the connection within a response, or within the body of a request.

        :param after: bytes of the response body that are sent; 0 for no response at all. The
            registry carries the request out: the client does not learn the result of a push.
        :param received: bytes of the request body that are received before the reset, in place of
            ``after``; the registry keeps those of an upload. A shorter body is not affected.
        """
        _require(after >= 0, "after", after, "0 or more bytes")
        if received is None:
            effect = _Cut(after, resets=True)
            return self._add(f"reset after {after}", effect, method, path, nth, times)
        _require(received >= 1, "received", received, "1 or more bytes")
        effect = _Cut(None, resets=True, received=received)
        return self._add(f"reset received {received}", effect, method, path, nth, times)

    def corrupt(
        self,
        method: str = "GET",
        path: str = "blobs",
        *,
        at: int = 0,
        nth: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Change one byte of response bodies, so that content does not have its digest.

        :param at: the offset of the byte; a shorter body is not changed.
        """
        _require(at >= 0, "at", at, "an offset of 0 or more")
        return self._add(f"corrupt at {at}", _Corrupt(at), method, path, nth, times)

    def rate_limit(self, n: int, method: str = "*", path: str = "", *, per: float = 60) -> Fault:
        """Answer 429 with ``Retry-After`` to more than ``n`` requests in a period.

        :param n: requests that are answered in each period.
        :param per: the length of a period in seconds; it begins with its first request.
        """
        _require(n >= 0, "n", n, "0 or more requests")
        _require(per > 0, "per", per, "more than 0 seconds")
        return self._add(f"rate limit {n}", _RateLimit(n, per), method, path, None, None)

    def expire_tokens(self) -> None:
        """Refuse all Bearer tokens that were issued or presented until now: 401 with a challenge.

        Clients have to fetch new ones. It needs a registry with ``token_auth=True``.
        """
        with self._lock:
            self._expired = frozenset(self._issued)

    def clear(self) -> None:
        """Remove all faults. Expired tokens stay expired."""
        with self._lock:
            self._faults = ()

    @property
    def active(self) -> tuple[Fault, ...]:
        """The faults in force."""
        return self._faults

    def __repr__(self) -> str:
        return f"<Faults: {', '.join(fault.name for fault in self._faults) or 'none'}>"

    # Applying them

    async def inject(self, request: Any, proceed: Proceed) -> None:
        """Apply the faults to a request: the hook of the registry."""
        self._check_token(request)
        method, path = request.method.decode("latin-1"), unquote(request.path.decode("latin-1"))
        plan = FaultPlan()
        if path.endswith("/token") and "/v2/" not in path:
            plan.on_body = self._note_issued
        for fault in self._faults:
            fault.apply(plan, request, method, path)
        for pattern, effect in self._behaviours:
            if plan.response is None and pattern.matches(method, path):
                effect.apply(plan, request)
        await _run_plan(plan, request, proceed)

    def _add(
        self,
        name: str,
        effect: Effect,
        method: str,
        path: str,
        nth: int | None,
        times: int | None,
    ) -> Fault:
        _require(nth is None or nth >= 1, "nth", nth, "1 for the first request, or more")
        _require(times is None or times >= 1, "times", times, "1 or more requests")
        first = 1 if nth is None else nth
        last: float = math.inf if nth is None else nth
        if times is not None:
            last = first + times - 1
        pattern = RequestPattern.make(method, path)
        fault = Fault(name, pattern, effect, first, last, self._remove)
        with self._lock:
            self._faults = (*self._faults, fault)
        return fault

    def _remove(self, fault: Fault) -> None:
        with self._lock:
            self._faults = tuple(each for each in self._faults if each is not fault)

    def _check_token(self, request: Any) -> None:
        credentials = request.headerFields.get(b"authorization", b"").decode("latin-1")
        if not credentials.lower().startswith(_BEARER):
            return
        token = credentials[len(_BEARER) :].strip()
        with self._lock:
            self._issued.add(token)
            is_expired = token in self._expired
        if is_expired:
            request.requestHeaders.setRawHeaders(b"authorization", [_EXPIRED])

    def _note_issued(self, status: int, body: bytes) -> None:
        if status == 200:
            document = json.loads(body)
            with self._lock:
                self._issued |= {document[name] for name in _TOKEN_NAMES if name in document}


async def _run_plan(plan: FaultPlan, request: Any, proceed: Proceed) -> None:
    if plan.delay_s:
        await deferLater(request.site.clock, plan.delay_s)
    if plan.response is not None:
        await send_response(plan.response, request, _COMMON_HEADERS)
    else:
        await proceed(FaultyRequest(request, plan) if plan.needs_proxy else request)


def error_response(
    status: int, headers: Mapping[str, str], body: str | bytes | Mapping[str, Any] | None = None
) -> Response:
    """Return a response with an error.

    :param body: None for an error of the specification that fits the status.
    """
    media_type = JSON
    if body is None:
        error = RegistryError(_CODES.get(status, ErrorCode.UNKNOWN), message="injected fault")
        content = encode_json(error.as_json())
    elif isinstance(body, str):
        content, media_type = body.encode(), "text/plain; charset=utf-8"
    elif isinstance(body, bytes):
        content, media_type = body, "application/octet-stream"
    else:
        content = encode_json(dict(body))
    fields = dict(headers)
    if "content-type" not in {name.lower() for name in fields}:
        fields["Content-Type"] = media_type
    return Response(status, tuple(fields.items()), content)


def _require(holds: bool, name: str, value: object, expected: str) -> None:  # noqa: FBT001
    if not holds:
        raise ValueError(f"{name}={value!r}: expected {expected}")


@frozen
class Answer:
    """Answers requests in place of the registry."""

    response: Response

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        """Set the response, unless there is one."""
        if plan.response is None:
            plan.response = self.response


@frozen(eq=False, repr=False)
class _Delay:
    seconds: float

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        plan.delay_s += self.seconds


@frozen(eq=False, repr=False)
class _Throttle:
    bytes_per_second: float

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        plan.bytes_per_second = min(plan.bytes_per_second or math.inf, self.bytes_per_second)


@frozen(eq=False, repr=False)
class _Cut:
    after: int | None
    resets: bool
    received: int | None = None

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        if plan.cut_after is None and plan.cut_received is None:
            plan.cut_after, plan.resets, plan.cut_received = self.after, self.resets, self.received


@frozen(eq=False, repr=False)
class _Corrupt:
    at: int

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        plan.corrupt_at = self.at


@define(eq=False, repr=False)
class _RateLimit:
    limit: int
    period_s: float
    _began: float = field(init=False, default=-math.inf)
    _answered: int = field(init=False, default=0)

    def apply(self, plan: FaultPlan, request: Any) -> None:
        now = request.site.clock.seconds()
        if now - self._began >= self.period_s:
            self._began, self._answered = now, 0
        if self._answered < self.limit:
            self._answered += 1
        elif plan.response is None:
            wait = max(1, math.ceil(self._began + self.period_s - now))
            plan.response = error_response(429, {"Retry-After": str(wait)}, None)
