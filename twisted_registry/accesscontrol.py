"""``auth`` and ``access`` joined to constructors: a part of service.py, imported where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.accessrules import make_policy
from twisted_registry.auth.policy import Admitted, LoggedIn
from twisted_registry.auth.schemes import SchemeAccess
from twisted_registry.auth.strangers import StrangersOnly
from twisted_registry.authschemes import make_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.auth.interfaces import IConfiguredAccess
    from twisted_registry.config.schema import Configuration


def make_access(
    configuration: Configuration,
    reactor: Any,
    environ: Mapping[str, str],  # noqa: ARG001 - for schemes with secrets
) -> IConfiguredAccess:
    """Answer the controller that ``auth`` and ``access`` describe.

    :raises StartError: if it can not be made; the text names the key.
    """
    auth, tls = configuration.auth, configuration.http.tls
    without = LoggedIn() if auth.token is None else Admitted()
    policy = make_policy(configuration.access, without)
    access: IConfiguredAccess
    if auth.wanted:
        access = SchemeAccess(make_scheme(auth, reactor), policy)
    else:
        access = StrangersOnly(policy)
    if tls.clientusers:
        from twisted_registry.certificateusers import with_certificates  # noqa: PLC0415

        access = with_certificates(tls, policy, access)
    return access
