"""Who we are to the store: a key pair, perhaps for a while only."""

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from twisted.internet.defer import succeed
from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class CredentialsError(Exception):
    """No credentials could be had; the text says where they were looked for, and never one."""


@frozen
class Credentials:
    """A key pair.

    :ivar access_key: the public half.
    :ivar secret_key: the secret half.
    :ivar token: the session that temporary keys belong to, or empty.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class ICredentialsProvider(Interface):
    """Where credentials come from."""

    def current() -> Deferred[Credentials]:
        """Fire with credentials that are good now.

        :raises CredentialsError: if there are none.
        """

    def close() -> Deferred[None]:
        """Free what is held; nothing is asked for any more."""


@implementer(ICredentialsProvider)
@frozen
class StaticCredentials:
    """Credentials that never change."""

    credentials: Credentials

    def current(self) -> Deferred[Credentials]:
        """Fire with them."""
        return succeed(self.credentials)

    def close(self) -> Deferred[None]:
        """Do nothing: nothing is held."""
        return succeed(None)
