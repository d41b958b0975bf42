"""Interfaces between request handling and access control.

Every route declares what it needs as :class:`Access` values, and asks the
:class:`IAccessController` before it reads a request body. The vocabulary is that of Distribution's
token scheme: ``repository:library/alpine:pull,push``.

A login yields an :class:`IIdentity`; an :class:`IPolicy` decides what the identity may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import define, field, frozen
from zope.interface import Attribute, Interface, implementer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.tls.interfaces import ClientCertificate

# The methods of a zope.interface Interface have no self.
# ruff: noqa: N805


Action = Literal["pull", "push", "delete", "*"]


@frozen
class Access:
    """One action on one resource.

    :ivar type: ``repository`` or ``registry``.
    :ivar name: the repository, or ``catalog`` or ``maintenance`` for the type ``registry``.
    :ivar action: the action.
    """

    type: Literal["repository", "registry"]
    name: str
    action: Action


#: Listing all repositories. It also permits mounting a blob without naming a source repository.
CATALOG = Access("registry", "catalog", "*")
#: Starting maintenance tasks; permitted to administrators of every repository.
MAINTENANCE = Access("registry", "maintenance", "*")


@define  # one per request; creating a frozen instance is slower
class Caller:
    """The sender of a request, as far as connection and headers tell.

    :ivar authorization: the value of the Authorization header; not part of the repr.
    :ivar address: the address of the client, or the one that a trusted proxy reports.
    :ivar host: the requested host, for challenges that contain a URL.
    :ivar secure: whether the client's connection uses TLS.
    :ivar scheme: the scheme that a trusted proxy reports, or empty.
    :ivar certificate: the verified client certificate, or None.
    :ivar peer: the address at the other end of the socket: that of the proxy, if there is one.
    """

    authorization: str | None = field(repr=False, default=None)
    address: str = ""
    host: str = ""
    secure: bool = False
    scheme: str = ""
    certificate: ClientCertificate | None = None
    peer: str = ""

    @property
    def log_fields(self) -> dict[str, str]:
        """The addresses, as fields of a log line: that of a proxy beside the reported one."""
        fields = {"http.request.remoteaddr": self.address}
        if self.peer and self.peer != self.address:
            fields["http.request.peer"] = self.peer
        return fields


class IRepositoryFilter(Interface):
    """The repositories that a user may see."""

    prefixes: Sequence[str] = Attribute(
        "Every visible name begins with one of these; sorted, and none is a prefix of another."
    )

    def includes(name: str) -> bool:
        """Return whether a repository is visible."""


class IGrant(Interface):
    """The permissions of the sender of one request."""

    user: str = Attribute("The name to log; empty for an anonymous caller.")
    visible_repositories: IRepositoryFilter | None = Attribute(
        "The repositories to list for the caller; None for all of them."
    )

    def permits(access: Access) -> bool:
        """Return whether the caller may also do this, beyond the accesses already granted."""


class IAccessController(Interface):
    """Authorizes requests."""

    def authorize(caller: Caller, accesses: Sequence[Access]) -> IGrant | Awaitable[IGrant]:
        """Return a grant, at once or by an awaitable, if ``caller`` may do all of ``accesses``.

        :param accesses: the accesses that the route needs; empty for the version check at
            ``/v2/``, which still needs a login where one is required.
        :raises RegistryError: UNAUTHORIZED with the challenge in its headers, or DENIED.
        """


class IClosableAccessController(IAccessController):
    """An access controller that holds resources such as files and threads."""

    def close() -> Deferred[None]:
        """Release the resources; fire when that is done."""


class IScope(Interface):
    """An upper limit of what an identity may do."""

    def allows(identity: IIdentity, access: Access) -> bool:
        """Return whether the identity may do this.

        Called at least once per request on the reactor thread, so it must not block.

        :param identity: has an empty name for an anonymous caller.
        """


class IPolicy(IScope):
    """Rules that say which user may do what."""

    def visible_repositories(identity: IIdentity) -> IRepositoryFilter | None:
        """Return the repositories that the user may pull; None for all of them."""


class IIdentity(Interface):
    """A user: the avatar that a :mod:`twisted.cred` portal returns for valid credentials."""

    name: str = Attribute("The name of the user; empty for an anonymous caller.")
    groups: frozenset[str] = Attribute("The groups of the user.")


@implementer(IIdentity)
@frozen
class Identity:
    """A named user, or an anonymous caller.

    :ivar name: the name of the user; empty for an anonymous caller.
    :ivar groups: the groups of the user.
    """

    name: str = ""
    groups: frozenset[str] = frozenset()


#: The identity of a caller without credentials. A caller with a valid token that contains no name
#: has another identity with an empty name.
ANONYMOUS = Identity()


class IAccountVersions(Interface):
    """Optional interface of a credentials checker: detects that an account has changed.

    A checker needs it if logins shall be able to outlive a request, for example refresh tokens.
    """

    def account_version(name: str) -> Deferred[str | None]:
        """Fire with a text that changes when the password of the user changes.

        The text may be stored and reveals nothing about the password.

        :returns: None if the user does not exist.
        """
