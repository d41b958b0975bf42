"""Authentication with the registry's own tokens, and for getting such tokens.

:class:`Authenticator` finds the :class:`Principal` that a password, a robot token, a refresh token
or the token of a CI system belongs to. :class:`TokenScheme` is the scheme for requests: it accepts
bearer tokens that this registry has signed, and everything that the Authenticator accepts in a
Basic Authorization header.

A bearer token contains no rights. When it is used, a user must have the account that its password
was checked for, a robot has the rights of its record, and a CI job those of the issuer's rules.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.auth.access import IScheme, Login, LoginFailed
from twisted_registry.auth.credentials import (
    basic_authorization,
    is_basic,
    is_empty_login,
    parse_basic,
)
from twisted_registry.auth.interfaces import ANONYMOUS, Identity, IIdentity
from twisted_registry.auth.login_cache import LoginCache
from twisted_registry.auth.rules import IdentityWithRights, Rights
from twisted_registry.auth.scopes import bearer_challenge, format_scope
from twisted_registry.tokens.records import is_stored_token
from twisted_registry.tokens.signing import TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.tokens.oidc import OIDCVerifier
    from twisted_registry.tokens.records import TokenRecord, TokenStore
    from twisted_registry.tokens.signing import TokenClaims, TokenSigner

log = Logger()

#: The path of the token service, relative to the prefix of the API.
TOKEN_PATH = "auth/token"  # noqa: S105 - a path


@frozen
class Principal:
    """An authenticated user, robot or CI job, which can get a token.

    :ivar identity: the identity.
    :ivar record: the id of the stored token that was presented, or empty.
    :ivar expires: the time until which the credentials may be cached, in seconds since the epoch.
    :ivar is_user: whether this is a user with a password.
    :ivar account: the version of the user's account; empty if it is unknown.
    :ivar rules: the ids of the rules of an OIDC issuer that a CI job has matched.
    """

    identity: IIdentity
    record: str = ""
    expires: float = 0.0
    is_user: bool = False
    account: str = field(default="", repr=False)
    rules: tuple[str, ...] = ()


#: The principal of a caller without credentials.
ANONYMOUS_PRINCIPAL = Principal(ANONYMOUS)


@define(eq=False, repr=False)
class Authenticator:
    """Authenticates users, robots and CI jobs.

    :ivar passwords: the scheme for users with passwords; None if there are no users.
    :ivar records: the stored tokens of robots, and the refresh tokens.
    :ivar oidc: verifies the tokens of CI systems; None if no issuer is trusted.
    """

    passwords: Basic | None
    records: TokenStore
    _oidc: OIDCVerifier | None = None

    async def authenticate_header(self, caller: Caller) -> Principal:
        """Authenticate by a Basic Authorization header. Without one, the caller is anonymous.

        The password can be a user's password, a robot token or the token of a CI system.

        :raises LoginFailed: if the credentials are not accepted.
        :raises RegistryError: if they cannot be checked now.
        """
        authorization = caller.authorization
        if not authorization:
            return ANONYMOUS_PRINCIPAL
        credentials = parse_basic(authorization) if is_basic(authorization) else None
        if credentials is None:
            raise LoginFailed("the credentials are not NAME:PASSWORD in base64")
        if is_empty_login(credentials):
            return ANONYMOUS_PRINCIPAL
        password = credentials.password.decode("utf-8", "replace")
        if is_stored_token(password):
            return await self._authenticate_robot(password)
        if self._oidc is not None and looks_like_jwt(password):
            return await self.authenticate_id_token(password)
        if self.passwords is None:
            raise LoginFailed("there are no users, and the password is not a token")
        # Before the password is checked, so that the version is not that of a later password.
        account = await self._account_version(credentials.username.decode("utf-8", "replace"))
        login = self.passwords.find_cached_login(caller) or await self.passwords.authenticate(
            caller
        )
        assert login is not None
        if account is None:
            raise LoginFailed("the user was added or removed during the login")
        return Principal(login.identity, is_user=True, account=account)

    async def authenticate_password(self, caller: Caller, name: str, password: str) -> Principal:
        """Authenticate by a user name and password, as in :meth:`authenticate_header`.

        :param caller: who sent them, not in its Authorization header.
        :raises LoginFailed: if the credentials are empty or not accepted.
        :raises RegistryError: if they cannot be checked now.
        """
        principal = await self.authenticate_header(
            evolve(caller, authorization=basic_authorization(name, password))
        )
        if principal is ANONYMOUS_PRINCIPAL:
            raise LoginFailed("user name and password are empty")
        return principal

    async def authenticate_id_token(self, token: str) -> Principal:
        """Authenticate by the token of a CI system.

        :raises LoginFailed: if the token is not accepted.
        :raises RegistryError: if it cannot be checked now.
        """
        if self._oidc is None:
            raise LoginFailed("no issuer of tokens is trusted")
        return await self._oidc.authenticate(token)

    async def authenticate_refresh_token(self, token: str) -> Principal:
        """Authenticate by a refresh token. The user's account must not have changed since.

        :raises LoginFailed: if the token is not accepted.
        """
        record = await self.records.verify(token, "refresh")
        if record is None or record.stamp != await self._account_version(record.name):
            raise LoginFailed("the refresh token is unknown, expired, revoked, or its user changed")
        return Principal(Identity(record.name), record.id)

    async def find_identity(self, claims: TokenClaims) -> tuple[IIdentity, float]:
        """Find the holder of a valid bearer token, with the rights that it has now.

        :returns: the identity, and until when it may be cached, in seconds since the epoch.
        :raises LoginFailed: if the user, the stored token or the rules that the token was issued
            for have changed or are gone.
        """
        name = claims.name
        if claims.record:
            return await self._find_identity_of_record(name, claims)
        if claims.rules:
            rights = Rights() if self._oidc is None else self._oidc.rights(claims.rules)
            if not rights.rights:
                raise _token_rejected("the rules that it was issued for have changed")
            return IdentityWithRights(name, rights), claims.expires
        if name and (self.passwords is None or claims.account != await self._account_version(name)):
            raise _token_rejected("its user is unknown or has changed")
        return Identity(name), claims.expires

    async def _find_identity_of_record(
        self, name: str, claims: TokenClaims
    ) -> tuple[IIdentity, float]:
        record = await self.records.find_record(claims.record)
        if record is None:
            raise _token_rejected("the token it was issued for is revoked")
        identity: IIdentity
        if record.kind == "robot":
            identity = robot_identity(record)
        elif record.stamp == await self._account_version(record.name):
            identity = Identity(record.name)
        else:
            raise _token_rejected("its user is unknown or has changed")
        if name != identity.name:
            raise _token_rejected("it was issued for another name")
        return identity, min(claims.expires, self.records.cached_until(record))

    async def _account_version(self, name: str) -> str | None:
        """Return the version of a user's account.

        :returns: None if there is no such user; empty if versions are not supported.
        """
        if self.passwords is None:
            return None
        accounts = self.passwords.accounts
        if accounts is None:
            return ""
        version: str | None = await accounts.account_version(name)
        return version

    async def _authenticate_robot(self, token: str) -> Principal:
        record = await self.records.verify(token, "robot")
        if record is None:
            raise LoginFailed("the robot token is unknown, expired or revoked")
        return Principal(robot_identity(record), record.id, self.records.cached_until(record))


def robot_identity(record: TokenRecord) -> IdentityWithRights:
    """Return the identity of the robot that a record describes."""
    return IdentityWithRights(f"robot:{record.name}", record.rights)


def _token_rejected(reason: str) -> LoginFailed:
    return LoginFailed(f"token rejected: {reason}", "invalid_token")


def looks_like_jwt(text: str) -> bool:
    """Return whether a password is meant to be a JWT (RFC 7519): three parts, the first JSON."""
    return text.startswith("eyJ") and text.count(".") == 2


@define(eq=False)
class Realm:
    """The URL of the token service. Clients send passwords there.

    A request over plain HTTP may have come through a proxy that ends TLS. Unless the proxy says
    which scheme the client has used, the URL is an https one, except on loopback.

    :ivar host: the configured scheme and host, or empty to use what the client has requested.
    :ivar prefix: the prefix of the API's path; begins and ends with a slash.
    """

    host: str = ""
    prefix: str = "/"
    _is_warned: bool = field(init=False, default=False)

    def url(self, caller: Caller) -> str:
        """Return the URL for a caller; only the path if the requested host is unknown."""
        origin = self.host.rstrip("/")
        if not origin and caller.host:
            origin = f"{self._scheme(caller)}://{caller.host}"
        return f"{origin}{self.prefix}{TOKEN_PATH}"

    def _scheme(self, caller: Caller) -> str:
        if caller.secure:
            return "https"
        if caller.scheme == "http" or is_loopback_host(caller.host):
            return "http"
        if not self._is_warned:
            self._is_warned = True
            log.warn(
                "clients are sent to https://{host} for tokens, although a request came over plain"
                " HTTP: set http.host to the URL that clients use, or let the proxy send"
                " X-Forwarded-Proto",
                host=caller.host,
            )
        return "https"


def is_loopback_host(host: str) -> bool:
    """Return whether a host of a URL, with or without a port, is this machine's loopback.

    These are the hosts that docker sends passwords to without TLS if nothing is configured.
    """
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


@implementer(IScheme)
@define(eq=False, repr=False)
class TokenScheme:
    """A scheme for bearer tokens of this registry, and for all that the Authenticator accepts.

    :ivar realm: the URL of the token service.
    :ivar service: the service of the challenge.
    :ivar signer: verifies bearer tokens.
    :ivar authenticator: authenticates users, robots and CI jobs.
    :ivar clock: for the lifetime of cached logins.
    :ivar login_cache: the cache of logins, except those with a password, which are cached by the
        scheme for passwords.
    """

    realm: Realm
    service: str
    _signer: TokenSigner
    _authenticator: Authenticator
    _clock: IReactorTime
    _login_cache: LoginCache = field(
        default=Factory(lambda self: LoginCache(self._clock), takes_self=True), kw_only=True
    )

    def find_cached_login(self, caller: Caller) -> Login | None:
        """Return the cached login for a token or a password."""
        authorization = caller.authorization
        if not authorization:
            return None
        if _is_bearer(authorization):
            version = self._token_version()
            return None if version is None else self._login_cache.find_login(authorization, version)
        login = self._login_cache.find_login(authorization)
        passwords = self._authenticator.passwords
        if login is None and passwords is not None and is_basic(authorization):
            return passwords.find_cached_login(caller)
        return login

    def authenticate(self, caller: Caller) -> Deferred[Login | None]:
        """Authenticate by the Authorization header and cache the login."""
        authorization = caller.authorization
        if not authorization:
            return succeed(None)
        work = (
            self._authenticate_bearer(caller, authorization)
            if _is_bearer(authorization)
            else self._authenticate_password(caller, authorization)
        )
        login: Deferred[Any] = Deferred.fromCoroutine(work)
        return login

    def challenge(self, caller: Caller, accesses: Sequence[Access], error: str) -> str:
        """Return the challenge for a token with a scope for the accesses."""
        return bearer_challenge(self.realm.url(caller), self.service, format_scope(accesses), error)

    def close(self) -> Deferred[None]:
        """Release the resources of the scheme for passwords."""
        passwords = self._authenticator.passwords
        return succeed(None) if passwords is None else passwords.close()

    async def _authenticate_password(self, caller: Caller, authorization: str) -> Login | None:
        principal = await self._authenticator.authenticate_header(caller)
        if principal is ANONYMOUS_PRINCIPAL:
            return None
        login = Login(principal.identity)
        if not principal.is_user:
            self._login_cache.store_login(authorization, login, principal.expires)
        return login

    async def _authenticate_bearer(self, caller: Caller, authorization: str) -> Login:
        await self._signer.keys.current()
        # Before anything is looked up: what changes meanwhile makes another version.
        version = self._token_version()
        cached = self.find_cached_login(caller)
        if cached is not None:
            return cached
        try:
            claims = await self._signer.verify(authorization[7:].strip())
        except TokenInvalid as error:
            raise _token_rejected(str(error)) from error
        identity, expires = await self._authenticator.find_identity(claims)
        login = Login(identity, claims.scope)
        if version is not None:
            self._login_cache.store_login(authorization, login, expires, version)
        return login

    def _token_version(self) -> tuple[object, object] | None:
        """Return what must stay the same for a login with a bearer token to be cached.

        :returns: None while the users or the keys have to be read again.
        """
        keys = self._signer.keys.fresh()
        passwords = self._authenticator.passwords
        users = 0 if passwords is None else passwords.version()
        return None if keys is None or users is None else (keys, users)


def _is_bearer(authorization: str) -> bool:
    return authorization[:7].lower() == "bearer "
