"""Two simple schemes: Basic (RFC 7617), checked with :mod:`twisted.cred`, and ``silly``.

``silly`` is Distribution's scheme that accepts any Authorization header, for testing clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Factory, define, field, frozen
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import Interface, implementer

from twisted_registry.auth.access import IScheme, Login, LoginFailed
from twisted_registry.auth.check_queue import CheckQueue
from twisted_registry.auth.credentials import is_basic, is_empty_login, parse_basic
from twisted_registry.auth.interfaces import ANONYMOUS, IAccountVersions, Identity, IIdentity
from twisted_registry.auth.login_cache import LOGIN_TTL_S, LoginCache
from twisted_registry.auth.scopes import basic_challenge, bearer_challenge, format_scope_by_action

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.cred.checkers import ICredentialsChecker
    from twisted.cred.credentials import UsernamePassword
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.auth.interfaces import Access, Caller

#: Password checks that run at a time, if the checker does not need a processor for each.
MAX_RUNNING_CHECKS = 64


class IVersionedChecker(Interface):
    """Optional interface of an ICredentialsChecker whose passwords can change."""

    def version() -> object | None:
        """Return a value that stays equal as long as every password that was right still is.

        Called for each request on the reactor thread, so it must not block.

        :returns: None if the version is unknown; logins are not cached then.
        """


@implementer(IRealm)
class IdentityRealm:
    """A realm that makes an :class:`~twisted_registry.auth.interfaces.Identity` of a name."""

    def requestAvatar(
        self,
        avatarId: bytes | tuple[()],
        mind: object,  # noqa: ARG002
        *interfaces: type[Interface],
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """Return the identity with the name; the anonymous identity for an empty one."""
        assert IIdentity in interfaces
        name = avatarId.decode("utf-8", "replace") if avatarId else ""
        return IIdentity, Identity(name) if name else ANONYMOUS, lambda: None


@implementer(IScheme)
@define(eq=False, repr=False)
class Basic:
    """A scheme for user names and passwords.

    A password that was right is not checked again for five minutes, unless the version of the
    checker changes. Requests with the same credentials share one check. Checks wait in a
    :class:`~twisted_registry.auth.check_queue.CheckQueue`.

    :ivar realm: the realm of the challenge.
    :ivar portal: returns an :class:`~twisted_registry.auth.interfaces.IIdentity` for a user name
        and password. :func:`make_basic_scheme` makes one for a checker.
    :ivar clock: for the lifetime of cached logins.
    :ivar version: see :class:`IVersionedChecker`.
    :ivar close: releases the resources of the checkers.
    :ivar accounts: tells whether an account has changed, if a checker supports that.
    :ivar max_running: checks that run at a time. One that has started is completed, also if its
        client disconnects.
    :ivar login_cache: the cache of logins.
    """

    realm: str
    _portal: Portal
    _clock: IReactorTime
    version: Callable[[], object | None]
    _close: Callable[[], Deferred[None]]
    accounts: IAccountVersions | None = None
    _max_running: int = MAX_RUNNING_CHECKS
    _login_cache: LoginCache = field(
        default=Factory(lambda self: LoginCache(self._clock), takes_self=True), kw_only=True
    )
    _queue: CheckQueue[Login] = field(
        init=False,
        default=Factory(lambda self: CheckQueue(self._clock, self._max_running), takes_self=True),
    )

    def find_cached_login(self, caller: Caller) -> Login | None:
        """Return the cached login for the credentials, if the version has not changed."""
        authorization = caller.authorization
        if not authorization:
            return None
        version = self.version()
        return None if version is None else self._login_cache.find_login(authorization, version)

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """Check user name and password with the portal.

        :raises LoginFailed: if the credentials are malformed or wrong.
        :raises RegistryError: TOOMANYREQUESTS if too many checks are waiting.
        """
        authorization = caller.authorization
        if authorization is None or not is_basic(authorization):
            return succeed(None)
        credentials = parse_basic(authorization)
        if credentials is None:
            return fail(LoginFailed("the credentials are not NAME:PASSWORD in base64"))
        if is_empty_login(credentials):
            return succeed(None)
        version = self.version()
        login: Deferred[Any] = self._queue.submit(
            authorization,
            version,
            credentials.username.decode("latin-1"),
            caller.address,
            lambda: self._check(credentials, authorization, version),
        )
        return login

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:  # noqa: ARG002
        """Return the challenge for a user name and password; it names no error."""
        return basic_challenge(self.realm)

    def close(self) -> Deferred[None]:
        """Release the resources of the checkers."""
        return self._close()

    def _check(
        self, credentials: UsernamePassword, authorization: str, version: object | None
    ) -> Deferred[Login]:
        def cache_login(avatar: tuple[object, IIdentity, object]) -> Login:
            login = Login(avatar[1])
            if version is not None:
                expires = self._clock.seconds() + LOGIN_TTL_S
                self._login_cache.store_login(authorization, login, expires, version)
            return login

        def reject(failure: Failure) -> Login:
            failure.trap(UnauthorizedLogin, UnhandledCredentials)
            name = credentials.username.decode("utf-8", "replace")
            raise LoginFailed(f"unknown user or wrong password: {name[:64]!r}") from None

        avatar: Deferred[Any] = self._portal.login(credentials, None, IIdentity)
        return avatar.addCallbacks(cache_login, reject)


def make_basic_scheme(
    realm: str,
    checker: ICredentialsChecker,
    clock: IReactorTime,
    close: Callable[[], Deferred[None]] = lambda: succeed(None),
    max_running: int = MAX_RUNNING_CHECKS,
    login_cache: LoginCache | None = None,
) -> Basic:
    """Make the scheme for one checker of IUsernamePassword, such as those of twisted.cred.

    :param realm: the realm of the challenge.
    :param clock: for the lifetime of cached logins.
    :param close: releases the resources of the checker.
    :param max_running: checks that run at a time; others wait.
    :param login_cache: the cache of logins; None for a new one.
    """
    is_versioned = IVersionedChecker.providedBy(checker)
    version: Callable[[], object] = checker.version if is_versioned else lambda: 0  # type: ignore[attr-defined]
    accounts: Any = checker if IAccountVersions.providedBy(checker) else None
    portal = Portal(IdentityRealm(), [checker])
    cache = LoginCache(clock) if login_cache is None else login_cache
    return Basic(realm, portal, clock, version, close, accounts, max_running, login_cache=cache)


_LOGIN = Login(Identity("silly"))


@implementer(IScheme)
@frozen
class Silly:
    """A scheme that logs in every caller with an Authorization header as the user "silly".

    :ivar realm: the realm of the challenge.
    :ivar service: the service of the challenge.
    """

    realm: str
    service: str

    def find_cached_login(self, caller: Caller) -> Login | None:
        """Return the login, or None without an Authorization header."""
        return _LOGIN if caller.authorization else None

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """Fire with the login, or with None without an Authorization header."""
        return succeed(self.find_cached_login(caller))

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:  # noqa: ARG002
        """Return a challenge for a token, with a separate scope for each action."""
        return bearer_challenge(self.realm, self.service, format_scope_by_action(accesses))

    def close(self) -> Deferred[None]:
        """Do nothing: there are no resources to release."""
        return succeed(None)
