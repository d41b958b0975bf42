"""Access control of a configuration: ``auth``, ``access`` and ``http.tls.clientusers``.

The modules of htpasswd and token authentication are imported only if they are configured; those of
tokens need the extra ``auth`` (PyJWT).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import field, frozen
from twisted.logger import Logger

from twisted_registry.auth.access import (
    AnonymousOnly,
    AuthenticatedPolicy,
    SchemeAccess,
    TokenScopePolicy,
)
from twisted_registry.auth.audit import LoginAudit
from twisted_registry.auth.basic import Silly
from twisted_registry.auth.certificates import CertificateAccess, CertificateUserRule
from twisted_registry.auth.htpasswd import HtpasswdInvalid
from twisted_registry.auth.login_cache import LoginCache
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right
from twisted_registry.config.loading import explain_read_error
from twisted_registry.frame.errors import StartError, require_extra
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from twisted.web.iweb import IAgent
    from twisted.web.resource import Resource

    from twisted_registry.auth.access import IScheme
    from twisted_registry.auth.audit import IAuditLog
    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import (
        IAccessController,
        IClosableAccessController,
        IPolicy,
    )
    from twisted_registry.auth.keys import Keyring
    from twisted_registry.auth.rate_limits import RateLimit
    from twisted_registry.config.access import AccessRules, Htpasswd, Token
    from twisted_registry.config.schema import Configuration
    from twisted_registry.metrics.counts import Counts
    from twisted_registry.repository.registry import Registry

log = Logger()

#: The pattern of rules that apply to all repositories.
_ALL_REPOSITORIES = ("**",)


@frozen
class AccessControl:
    """An access controller, and the resources that its clients need.

    :ivar access: the controller that guards the API.
    :ivar pages: resources by their paths below the prefix of the API.
    """

    access: IClosableAccessController
    pages: Mapping[str, Resource] = field(factory=dict)


def make_access(
    configuration: Configuration,
    registry: Registry,
    reactor: Any,
    by_address: RateLimit | None = None,
    audit_log: IAuditLog | None = None,
    counts: Counts | None = None,
    wrap_agent: Callable[[IAgent], IAgent] | None = None,
    *,
    may_create: bool = True,
) -> AccessControl:
    """Make the access control that ``auth``, ``access`` and ``http.tls.clientusers`` describe.

    :param registry: stores the secret and the refresh tokens of ``access.tokens``.
    :param by_address: limits the requests for tokens of each address; None for no limit.
    :param audit_log: receives logins and refusals; None for no audit log.
    :param counts: counts refusals by limits, and the use of the cache of logins; None for neither.
    :param wrap_agent: returns the agent for requests to issuers of tokens, given the one that makes
        connections; None for that one.
    :param may_create: whether a missing file of users is created.
    :raises StartError: if it cannot be made; the text names the key.
    """
    if configuration.auth.plugin is not None:
        from twisted_registry.app.plugins import make_plugin_access  # noqa: PLC0415 - rare

        return AccessControl(make_plugin_access(configuration.auth.plugin, reactor))
    policy = make_access_policy(
        configuration,
        AuthenticatedPolicy() if configuration.auth.token is None else TokenScopePolicy(),
    )
    scheme = (
        make_scheme(configuration, reactor, counts, may_create=may_create)
        if configuration.auth.is_enabled
        else None
    )
    audit = None if audit_log is None else LoginAudit(audit_log, reactor)
    if configuration.tokens is not None:
        control = _make_token_access(
            configuration,
            policy,
            cast("Basic | None", scheme),
            registry,
            reactor,
            by_address,
            audit,
            counts,
            wrap_agent,
        )
    elif scheme is not None:
        control = AccessControl(SchemeAccess(scheme, policy, audit))
    else:
        control = AccessControl(AnonymousOnly(policy, audit))
    if configuration.http.tls.clientusers:
        access = make_certificate_access(configuration, policy, control.access, audit)
        control = AccessControl(access, control.pages)
    return control


def make_login_cache(reactor: Any, counts: Counts | None) -> LoginCache:
    """Make a cache of logins whose use is counted."""
    return LoginCache(reactor, on_use=None if counts is None else counts.login_cache_used)


def make_access_policy(configuration: Configuration, default: IPolicy) -> IPolicy:
    """Make the policy that ``access`` describes.

    :param default: the policy without that section.
    """
    section = configuration.access
    if section is None or section.has_only_quotas:
        return default
    groups = {name: frozenset(users) for name, users in section.groups.items()}
    return AccessPolicy(tuple(_rules(section)), groups)


def _rules(section: AccessRules) -> Iterator[AccessRule]:
    if section.anonymous:
        yield AccessRule(Right.make(_ALL_REPOSITORIES, section.anonymous), anonymous=True)
    if section.authenticated:
        yield AccessRule(Right.make(_ALL_REPOSITORIES, section.authenticated), authenticated=True)
    for rule in section.rules:
        yield AccessRule(
            Right.make(rule.repositories, rule.allow),
            frozenset(rule.users),
            frozenset(rule.groups),
            rule.authenticated,
            rule.anonymous,
        )


def make_certificate_access(
    configuration: Configuration,
    policy: IPolicy,
    default: IAccessController,
    audit: LoginAudit | None = None,
) -> IClosableAccessController:
    """Make the controller that identifies callers by their client certificates.

    :param default: decides about callers without a certificate that a rule matches.
    :param audit: records logins and refusals; None for no audit log.
    """
    rules = [
        CertificateUserRule(
            cast("Literal['cn', 'dns', 'email', 'uri']", rule.source),
            rule.pattern,
            rule.user,
            frozenset(rule.groups),
            rule.organization,
        )
        for rule in configuration.http.tls.clientusers
    ]
    return CertificateAccess(rules, policy, default, audit)


def make_scheme(
    configuration: Configuration,
    reactor: Any,
    counts: Counts | None = None,
    *,
    may_create: bool = True,
) -> IScheme:
    """Make the authentication scheme that ``auth`` describes. Blocks: it reads files.

    :param counts: counts the use of the cache of logins; None for no metrics.
    :param may_create: whether a missing file of users is created.
    :raises StartError: if it cannot be made; the text names the key.
    """
    auth = configuration.auth
    cache = make_login_cache(reactor, counts)
    if auth.htpasswd is not None:
        return _make_htpasswd_scheme(
            auth.htpasswd, configuration.http.workers, reactor, cache, may_create=may_create
        )
    if auth.token is not None:
        return _make_token_scheme(auth.token, reactor, cache)
    assert auth.silly is not None
    return Silly(auth.silly.realm, auth.silly.service)


def _make_htpasswd_scheme(
    options: Htpasswd, processes: int, reactor: Any, cache: LoginCache, *, may_create: bool
) -> IScheme:
    key = "auth.htpasswd"
    from twisted_registry.auth import basic, password_file  # noqa: PLC0415 - bcrypt

    # Half of the processors at most, so that requests of cached logins are not delayed.
    max_running = max(1, (os.cpu_count() or 1) // 2 // processes)
    # The file is read on a thread that no check of a password keeps busy.
    threads = Threads(reactor, max_running + 1, "passwords")
    path = str(Path(options.path).absolute())
    file = password_file.PasswordFile(path, threads.run_blocking, reactor)
    try:
        password = password_file.create_if_missing(path) if may_create else None
        file.load()
    except OSError as error:
        reason = explain_read_error(error, path)
        raise StartError(f"{key}.path: {path}: {reason}") from error
    except HtpasswdInvalid as error:
        raise StartError(f"{key}.path: {path}: {error}") from error
    if password is not None:
        log.warn(
            "password file was missing, created it with one user: path={path} user={user}"
            " password={password}",
            path=path,
            user=password_file.FIRST_USER,
            password=password,
        )
    return basic.make_basic_scheme(options.realm, file, reactor, threads.close, max_running, cache)


def _make_token_scheme(options: Token, reactor: Any, cache: LoginCache) -> IScheme:
    with require_extra("auth", "auth.token"):
        from twisted_registry.auth import bearer  # noqa: PLC0415
    verifier = bearer.TokenVerifier(
        options.issuer,
        options.service,
        load_token_keys(options),
        reactor.seconds,
        frozenset(options.signingalgorithms),
    )
    path = options.autoredirectpath if options.autoredirect else ""
    return bearer.Bearer(options.realm, verifier, reactor, path, login_cache=cache)


def load_token_keys(options: Token) -> Keyring:
    """Read the keys that sign tokens, of ``auth.token``. Blocks.

    :raises StartError: if the extra is not installed, or a file cannot be used.
    """
    key = "auth.token"
    with require_extra("auth", key):
        from twisted_registry.auth import keys  # noqa: PLC0415
    trusted, jwks = None, None
    if options.rootcertbundle:
        content = _read_file(f"{key}.rootcertbundle", options.rootcertbundle)
        try:
            trusted = keys.TrustAnchors.from_pem(content)
        except ValueError:
            raise StartError(
                f"{key}.rootcertbundle: {Path(options.rootcertbundle).absolute()}: expected"
                " certificates in PEM"
            ) from None
    if options.jwks:
        jwks = _read_file(f"{key}.jwks", options.jwks)
    try:
        return keys.make_keyring(trusted, jwks)
    except keys.KeyUnusable as error:
        name = "jwks" if options.jwks else "rootcertbundle"
        file = Path(getattr(options, name)).absolute()
        raise StartError(f"{key}.{name}: {file}: {error}") from error


def _make_token_access(
    configuration: Configuration,
    policy: IPolicy,
    passwords: Basic | None,
    registry: Registry,
    reactor: Any,
    by_address: RateLimit | None,
    audit: LoginAudit | None,
    counts: Counts | None,
    wrap_agent: Callable[[IAgent], IAgent] | None,
) -> AccessControl:
    with require_extra("auth", "access.tokens"):
        from twisted_registry.app.tokens import make_tokens  # noqa: PLC0415
    return make_tokens(
        configuration, policy, passwords, registry, reactor, by_address, audit, counts, wrap_agent
    )


def _read_file(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        whole = str(Path(path).absolute())
        raise StartError(f"{key}: {whole}: {explain_read_error(error, whole)}") from error
