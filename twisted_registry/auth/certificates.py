"""Whoever shows a certificate is the user that rules make of it, without a password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from twisted_registry.auth.access import Grant, Login, error_detail
from twisted_registry.auth.interfaces import (
    Access,
    Caller,
    IClosableAccessController,
    Identity,
    IGrant,
)
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.auth.interfaces import IAccessController, IPolicy
    from twisted_registry.tls.interfaces import ClientCertificate

#: A group of the pattern, in the name of a user: ``{1}``; ``{0}`` is all of it.
GROUP: Final = re.compile(r"\{(\d)\}")


@frozen
class CertificateUserRule:
    """Makes a user of a certificate.

    :ivar source: what of the certificate is looked at.
    :ivar pattern: what it has to be, from its beginning to its end.
    :ivar user: what the user is called; ``{1}`` stands for a group of the pattern.
    :ivar groups: the groups that the user is in.
    :ivar organization: an organization that the subject has to name, or empty.
    """

    source: Literal["cn", "dns", "email", "uri"]
    pattern: re.Pattern[str]
    user: str = "{0}"
    groups: frozenset[str] = frozenset()
    organization: str = ""

    def identity_for(self, certificate: ClientCertificate) -> Identity | None:
        """The user, or None if this is no rule for the certificate."""
        if self.organization and self.organization not in certificate.organizations:
            return None
        values: Sequence[str] = getattr(certificate, self.source)
        found = next(filter(None, map(self.pattern.fullmatch, values)), None)
        if found is None:
            return None
        name = GROUP.sub(lambda group: found[int(group[1])] or "", self.user)
        # Names come to logs and events.
        return Identity(name, self.groups) if name and name.isprintable() else None


@implementer(IClosableAccessController)
@frozen(eq=False, repr=False)
class CertificateAccess:
    """Knows callers by their certificates, and leaves the others to another controller.

    Who shows a certificate and logs in besides is who the login says.
    """

    _rules: Sequence[CertificateUserRule]
    _policy: IPolicy
    _fallback: IAccessController

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Deferred[IGrant]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IAccessController`."""
        certificate = caller.certificate
        login = (
            self._find_login(certificate)
            if certificate is not None and caller.authorization is None
            else None
        )
        if login is None:
            return self._fallback.authorize(caller, accesses)
        grant = Grant(login.identity.name, login, self._policy)
        if all(map(grant.permits, accesses)):
            return succeed(grant)
        return fail(RegistryError(ErrorCode.DENIED, detail=error_detail(accesses)))

    def close(self) -> Deferred[None]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IClosableAccessController`."""
        if IClosableAccessController.providedBy(self._fallback):
            return self._fallback.close()
        return succeed(None)

    def _find_login(self, certificate: ClientCertificate) -> Login | None:
        for rule in self._rules:
            identity = rule.identity_for(certificate)
            if identity is not None:
                return Login(identity)
        return None
