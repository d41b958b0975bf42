"""Names and passwords (RFC 7617), asked of whatever checkers of :mod:`twisted.cred` there are."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import Interface, implementer

from twisted_registry.auth.access import IScheme, Login, LoginFailed
from twisted_registry.auth.interfaces import ANONYMOUS, IAccountVersions, Identity, IIdentity
from twisted_registry.auth.login_cache import LOGIN_TTL_S, LoginCache, credentials_key
from twisted_registry.auth.scopes import basic_challenge
from twisted_registry.auth.single_flight import SingleFlight
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.cred.checkers import ICredentialsChecker
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.auth.interfaces import Access, Caller

#: Checks under way or waiting for their turn; more are turned away, until some are done.
_MAX_CHECKS = 64
_RETRY_HEADERS = (("Retry-After", "1"),)


class IVersionedChecker(Interface):
    """What a checker provides besides ICredentialsChecker if what it knows may change."""

    def version() -> object | None:
        """Answer what is the same as long as every password that was right still is.

        Asked for each request, on the reactor's thread: it must not wait.

        :returns: None if that can not be told, and nothing should be remembered.
        """


@implementer(IRealm)
class IdentityRealm:
    """Makes an identity of a name that a checker found."""

    def requestAvatar(
        self,
        avatarId: bytes | tuple[()],
        mind: object,  # noqa: ARG002
        *interfaces: type[Interface],
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """As promised by IRealm."""
        assert IIdentity in interfaces
        name = avatarId.decode("utf-8", "replace") if avatarId else ""
        return IIdentity, Identity(name) if name else ANONYMOUS, lambda: None


@implementer(IScheme)
@define(eq=False, repr=False)
class Basic:
    """Asks for a name and a password.

    A password that was right is not checked again for five minutes, unless the version changes;
    requests that show the same one meanwhile wait for the same check.

    :ivar realm: said in the challenge.
    :ivar portal: gives an :class:`~twisted_registry.auth.interfaces.IIdentity` for a name and a
        password. :func:`make_basic_scheme` makes one of a checker.
    :ivar clock: tells when five minutes are over.
    :ivar version: see :class:`IVersionedChecker`.
    :ivar end: frees what the checkers hold.
    :ivar accounts: tells whether an account is still the same, if a checker can.
    """

    realm: str
    _portal: Portal
    _clock: IReactorTime
    _version: Callable[[], object | None]
    _close: Callable[[], Deferred[None]]
    accounts: IAccountVersions | None = None
    _login_cache: LoginCache = field(init=False)
    _checks: dict[tuple[bytes, object], SingleFlight[Login]] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._login_cache = LoginCache(self._clock)

    def find_cached_login(self, caller: Caller) -> Login | None:
        """As promised by :class:`IScheme`."""
        shown = caller.authorization
        if not shown:
            return None
        version = self._version()
        return None if version is None else self._login_cache.find(shown, version)

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """As promised by :class:`IScheme`.

        :raises RegistryError: TOOMANYREQUESTS if too many wait already.
        """
        shown = caller.authorization
        if shown is None or not is_basic(shown):
            return succeed(None)
        credentials = parse_basic(shown)
        if credentials is None:
            return fail(LoginFailed("what was shown is not NAME:PASSWORD in base64"))
        if is_empty_login(credentials):
            return succeed(None)
        version = self._version()
        key = credentials_key(shown), version
        check = self._checks.get(key)
        if check is None:
            if len(self._checks) >= _MAX_CHECKS:
                return fail(RegistryError(ErrorCode.TOOMANYREQUESTS, headers=_RETRY_HEADERS))
            check = self._checks[key] = SingleFlight(lambda: self._checks.pop(key))
            waiting: Deferred[Any] = check.wait()
            check.start(self._check(credentials, shown, version))
            return waiting
        joined: Deferred[Any] = check.wait()
        return joined

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:  # noqa: ARG002
        """As promised by :class:`IScheme`."""
        return basic_challenge(self.realm)

    def close(self) -> Deferred[None]:
        """As promised by :class:`IScheme`."""
        return self._close()

    def _check(
        self, credentials: UsernamePassword, shown: str, version: object | None
    ) -> Deferred[Login]:
        def good(found: tuple[object, IIdentity, object]) -> Login:
            login = Login(found[1])
            if version is not None:
                until = self._clock.seconds() + LOGIN_TTL_S
                self._login_cache.store_login(shown, login, until, version)
            return login

        def bad(failure: Failure) -> Login:
            failure.trap(UnauthorizedLogin, UnhandledCredentials)
            name = credentials.username.decode("utf-8", "replace")
            raise LoginFailed(f"unknown user or wrong password: {name[:64]!r}") from None

        asked: Deferred[Any] = self._portal.login(credentials, None, IIdentity)
        return asked.addCallbacks(good, bad)


def make_basic_scheme(
    realm: str,
    checker: ICredentialsChecker,
    clock: IReactorTime,
    end: Callable[[], Deferred[None]] = lambda: succeed(None),
) -> Basic:
    """The scheme over one checker for IUsernamePassword, yours or one of twisted.cred.

    :param realm: said in the challenge.
    :param end: frees what the checker holds.
    """
    changing = IVersionedChecker.providedBy(checker)
    version: Callable[[], object] = checker.version if changing else lambda: 0  # type: ignore[attr-defined]
    accounts: Any = checker if IAccountVersions.providedBy(checker) else None
    return Basic(realm, Portal(IdentityRealm(), [checker]), clock, version, end, accounts)


def is_basic(shown: str) -> bool:
    """Whether an Authorization header is of this scheme."""
    return shown[:6].lower() == "basic "


def is_empty_login(credentials: UsernamePassword) -> bool:
    """Whether there is neither a name nor a password in it.

    podman and its like answer a challenge with that if they have no login: as good as nothing.
    """
    return not (credentials.username or credentials.password)


def basic_authorization(name: str, password: str) -> str:
    """The Authorization header of this scheme for a name and a password."""
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode('ascii')}"


def parse_basic(shown: str) -> UsernamePassword | None:
    """Name and password of an Authorization header of this scheme; None if it has none."""
    try:
        name, colon, password = b64decode(shown[6:], validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return UsernamePassword(name, password) if colon else None
