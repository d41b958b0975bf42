"""``http.tls.clientusers`` joined to constructors: a part of accesscontrol.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted_registry.auth.certificates import CertificateAccess, UserRule

if TYPE_CHECKING:
    from typing import Literal

    from twisted_registry.auth.interfaces import IAccessController, IConfiguredAccess, IPolicy
    from twisted_registry.config.tls import Tls


def with_certificates(tls: Tls, policy: IPolicy, otherwise: IAccessController) -> IConfiguredAccess:
    """A controller that knows callers by their certificates.

    :param otherwise: decides over those who show none that a rule is for.
    """
    rules = [
        UserRule(
            cast("Literal['cn', 'dns', 'email', 'uri']", rule.source),
            rule.pattern,
            rule.user,
            frozenset(rule.groups),
            rule.organization,
        )
        for rule in tls.clientusers
    ]
    made: IConfiguredAccess = CertificateAccess(rules, policy, otherwise)
    return made
