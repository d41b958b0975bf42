"""Tokens that the registry signs itself, and OIDC issuers: ``access.tokens``, ``access.issuers``.

Imported only if the section is configured: it needs the extra ``auth`` (PyJWT).
"""

from __future__ import annotations

from pathlib import Path
from stat import S_IMODE, S_IRWXO
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from twisted_registry.api.token import TokenResource
from twisted_registry.app.access import AccessControl, make_login_cache
from twisted_registry.auth.access import SchemeAccess
from twisted_registry.auth.rules import Right
from twisted_registry.config.loading import explain_read_error
from twisted_registry.frame.errors import StartError
from twisted_registry.http.client import make_agent
from twisted_registry.tokens.keys import (
    KeyCache,
    StoredKeys,
    TokenKey,
    TokenKeys,
    read_key_file,
)
from twisted_registry.tokens.logins import TOKEN_PATH, Authenticator, Realm, TokenScheme
from twisted_registry.tokens.oidc import (
    TIMEOUT_S,
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
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.web.iweb import IAgent

    from twisted_registry.auth.audit import LoginAudit
    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import IPolicy
    from twisted_registry.auth.rate_limits import RateLimit
    from twisted_registry.config.access import Issuer, Tokens
    from twisted_registry.config.schema import Configuration
    from twisted_registry.metrics.counts import Counts
    from twisted_registry.repository.registry import Registry

log = Logger()


def make_tokens(
    configuration: Configuration,
    policy: IPolicy,
    passwords: Basic | None,
    registry: Registry,
    reactor: Any,
    by_address: RateLimit | None,
    audit: LoginAudit | None = None,
    counts: Counts | None = None,
    wrap_agent: Callable[[IAgent], IAgent] | None = None,
) -> AccessControl:
    """Make the controller that accepts the registry's own tokens, and the token endpoint.

    :param passwords: the scheme that authenticates users by password; None without users.
    :param registry: stores the keys and the refresh tokens.
    :param by_address: limits the requests for tokens of each address; None for no limit.
    :param audit: records logins, refusals and refresh tokens; None for no audit log.
    :param counts: counts refusals by limits, and the use of the cache of logins; None for neither.
    :param wrap_agent: returns the agent for requests to issuers, given the one that makes
        connections; None for that one.
    :raises StartError: if the file of keys cannot be used; the text names the key.
    """
    options = configuration.tokens
    assert options is not None
    records = TokenStore(registry.driver, reactor)
    issuers = configuration.access.issuers if configuration.access else ()
    logins = Authenticator(
        passwords, records, _make_oidc_verifier(issuers, reactor, wrap_agent) if issuers else None
    )
    keys = KeyCache(_make_key_reader(options, registry, reactor), reactor)
    signer = TokenSigner(keys, reactor, options.service, options.lifetime)
    realm = Realm(configuration.http.host, configuration.http.prefix or "/")
    scheme = TokenScheme(
        realm,
        options.service,
        signer,
        logins,
        reactor,
        login_cache=make_login_cache(reactor, counts),
    )
    # Refresh tokens are stored, which a read-only registry cannot do.
    read_only = configuration.storage.maintenance.readonly.enabled
    refresh_s = 0.0 if read_only else options.refresh
    resource = TokenResource(
        logins,
        policy,
        signer,
        reactor,
        refresh_s,
        options.refreshlimit,
        options.service,
        by_address,
        audit,
        counts,
    )
    return AccessControl(SchemeAccess(scheme, policy, audit), {TOKEN_PATH: resource})


def _make_key_reader(
    options: Tokens, registry: Registry, reactor: Any
) -> Callable[[], Awaitable[TokenKeys]]:
    """Return the function that reads the keys of tokens."""
    if options.signing_key:
        keys = TokenKeys((TokenKey.parse(options.signing_key),))
        return lambda: succeed(keys)
    if options.keyfile:
        # Now, as a daemon may change its working directory.
        path = str(Path(options.keyfile).absolute())
        _check_key_file(path)
        pool = reactor.getThreadPool()
        return lambda: deferToThreadPool(reactor, pool, read_key_file, path)
    return StoredKeys(registry.driver, reactor).read


def _check_key_file(path: str) -> None:
    key = f"access.tokens.keyfile: {path}"
    try:
        read_key_file(path)
        mode = Path(path).stat().st_mode
    except OSError as error:
        reason = explain_read_error(error, str(Path(path).absolute()))
        raise StartError(f"{key}: {reason}") from error
    except ValueError as error:
        raise StartError(f"{key}: {error}") from None
    if mode & S_IRWXO:
        log.warn(
            "token keys can be read by all users of this host: path={path} mode={mode:04o},"
            " expected 0600 or 0640",
            path=path,
            mode=S_IMODE(mode),
        )


def _make_oidc_verifier(
    issuers: Sequence[Issuer],
    reactor: Any,
    wrap_agent: Callable[[IAgent], IAgent] | None,
) -> OIDCVerifier:
    agent = make_agent(reactor, TIMEOUT_S)
    fetcher = JSONFetcher(reactor, agent if wrap_agent is None else wrap_agent(agent))
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
