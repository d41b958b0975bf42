"""Make the access controller of a configuration: ``auth``, ``access`` and ``http.tls.clientusers``.

Schemes are imported only if they are configured: they need the extra ``auth`` (bcrypt, PyJWT).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import field, frozen
from twisted.logger import Logger

from twisted_registry.app.errors import StartError
from twisted_registry.auth.access import (
    AnonymousOnly,
    AuthenticatedPolicy,
    SchemeAccess,
    TokenScopePolicy,
)
from twisted_registry.auth.certificates import CertificateAccess, CertificateUserRule
from twisted_registry.auth.htpasswd import HtpasswdInvalid
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right
from twisted_registry.auth.silly import Silly
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal

    from twisted.web.resource import Resource

    from twisted_registry.auth.access import IScheme
    from twisted_registry.auth.basic import Basic
    from twisted_registry.auth.interfaces import (
        IAccessController,
        IClosableAccessController,
        IPolicy,
    )
    from twisted_registry.config.access import AccessRules, Auth, Htpasswd, Token
    from twisted_registry.config.http import Tls
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.registry import Registry

log = Logger()

#: The pattern of rules that hold for all repositories.
_ALL_REPOSITORIES = ("**",)


def make_access_policy(access: AccessRules | None, otherwise: IPolicy) -> IPolicy:
    """The policy that the section describes.

    :param otherwise: the policy where there is no such section.
    """
    if access is None:
        return otherwise
    return AccessPolicy(tuple(_rules(access)), _members(access.groups))


def _rules(access: AccessRules) -> Iterator[AccessRule]:
    if access.anonymous:
        yield AccessRule(Right.make(_ALL_REPOSITORIES, access.anonymous), anonymous=True)
    if access.authenticated:
        yield AccessRule(Right.make(_ALL_REPOSITORIES, access.authenticated), authenticated=True)
    for rule in access.rules:
        yield AccessRule(
            Right.make(rule.repositories, rule.allow),
            frozenset(rule.users),
            frozenset(rule.groups),
            rule.authenticated,
            rule.anonymous,
        )


def _members(groups: Mapping[str, tuple[str, ...]]) -> Mapping[str, frozenset[str]]:
    return {name: frozenset(users) for name, users in groups.items()}


def make_scheme(auth: Auth, reactor: Any) -> IScheme:
    """Answer the scheme that ``auth`` describes. Reads files, so this is for the start.

    :raises StartError: if it can not be made; the text names the key.
    """
    if auth.htpasswd is not None:
        return _htpasswd(auth.htpasswd, reactor)
    if auth.token is not None:
        return _token(auth.token, reactor)
    assert auth.silly is not None
    silly: IScheme = Silly(auth.silly.realm, auth.silly.service)
    return silly


def _htpasswd(options: Htpasswd, reactor: Any) -> IScheme:
    key = "auth.htpasswd"
    try:
        from twisted_registry.auth import basic, password_file  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise missing_extra_error(key, error) from error
    # Passwords may take half of the processors: the others are for those who are known already.
    threads = Threads(reactor, max(1, (os.cpu_count() or 1) // 2), "passwords")
    file = password_file.PasswordFile(options.path, threads.run_blocking, reactor)
    try:
        password = password_file.create_if_missing(options.path)
        file.load()
    except OSError as error:
        raise StartError(f"{key}.path: {options.path}: {error.strerror}") from error
    except HtpasswdInvalid as error:
        raise StartError(f"{key}.path: {options.path}: {error}") from error
    if password is not None:
        log.warn(
            "{path} was missing, and is made with one user: {user}, password {password}",
            path=options.path,
            user=password_file.FIRST_USER,
            password=password,
        )
    scheme: IScheme = basic.make_basic_scheme(options.realm, file, reactor, threads.close)
    return scheme


def _token(options: Token, reactor: Any) -> IScheme:
    key = "auth.token"
    try:
        from twisted_registry.auth import bearer  # noqa: PLC0415 - an extra
        from twisted_registry.auth import keys as auth_keys  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise missing_extra_error(key, error) from error
    trusted, jwks = None, None
    if options.rootcertbundle:
        content = _content(f"{key}.rootcertbundle", options.rootcertbundle)
        try:
            trusted = auth_keys.TrustAnchors.from_pem(content)
        except ValueError:
            raise StartError(f"{key}.rootcertbundle: {options.rootcertbundle}: expected"
                             " certificates in PEM") from None  # fmt: skip
    if options.jwks:
        jwks = _content(f"{key}.jwks", options.jwks)
    try:
        keyring = auth_keys.make_keyring(trusted, jwks)
    except auth_keys.KeyUnusable as error:
        name = "jwks" if options.jwks else "rootcertbundle"
        raise StartError(f"{key}.{name}: {getattr(options, name)}: {error}") from error
    verifier = bearer.TokenVerifier(
        options.issuer,
        options.service,
        keyring,
        reactor.seconds,
        frozenset(options.signingalgorithms),
    )
    path = options.autoredirectpath if options.autoredirect else ""
    scheme: IScheme = bearer.Bearer(options.realm, verifier, reactor, path)
    return scheme


def _content(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"{key}: {path}: {error.strerror}") from error


def missing_extra_error(key: str, error: ModuleNotFoundError) -> StartError:
    """What to say when a library is missing that ``key`` needs."""
    return StartError(f"{key}: needs the package {error.name}: install twisted-registry[auth]")


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
    policy = make_access_policy(
        rules, AuthenticatedPolicy() if auth.token is None else TokenScopePolicy()
    )
    scheme = make_scheme(auth, reactor) if auth.is_enabled else None
    access: IClosableAccessController
    pages: Mapping[str, Resource] = {}
    tokens = configuration.tokens
    if tokens is not None:
        try:
            from twisted_registry.app.tokens import make_tokens  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise missing_extra_error("access.tokens", error) from error
        passwords = cast("Basic | None", scheme)
        made = make_tokens(configuration, tokens, policy, passwords, registry, reactor)
        access, pages = made.access, made.pages
    else:
        access = AnonymousOnly(policy) if scheme is None else SchemeAccess(scheme, policy)
    if tls.clientusers:
        access = make_certificate_access(tls, policy, access)
    return AccessControl(access, pages)


def make_certificate_access(
    tls: Tls, policy: IPolicy, otherwise: IAccessController
) -> IClosableAccessController:
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
