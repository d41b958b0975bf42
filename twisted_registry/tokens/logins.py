"""Whoever asks for a token, or shows what is as good as a password: users, robots, CI systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen
from zope.interface import Interface

from twisted_registry.auth.basic import parse_basic, basic_authorization, is_basic, is_empty_login
from twisted_registry.auth.identity import ANONYMOUS, Identity, IIdentity
from twisted_registry.auth.interfaces import Caller
from twisted_registry.auth.rights import IdentityWithRights
from twisted_registry.auth.schemes import LoginFailed
from twisted_registry.tokens.records import is_stored_token

if TYPE_CHECKING:
    from twisted_registry.auth.basic import Basic
    from twisted_registry.tokens.records import TokenStore


@frozen
class Principal:
    """Whom a token may be given.

    :ivar record: the id of the stored token that was shown, or empty.
    :ivar until: the time until which what was shown is good without another look.
    :ivar is_user: whether it is a user, whose password was right.
    """

    identity: IIdentity
    record: str = ""
    until: float = 0.0
    is_user: bool = False


#: Whoever has shown nothing.
ANONYMOUS_PRINCIPAL = Principal(ANONYMOUS)


class IOIDCVerifier(Interface):
    """Believes tokens that others have signed for their jobs."""

    async def principal(token: str) -> Principal:  # noqa: N805 - zope's methods have no self
        """Whom a token is for.

        :raises LoginFailed: if it is not believed.
        :raises RegistryError: UNAVAILABLE if that can not be found out now.
        """


@define(eq=False, repr=False)
class Authenticator:
    """Finds out who shows something.

    :ivar passwords: knows users, if there are any.
    :ivar records: knows robots, and who may refresh.
    :ivar vouchers: knows CI systems, if any are trusted.
    """

    passwords: Basic | None
    records: TokenStore
    _oidc: IOIDCVerifier | None = None

    async def authenticate_header(self, caller: Caller) -> Principal:
        """Who shows a name and a password in an Authorization header; a stranger without one.

        :raises LoginFailed: if they are not believed.
        :raises RegistryError: if that can not be found out now.
        """
        shown = caller.authorization
        if not shown:
            return ANONYMOUS_PRINCIPAL
        credentials = parse_basic(shown) if is_basic(shown) else None
        if credentials is None:
            raise LoginFailed("what was shown is not NAME:PASSWORD in base64")
        if is_empty_login(credentials):
            return ANONYMOUS_PRINCIPAL
        password = credentials.password.decode("utf-8", "replace")
        if is_stored_token(password):
            return await self._authenticate_robot(password)
        if self._oidc is not None and looks_like_jwt(password):
            return await self.authenticate_id_token(password)
        if self.passwords is None:
            raise LoginFailed("there are no users, and it is no token")
        login = self.passwords.find_cached_login(caller) or await self.passwords.authenticate(caller)
        assert login is not None
        return Principal(login.identity, is_user=True)

    async def authenticate_password(self, name: str, password: str) -> Principal:
        """Who has a name and a password.

        :raises LoginFailed: if they are not believed.
        :raises RegistryError: if that can not be found out now.
        """
        principal = await self.authenticate_header(Caller(basic_authorization(name, password)))
        if principal is ANONYMOUS_PRINCIPAL:
            raise LoginFailed("there is neither a name nor a password")
        return principal

    async def authenticate_id_token(self, token: str) -> Principal:
        """Whom a token of a CI system is for.

        :raises LoginFailed: if it is not believed.
        :raises RegistryError: if that can not be found out now.
        """
        if self._oidc is None:
            raise LoginFailed("no issuer of tokens is trusted")
        principal: Principal = await self._oidc.principal(token)
        return principal

    async def authenticate_refresh_token(self, token: str) -> Principal:
        """Whom a token that refreshes was given, if their account is still the same.

        :raises LoginFailed: if it is not believed.
        """
        record = await self.records.check(token, "refresh")
        if record is None or record.stamp != await self.stamp(record.name):
            raise LoginFailed("the refresh token is unknown, expired, revoked, or its user changed")
        return Principal(Identity(record.name), record.id)

    async def stamp(self, name: str) -> str | None:
        """What a user's account looks like; None if they have none."""
        accounts = None if self.passwords is None else self.passwords.accounts
        if accounts is None:
            return None
        stamp: str | None = await accounts.stamp(name)
        return stamp

    async def _authenticate_robot(self, token: str) -> Principal:
        record = await self.records.check(token, "robot")
        if record is None:
            raise LoginFailed("the robot's token is unknown, expired or revoked")
        return Principal(
            IdentityWithRights(f"robot:{record.name}", record.rights),
            record.id,
            self.records.cached_until(record),
        )


def looks_like_jwt(text: str) -> bool:
    """Whether a password is meant to be a JWT (RFC 7519): three parts, the first of them JSON."""
    return text.startswith("eyJ") and text.count(".") == 2
