"""The audit log: who logged in, was refused, pushed or deleted something, or changed the rules.

:class:`AuditRecord` is one entry, :class:`IAuditLog` takes entries, and :class:`LoginAudit` makes
the entries of logins and refusals. An entry contains no credentials. Its texts are cut, and its
line consists of printable ASCII, whatever clients send.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from attrs import define, field, fields_dict, frozen
from zope.interface import Interface

from twisted_registry.auth.credentials import is_basic, parse_basic
from twisted_registry.oci.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller

# The methods of a zope.interface Interface have no self.
# ruff: noqa: N805

Outcome = Literal["success", "failure", "denied"]
#: A longer text is cut, and ends with an ellipsis.
MAX_TEXT_CHARS = 256
_ELLIPSIS = "..."
#: Requests of a user from an address belong to one login until none came for this many seconds.
LOGIN_INTERVAL_S = 300.0
#: Pairs of user and address whose last request is remembered.
_MAX_LOGINS = 4096
#: How the names of robots and of jobs of CI systems begin; users have no colon in their names.
_LOGINS_BY_PREFIX = {"robot": "robot", "ci": "oidc"}
#: How stored tokens and JWTs begin. Some clients send them as the user name.
_TOKEN_PREFIXES = ("twr_", "eyJ")
_TOKEN_AS_NAME = "(a token)"  # noqa: S105 - no token


@frozen
class AuditRecord:
    """One entry of the audit log. Empty fields are left out.

    :ivar event: what was done or tried, such as ``login``, ``push`` or ``token.create``.
    :ivar outcome: ``denied`` if the user is known and lacks the right.
    :ivar user: the authenticated user; of a failed login, the claimed one.
    :ivar login: how the user logged in, such as ``password`` or ``robot``.
    :ivar address: the address of the client, or the one that a trusted proxy reports.
    :ivar peer: the address at the other end of the socket.
    :ivar reference: the tag or digest in the request.
    :ivar target: what was acted on, if it is no content: a user, a token, an upload.
    :ivar status: the status of the response; 0 without one.
    :ivar error: the code of the error.
    :ivar request_id: ``X-Request-Id`` of the request.
    :ivar detail: further fields of the event.
    """

    event: str
    outcome: Outcome = "success"
    user: str = ""
    login: str = ""
    address: str = ""
    peer: str = ""
    repository: str = ""
    reference: str = ""
    digest: str = ""
    target: str = ""
    status: int = 0
    error: str = ""
    request_id: str = ""
    detail: Mapping[str, int | str] = field(factory=dict)

    def to_line(self, seconds: float) -> bytes:
        """Return the line of the log: a JSON object and a line feed.

        :param seconds: the time, since the epoch.
        """
        time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
        values = {name: getattr(self, name) for name in _FIELDS}
        found = {name: _cut(value) for name, value in values.items() if value}
        document = {"time": time.replace("+00:00", "Z"), **found}
        document |= {name: _cut(value) for name, value in self.detail.items() if value != ""}
        # JSON escapes all control characters but this one.
        return json.dumps(document).replace("\x7f", "\\u007f").encode("ascii") + b"\n"


_FIELDS = tuple(name for name in fields_dict(AuditRecord) if name != "detail")


def _cut(value: int | str) -> int | str:
    if isinstance(value, int) or len(value) <= MAX_TEXT_CHARS:
        return value
    return value[: MAX_TEXT_CHARS - len(_ELLIPSIS)] + _ELLIPSIS


class IAuditLog(Interface):
    """Stores the entries of an audit log."""

    def record(entry: AuditRecord) -> None:
        """Store an entry; must not raise."""


@define(eq=False, repr=False)
class LoginAudit:
    """Makes the entries of logins, of refused logins, and of refused accesses.

    Clients send their credentials with each request. So the requests of a user from an address are
    one login, until none came for :data:`LOGIN_INTERVAL_S`. Each process counts for itself.

    :ivar log: receives the entries.
    :ivar clock: for the interval.
    """

    log: IAuditLog
    _clock: IReactorTime
    _logins: OrderedDict[tuple[str, str], float] = field(init=False, factory=OrderedDict)

    def request_authenticated(self, user: str, caller: Caller) -> None:
        """Note a request with valid credentials; record a login if it is one.

        :param user: empty for an anonymous caller, who does not log in.
        """
        if not user:
            return
        key, now = (user, caller.address), self._clock.seconds()
        last = self._logins.get(key)
        if last is None or not 0 <= now - last < LOGIN_INTERVAL_S:
            self.logged_in(user, login_method(user, caller), caller)
        else:
            self._logins[key] = now

    def logged_in(self, user: str, method: str, caller: Caller) -> None:
        """Record a login.

        :param method: how the user logged in; see :func:`login_method`.
        """
        key = user, caller.address
        self._logins.pop(key, None)
        self._logins[key] = self._clock.seconds()
        if len(self._logins) > _MAX_LOGINS:
            self._logins.popitem(last=False)
        self.log.record(AuditRecord("login", "success", user, method, caller.address, caller.peer))

    def refresh_token_created(self, user: str, token_id: str, caller: Caller) -> None:
        """Record a refresh token that a user has got."""
        self.log.record(
            AuditRecord(
                "token.create",
                "success",
                user,
                login_method(user, caller),
                caller.address,
                caller.peer,
                target=token_id,
                detail={"kind": "refresh"},
            )
        )

    def login_failed(self, error: ErrorCode, caller: Caller) -> None:
        """Record credentials that were not accepted, or not checked.

        :param error: the code of the response.
        """
        self.log.record(
            AuditRecord(
                "login",
                "failure",
                _claimed_user(caller),
                login_method("", caller),
                caller.address,
                caller.peer,
                status=error.status,
                error=error.name,
            )
        )

    def access_denied(self, user: str, caller: Caller, accesses: Sequence[Access]) -> None:
        """Record that a known caller lacks a right."""
        actions = " ".join(f"{each.type}:{each.name}:{each.action}" for each in accesses)
        self.log.record(
            AuditRecord(
                "access",
                "denied",
                user,
                login_method(user, caller),
                caller.address,
                caller.peer,
                next((each.name for each in accesses if each.type == "repository"), ""),
                status=ErrorCode.DENIED.status,
                error=ErrorCode.DENIED.name,
                detail={"accesses": actions},
            )
        )


def login_method(user: str, caller: Caller) -> str:
    """Return how a caller logs in: ``password``, ``robot``, ``oidc``, ``token`` or ``certificate``.

    :param user: the authenticated user; empty if there is none.
    """
    authorization = caller.authorization
    if not authorization:
        return "certificate" if user and caller.certificate is not None else ""
    if not is_basic(authorization):
        return "token"
    return _LOGINS_BY_PREFIX.get(user.partition(":")[0], "password") if ":" in user else "password"


def _claimed_user(caller: Caller) -> str:
    """Return the user name in the credentials of a caller, if they have one."""
    authorization = caller.authorization or ""
    credentials = parse_basic(authorization) if is_basic(authorization) else None
    name = "" if credentials is None else credentials.username.decode("utf-8", "replace")
    return _TOKEN_AS_NAME if name.startswith(_TOKEN_PREFIXES) else name
