"""The schemes of ``auth`` joined to constructors: a part of service.py.

A scheme is imported if it is configured: one brings bcrypt along, another cryptography.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twisted_registry.auth.htpasswd import HtpasswdInvalid
from twisted_registry.auth.silly import Silly
from twisted_registry.listener import StartError
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from twisted_registry.auth.schemes import IScheme
    from twisted_registry.config.auth import Auth, Htpasswd

log = Logger()


def make_scheme(auth: Auth, reactor: Any) -> IScheme:
    """Answer the scheme that ``auth`` describes. Reads files, so this is for the start.

    :raises StartError: if it can not be made; the text names the key.
    """
    if auth.htpasswd is not None:
        return _htpasswd(auth.htpasswd, reactor)
    assert auth.silly is not None
    silly: IScheme = Silly(auth.silly.realm, auth.silly.service)
    return silly


def _htpasswd(options: Htpasswd, reactor: Any) -> IScheme:
    key = "auth.htpasswd"
    try:
        from twisted_registry.auth import basic, passwordfile  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise without_extra(key, error) from error
    # Passwords may take half of the processors: the others are for those who are known already.
    threads = Threads(reactor, max(1, (os.cpu_count() or 1) // 2), "passwords")
    file = passwordfile.PasswordFile(options.path, threads.run, reactor)
    try:
        password = passwordfile.make_missing(options.path)
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
    scheme: IScheme = basic.basic_login(options.realm, file, reactor, threads.close)
    return scheme


def without_extra(key: str, error: ModuleNotFoundError) -> StartError:
    """What to say when a library is missing that ``key`` needs.

    :raises ModuleNotFoundError: ``error``, if it is one of ours that is missing.
    """
    if error.name is None or error.name.startswith("twisted_registry"):
        raise error
    return StartError(f"{key}: needs the package {error.name}: install twisted-registry[auth]")
