"""``access.tokens`` joined to constructors: a part of accesscontrol.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.defer import succeed

from twisted_registry.api.token import TokenResource
from twisted_registry.auth.access import SchemeAccess
from twisted_registry.auth.rules import Right
from twisted_registry.tokens.logins import TOKEN_PATH, Authenticator, Realm, TokenScheme
from twisted_registry.tokens.records import TokenStore
from twisted_registry.tokens.signing import TokenSigner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.web.resource import Resource

    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import IPolicy
    from twisted_registry.config.access import Issuer, Tokens
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.registry import Registry
    from twisted_registry.tokens.logins import IOIDCVerifier


@frozen
class TokenAccess:
    """A controller that believes our tokens, and the place where they are given.

    :ivar pages: Resources by their paths below the prefix of the API.
    """

    access: SchemeAccess
    pages: Mapping[str, Resource]


@define(eq=False)
class _LazySigner:
    """Makes the signer, once it is needed: the secret may have to be read from the store."""

    _registry: Registry
    _options: Tokens
    _reactor: Any
    _signer: TokenSigner | None = field(init=False, default=None)

    async def __call__(self) -> TokenSigner:
        if self._signer is None:
            options = self._options
            secret = await self._registry.upload_secret()
            self._signer = TokenSigner(
                secret, self._reactor, options.service, options.lifetime, options.rotation
            )
        return self._signer


def make_tokens(
    configuration: Configuration,
    options: Tokens,
    policy: IPolicy,
    passwords: Basic | None,
    registry: Registry,
    reactor: Any,
) -> TokenAccess:
    """Answer what ``access.tokens`` describes.

    :param passwords: the scheme of the users, if there are any.
    """
    records = TokenStore(registry.driver, reactor)
    issuers = configuration.access.issuers if configuration.access else ()
    logins = Authenticator(passwords, records, _make_oidc(issuers, reactor) if issuers else None)
    signers = _LazySigner(registry, options, reactor)
    realm = Realm(configuration.http.host, configuration.http.prefix or "/")
    end = (lambda: succeed(None)) if passwords is None else passwords.close
    scheme = TokenScheme(realm, options.service, signers, logins, reactor, end)
    # Where nothing may be written, no refresh token can be kept.
    read_only = configuration.storage.maintenance.readonly.enabled
    refresh = 0.0 if read_only else options.refresh
    resource = TokenResource(logins, policy, signers, reactor, refresh, options.service)
    return TokenAccess(SchemeAccess(scheme, policy), {TOKEN_PATH: resource})


def _make_oidc(issuers: Sequence[Issuer], reactor: Any) -> IOIDCVerifier:
    # Few trust others, and it brings an HTTP client along.
    from twisted_registry.tokens.oidc import (
        ClaimCondition,
        IssuerKeys,
        JSONFetcher,
        OIDCRule,
        OIDCVerifier,
        TrustedIssuer,
    )

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
    made: IOIDCVerifier = OIDCVerifier(trusted, reactor)
    return made
