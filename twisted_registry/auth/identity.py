"""Who somebody was found to be: what a login yields, and what rules are asked about."""

from __future__ import annotations

from attrs import frozen
from zope.interface import Attribute, Interface, implementer

from twisted_registry.auth.interfaces import ISteady


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
