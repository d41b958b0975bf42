"""Whoever asks for a token, or shows what is as good as a password: users, robots, CI systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen
from zope.interface import Interface

from twisted_registry.auth.basic import credentials_in, header_of, is_basic, is_nobody
from twisted_registry.auth.identity import ANONYMOUS, Identity, IIdentity
from twisted_registry.auth.interfaces import Caller
from twisted_registry.auth.rights import Delegate
from twisted_registry.auth.schemes import LoginFailed
from twisted_registry.tokens.records import is_stored_token

if TYPE_CHECKING:
    from twisted_registry.auth.basic import Basic
    from twisted_registry.tokens.records import Records


@frozen
class Holder:
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
STRANGER = Holder(ANONYMOUS)


class IVouchers(Interface):
    """Believes tokens that others have signed for their jobs."""

    async def holder(token: str) -> Holder:  # noqa: N805 - zope's methods have no self
        """Whom a token is for.

        :raises LoginFailed: if it is not believed.
        :raises RegistryError: UNAVAILABLE if that can not be found out now.
        """


@define(eq=False, repr=False)
class Logins:
    """Finds out who shows something.

    :ivar passwords: knows users, if there are any.
    :ivar records: knows robots, and who may refresh.
    :ivar vouchers: knows CI systems, if any are trusted.
    """

    passwords: Basic | None
    records: Records
    _vouchers: IVouchers | None = None

    async def of_header(self, caller: Caller) -> Holder:
        """Who shows a name and a password in an Authorization header; a stranger without one.

        :raises LoginFailed: if they are not believed.
        :raises RegistryError: if that can not be found out now.
        """
        shown = caller.authorization
        if not shown:
            return STRANGER
        credentials = credentials_in(shown) if is_basic(shown) else None
        if credentials is None:
            raise LoginFailed("what was shown is not NAME:PASSWORD in base64")
        if is_nobody(credentials):
            return STRANGER
        password = credentials.password.decode("utf-8", "replace")
        if is_stored_token(password):
            return await self._robot(password)
        if self._vouchers is not None and looks_signed(password):
            return await self.of_signed(password)
        if self.passwords is None:
            raise LoginFailed("there are no users, and it is no token")
        login = self.passwords.recall(caller) or await self.passwords.identify(caller)
        assert login is not None
        return Holder(login.identity, is_user=True)

    async def of_password(self, name: str, password: str) -> Holder:
        """Who has a name and a password.

        :raises LoginFailed: if they are not believed.
        :raises RegistryError: if that can not be found out now.
        """
        holder = await self.of_header(Caller(header_of(name, password)))
        if holder is STRANGER:
            raise LoginFailed("there is neither a name nor a password")
        return holder

    async def of_signed(self, token: str) -> Holder:
        """Whom a token of a CI system is for.

        :raises LoginFailed: if it is not believed.
        :raises RegistryError: if that can not be found out now.
        """
        if self._vouchers is None:
            raise LoginFailed("no issuer of tokens is trusted")
        holder: Holder = await self._vouchers.holder(token)
        return holder

    async def of_refresh_token(self, token: str) -> Holder:
        """Whom a token that refreshes was given, if their account is still the same.

        :raises LoginFailed: if it is not believed.
        """
        record = await self.records.check(token, "refresh")
        if record is None or record.stamp != await self.stamp(record.name):
            raise LoginFailed("the refresh token is unknown, expired, revoked, or its user changed")
        return Holder(Identity(record.name), record.id)

    async def stamp(self, name: str) -> str | None:
        """What a user's account looks like; None if they have none."""
        accounts = None if self.passwords is None else self.passwords.accounts
        if accounts is None:
            return None
        stamp: str | None = await accounts.stamp(name)
        return stamp

    async def _robot(self, token: str) -> Holder:
        record = await self.records.check(token, "robot")
        if record is None:
            raise LoginFailed("the robot's token is unknown, expired or revoked")
        return Holder(
            Delegate(f"robot:{record.name}", record.rights),
            record.id,
            self.records.holds_until(record),
        )


def looks_signed(text: str) -> bool:
    """Whether a password is meant to be a JWT (RFC 7519): three parts, the first of them JSON."""
    return text.startswith("eyJ") and text.count(".") == 2
