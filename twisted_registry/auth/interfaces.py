"""The seam between routes and whoever decides: what is asked, and what is answered.

Every route declares what it needs as :class:`Access` records. One point asks the
:class:`IAccessController` before any body is taken. The vocabulary is that of Distribution's
token scheme: ``repository:library/alpine:pull,push``.

Who somebody was found to be: what a login yields, and what rules are asked about.

Whether an account is still what it was when somebody logged in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from zope.interface import Attribute, Interface, implementer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.tls.interfaces import ClientCertificate
    # @@EMPTY

# zope's methods have no self.
# ruff: noqa: N805


Action = Literal["pull", "push", "delete", "*"]


@frozen
class Access:
    """One thing that a request wants to do.

    :ivar type: ``repository`` or ``registry``.
    :ivar name: the repository, or ``catalog`` or ``maintenance``.
    :ivar action: what is done to it.
    """

    type: Literal["repository", "registry"]
    name: str
    action: Action


#: Listing every repository; whoever may do that may also mount a blob without naming a source.
CATALOG = Access("registry", "catalog", "*")
#: Starting the tasks of the maintenance; for whoever may administer every repository.
MAINTENANCE = Access("registry", "maintenance", "*")


class RawCredentials(str):  # noqa: SLOT000 - a slot that may be empty costs more than that
    """What a connection shows again and again.

    :ivar mark: set by whoever remembers logins, so that it is made once and not for each request.
    """

    mark = b""


@frozen
class Caller:
    """Who asks, as far as the connection and the headers tell.

    :ivar authorization: the Authorization header, never shown in a repr; a :class:`RawCredentials` if the
        connection showed the same before.
    :ivar address: the peer's address, or what a proxy in front of us said of it.
    :ivar host: the host that the client asked for, for challenges that name a URL.
    :ivar secure: whether the client's connection was over TLS.
    :ivar scheme: what a proxy in front of us said of that, or empty.
    :ivar certificate: the client's, if it has shown one that was verified.
    """

    authorization: str | None = field(repr=False, default=None)
    address: str = ""
    host: str = ""
    secure: bool = False
    scheme: str = ""
    certificate: ClientCertificate | None = None


class IRepositoryFilter(Interface):
    """The repositories that somebody may know of."""

    prefixes: Sequence[str] = Attribute(
        "Each of the names begins with one of these; in order, none of them begins with another."
    )

    def includes(name: str) -> bool:
        """Whether a repository is one of them."""


class IGrant(Interface):
    """What one caller was found to be allowed."""

    user: str = Attribute("The name to log; empty for an anonymous caller.")
    visible: IRepositoryFilter | None = Attribute(
        "The repositories to list for the caller; None for every one."
    )

    def permits(access: Access) -> bool:
        """Whether the caller may do this as well, beyond what was asked for."""


class IAccessController(Interface):
    """Decides over requests."""

    def authorize(caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:
        """Fire with a grant if ``caller`` may do all of ``accesses``.

        :param accesses: what the route needs; empty for the version check at ``/v2/``, which
            still asks for a login where one is needed.
        :raises RegistryError: UNAUTHORIZED with the challenge in its headers, or DENIED.
        """


class IClosableAccessController(IAccessController):
    """A controller that an operator configured, and that holds files and threads."""

    def close() -> Deferred[None]:
        """Free them; fire when that is done."""


class IScope(Interface):
    """Bounds: what may be done at most."""

    def allows(identity: IIdentity, access: Access) -> bool:
        """Whether the user may do this.

        Asked once or more for each request, on the reactor's thread: it must not wait.

        :param identity: without a name for an anonymous caller.
        """


class ISteady(Interface):
    """A marker on identities and :class:`IScope`: it is and says the same for ever.

    What one of them allowed another may be remembered as long as a login holds. Without the marker
    it is asked for each request.
    """


class IPolicy(IScope):
    """Rules: which user may do what."""

    def visible(identity: IIdentity) -> IRepositoryFilter | None:
        """The repositories that the user may pull; None for every one."""


@implementer(IGrant)
@frozen
class OpenGrant:
    """Allows everything."""

    user: str = ""
    visible: None = None

    def permits(self, access: Access) -> bool:  # noqa: ARG002
        """Yes."""
        return True


class IIdentity(Interface):
    """The avatar of :mod:`twisted.cred`: what a portal hands out for good credentials."""

    name: str = Attribute("What the user is called; empty for an anonymous caller.")
    groups: frozenset[str] = Attribute("The groups that the user is in.")


@implementer(IIdentity, ISteady)
@frozen
class Identity:
    """A user, or nobody in particular.

    :ivar name: what the user is called; empty for an anonymous caller.
    :ivar groups: the groups that the user is in.
    """

    name: str = ""
    groups: frozenset[str] = frozenset()


#: Whoever has shown no credentials. A good token without a name in it has an identity of its own.
ANONYMOUS = Identity()


# zope's methods have no self.
# ruff: noqa: N805


class IAccountVersions(Interface):
    """What a checker provides besides ICredentialsChecker if logins may outlive a password."""

    def stamp(name: str) -> Deferred[str | None]:
        """Fire with what is the same as long as the user has the same password.

        It may be stored, and tells nothing of the password.

        :returns: None if there is no such user.
        """
