"""The schemes of ``auth`` joined to constructors: a part of service.py.

A scheme is imported if it is configured: one brings bcrypt along, another cryptography.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twisted_registry.auth.htpasswd import HtpasswdInvalid
from twisted_registry.auth.silly import Silly
from twisted_registry.listener import StartError
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from twisted_registry.auth.schemes import IScheme
    from twisted_registry.config.auth import Auth, Htpasswd, Token

log = Logger()


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
        from twisted_registry.auth import basic, passwordfile  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise missing_extra_error(key, error) from error
    # Passwords may take half of the processors: the others are for those who are known already.
    threads = Threads(reactor, max(1, (os.cpu_count() or 1) // 2), "passwords")
    file = passwordfile.PasswordFile(options.path, threads.run_blocking, reactor)
    try:
        password = passwordfile.create_if_missing(options.path)
        file.read()
    except OSError as error:
        raise StartError(f"{key}.path: {options.path}: {error.strerror}") from error
    except HtpasswdInvalid as error:
        raise StartError(f"{key}.path: {options.path}: {error}") from error
    if password is not None:
        log.warn(
            "{path} was missing, and is made with one user: {user}, password {password}",
            path=options.path,
            user=passwordfile.FIRST_USER,
            password=password,
        )
    scheme: IScheme = basic.make_basic_scheme(options.realm, file, reactor, threads.close)
    return scheme


def _token(options: Token, reactor: Any) -> IScheme:
    key = "auth.token"
    try:
        from twisted_registry.auth import (  # noqa: PLC0415 - an extra
            authorities,
            bearer,
            keyring,
            signingkeys,
            tokens,
        )
    except ModuleNotFoundError as error:
        raise missing_extra_error(key, error) from error
    trusted, jwks = None, None
    if options.rootcertbundle:
        content = _content(f"{key}.rootcertbundle", options.rootcertbundle)
        try:
            trusted = authorities.TrustAnchors.from_pem(content)
        except ValueError:
            raise StartError(f"{key}.rootcertbundle: {options.rootcertbundle}: expected"
                             " certificates in PEM") from None  # fmt: skip
    if options.jwks:
        jwks = _content(f"{key}.jwks", options.jwks)
    try:
        keys = keyring.make_keyring(trusted, jwks)
    except signingkeys.KeyUnusable as error:
        name = "jwks" if options.jwks else "rootcertbundle"
        raise StartError(f"{key}.{name}: {getattr(options, name)}: {error}") from error
    check = tokens.TokenVerifier(
        options.issuer, options.service, keys, reactor.seconds, frozenset(options.signingalgorithms)
    )
    path = options.autoredirectpath if options.autoredirect else ""
    scheme: IScheme = bearer.Bearer(options.realm, check, reactor, path)
    return scheme


def _content(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"{key}: {path}: {error.strerror}") from error


def missing_extra_error(key: str, error: ModuleNotFoundError) -> StartError:
    """What to say when a library is missing that ``key`` needs."""
    return StartError(f"{key}: needs the package {error.name}: install twisted-registry[auth]")
