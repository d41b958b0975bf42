"""``http.tls.clientusers`` joined to constructors: a part of accesscontrol.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted_registry.auth.certificates import CertificateAccess, CertificateUserRule

if TYPE_CHECKING:
    from typing import Literal

    from twisted_registry.auth.interfaces import IAccessController, IClosableAccessController, IPolicy
    from twisted_registry.config.tls import Tls


def make_certificate_access(tls: Tls, policy: IPolicy, otherwise: IAccessController) -> IClosableAccessController:
    """A controller that knows callers by their certificates.

    :param otherwise: decides over those who show none that a rule is for.
    """
    rules = [
        CertificateUserRule(
            cast("Literal['cn', 'dns', 'email', 'uri']", rule.source),
            rule.pattern,
            rule.user,
            frozenset(rule.groups),
            rule.organization,
        )
        for rule in tls.clientusers
    ]
    made: IClosableAccessController = CertificateAccess(rules, policy, otherwise)
    return made
