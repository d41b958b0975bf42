"""Tokens that the registry signs itself, and OIDC issuers: ``access.tokens``, ``access.issuers``.

Imported only if the section is configured: it needs the extra ``auth`` (PyJWT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from twisted_registry.api.token import TokenResource
from twisted_registry.app.access import AccessControl
from twisted_registry.auth.access import SchemeAccess
from twisted_registry.auth.rules import Right
from twisted_registry.tokens.logins import TOKEN_PATH, Authenticator, Realm, TokenScheme
from twisted_registry.tokens.oidc import (
    ClaimCondition,
    IssuerKeys,
    JSONFetcher,
    OIDCRule,
    OIDCVerifier,
    TrustedIssuer,
)
from twisted_registry.tokens.records import TokenStore
from twisted_registry.tokens.signing import TokenSigner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import IPolicy
    from twisted_registry.auth.rate_limits import RateLimit
    from twisted_registry.config.access import Issuer, Tokens
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.registry import Registry


@define(eq=False)
class _LazySigner:
    """Makes the token signer at its first use: the secret may have to be read from the store."""

    _registry: Registry
    _options: Tokens
    _reactor: Any
    _signer: TokenSigner | None = field(init=False, default=None)

    async def __call__(self) -> TokenSigner:
        if self._signer is None:
            options = self._options
            secret = await self._registry.upload_secret.load()
            self._signer = TokenSigner(
                secret, self._reactor, options.service, options.lifetime, options.rotation
            )
        return self._signer


def make_tokens(
    configuration: Configuration,
    policy: IPolicy,
    passwords: Basic | None,
    registry: Registry,
    reactor: Any,
    by_address: RateLimit | None,
) -> AccessControl:
    """Make the controller that accepts the registry's own tokens, and the token endpoint.

    :param passwords: the scheme that authenticates users by password; None without users.
    :param registry: stores the secret and the refresh tokens.
    :param by_address: limits the requests for tokens of each address; None for no limit.
    """
    options = configuration.tokens
    assert options is not None
    records = TokenStore(registry.driver, reactor)
    issuers = configuration.access.issuers if configuration.access else ()
    logins = Authenticator(
        passwords, records, _make_oidc_verifier(issuers, reactor) if issuers else None
    )
    signers = _LazySigner(registry, options, reactor)
    realm = Realm(configuration.http.host, configuration.http.prefix or "/")
    scheme = TokenScheme(realm, options.service, signers, logins, reactor)
    # Refresh tokens are stored, which a read-only registry cannot do.
    read_only = configuration.storage.maintenance.readonly.enabled
    refresh_s = 0.0 if read_only else options.refresh
    resource = TokenResource(
        logins, policy, signers, reactor, refresh_s, options.service, by_address
    )
    return AccessControl(SchemeAccess(scheme, policy), {TOKEN_PATH: resource})


def _make_oidc_verifier(issuers: Sequence[Issuer], reactor: Any) -> OIDCVerifier:
    fetcher = JSONFetcher(reactor)
    trusted = [
        TrustedIssuer(
            IssuerKeys(issuer.issuer, issuer.jwks, fetcher, reactor),
            issuer.audience,
            tuple(
                OIDCRule(
                    tuple(ClaimCondition(claim, pattern) for claim, pattern in rule.claims.items()),
                    Right.make(rule.repositories, rule.allow),
                )
                for rule in issuer.rules
            ),
        )
        for issuer in issuers
    ]
    return OIDCVerifier(trusted, reactor)
