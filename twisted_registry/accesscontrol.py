"""``auth`` and ``access`` joined to constructors: a part of service.py, imported where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.accessrules import make_policy
from twisted_registry.auth.policy import LoggedIn
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
    auth = configuration.auth
    policy = make_policy(configuration.access, LoggedIn())
    if not auth.wanted:
        nobody: IConfiguredAccess = StrangersOnly(policy)
        return nobody
    access: IConfiguredAccess = SchemeAccess(make_scheme(auth, reactor), policy)
    return access
