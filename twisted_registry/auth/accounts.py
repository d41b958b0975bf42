"""Whether an account is still what it was when somebody logged in."""

# zope's methods have no self.
# ruff: noqa: N805

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class IAccountVersions(Interface):
    """What a checker provides besides ICredentialsChecker if logins may outlive a password."""

    def stamp(name: str) -> Deferred[str | None]:
        """Fire with what is the same as long as the user has the same password.

        It may be stored, and tells nothing of the password.

        :returns: None if there is no such user.
        """
