"""``auth`` and ``access`` joined to constructors: a part of service.py, imported where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import field, frozen

from twisted_registry.accessrules import make_access_policy
from twisted_registry.auth.policy import TokenScopePolicy, AuthenticatedPolicy
from twisted_registry.auth.schemes import SchemeAccess
from twisted_registry.auth.strangers import AnonymousOnly
from twisted_registry.authschemes import make_scheme, missing_extra_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.web.resource import Resource

    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import IClosableAccessController
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.registry import Registry


@frozen
class AccessControl:
    """Who decides over requests, and what they need to be asked.

    :ivar pages: Resources by their paths below the prefix of the API.
    """

    access: IClosableAccessController
    pages: Mapping[str, Resource] = field(factory=dict)


def make_access(
    configuration: Configuration,
    reactor: Any,
    environ: Mapping[str, str],  # noqa: ARG001 - for schemes with secrets
    registry: Registry,
) -> AccessControl:
    """Answer what ``auth`` and ``access`` describe.

    :param registry: keeps secrets and tokens for those who share its store.
    :raises StartError: if it can not be made; the text names the key.
    """
    auth, tls, rules = configuration.auth, configuration.http.tls, configuration.access
    policy = make_access_policy(rules, AuthenticatedPolicy() if auth.token is None else TokenScopePolicy())
    scheme = make_scheme(auth, reactor) if auth.is_enabled else None
    access: IClosableAccessController
    pages: Mapping[str, Resource] = {}
    tokens = configuration.tokens
    if tokens is not None:
        try:
            from twisted_registry.builtintokens import make_tokens  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise missing_extra_error("access.tokens", error) from error
        passwords = cast("Basic | None", scheme)
        made = make_tokens(configuration, tokens, policy, passwords, registry, reactor)
        access, pages = made.access, made.pages
    else:
        access = AnonymousOnly(policy) if scheme is None else SchemeAccess(scheme, policy)
    if tls.clientusers:
        from twisted_registry.certificateusers import make_certificate_access  # noqa: PLC0415

        access = make_certificate_access(tls, policy, access)
    return AccessControl(access, pages)
