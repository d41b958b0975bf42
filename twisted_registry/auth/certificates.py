"""Authentication by client certificates: rules make a user of a verified certificate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.auth.access import Login, grant_or_deny
from twisted_registry.auth.interfaces import (
    Access,
    Caller,
    IClosableAccessController,
    Identity,
    IGrant,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from twisted_registry.auth.audit import LoginAudit
    from twisted_registry.auth.interfaces import IAccessController, IPolicy
    from twisted_registry.oci.linear_regex import LinearRegex
    from twisted_registry.tls.interfaces import ClientCertificate

#: A reference to a group of the pattern in the name of a user: ``{1}``; ``{0}`` is the whole match.
_GROUP: Final = re.compile(r"\{(\d)\}")


@frozen
class CertificateUserRule:
    """A rule that makes a user of the certificates that match it.

    :ivar source: the attribute of the certificate that the pattern is matched against.
    :ivar pattern: must match one value of the attribute completely.
    :ivar user: the name of the user; ``{1}`` is replaced by the first group of the pattern.
    :ivar groups: the groups of the user.
    :ivar organization: an organization that the subject must contain, or empty.
    """

    source: Literal["cn", "dns", "email", "uri"]
    pattern: LinearRegex
    user: str = "{0}"
    groups: frozenset[str] = frozenset()
    organization: str = ""

    def identity_for(self, certificate: ClientCertificate) -> Identity | None:
        """Return the user, or None if the rule does not match the certificate."""
        if self.organization and self.organization not in certificate.organizations:
            return None
        values: Sequence[str] = getattr(certificate, self.source)
        match = next(filter(None, map(self.pattern.match_all, values)), None)
        if match is None:
            return None
        name = _GROUP.sub(lambda group: match[int(group[1])], self.user)
        # The name is written to logs and events.
        return Identity(name, self.groups) if name and name.isprintable() else None


@implementer(IClosableAccessController)
@frozen(eq=False, repr=False)
class CertificateAccess:
    """An access controller for callers with a client certificate.

    Requests without a certificate that matches a rule go to another controller. So do requests
    with an Authorization header: it takes precedence over the certificate.

    :ivar rules: the first rule that matches decides.
    :ivar policy: decides what the users may do.
    :ivar fallback: the controller for the other requests.
    :ivar audit: records logins and refusals; None for no audit log.
    """

    _rules: Sequence[CertificateUserRule]
    _policy: IPolicy
    _fallback: IAccessController
    _audit: LoginAudit | None = None

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> IGrant | Awaitable[IGrant]:
        """Check the accesses of the user of the certificate against the policy."""
        certificate = caller.certificate
        login = (
            self._find_login(certificate)
            if certificate is not None and caller.authorization is None
            else None
        )
        if login is None:
            return self._fallback.authorize(caller, accesses)
        return grant_or_deny(login, self._policy, caller, accesses, self._audit)

    def close(self) -> Deferred[None]:
        """Close the other controller, if it can be closed."""
        if IClosableAccessController.providedBy(self._fallback):
            return self._fallback.close()
        return succeed(None)

    def _find_login(self, certificate: ClientCertificate) -> Login | None:
        for rule in self._rules:
            identity = rule.identity_for(certificate)
            if identity is not None:
                return Login(identity)
        return None
