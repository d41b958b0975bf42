"""Checks of what would end the start of a registry: extras, plugins, files and folders.

They change nothing, need no reactor, and block. Modules that few configurations need are imported
late: ``twisted-registry check`` imports no Twisted for a configuration that needs none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_registry.app.tracing import check_tracing
from twisted_registry.auth.htpasswd import HtpasswdInvalid, parse_htpasswd
from twisted_registry.doctor.files import check_appendable, check_file, check_folder, check_socket
from twisted_registry.doctor.findings import Finding
from twisted_registry.frame.errors import StartError, install_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twisted_registry.config.schema import Configuration


def check_start(configuration: Configuration, environ: Mapping[str, str]) -> list[Finding]:
    """Find what would end the start of a registry with this configuration.

    :param environ: environment variables, which may ask for traces.
    """
    found = [*_check_extras(configuration), *_check_tracing(environ)]
    if found:
        # Files that a missing package reads cannot be looked at.
        return found
    found += _check_plugins(configuration)
    found += _check_endpoints(configuration)
    found += _check_access(configuration)
    found += _check_certificates(configuration)
    found += _check_redis_files(configuration)
    for index, entry in enumerate(configuration.middleware.storage):
        if entry.options.privatekey and not entry.disabled:
            key = f"middleware.storage[{index}].options.privatekey"
            found += check_file(key, _absolute(entry.options.privatekey), is_secret=True)
    found += _check_written_paths(configuration)
    return found


def written_folders(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the folders that a registry writes to: their keys, and absolute paths."""
    storage, tls = configuration.storage, configuration.http.tls
    if storage.filesystem is not None and not storage.maintenance.readonly.enabled:
        root = _absolute(storage.filesystem.rootdirectory)
        yield "storage.filesystem.rootdirectory", root
    if tls.auto.hosts and tls.auto.folder:
        yield "http.tls.auto.folder", _absolute(tls.auto.folder)
    if tls.letsencrypt.cachefile:
        yield "http.tls.letsencrypt.cachefile", _absolute(tls.letsencrypt.cachefile)
    if configuration.notifications.enabled_endpoints and configuration.notifications.queue.path:
        queue = Path(_absolute(configuration.notifications.queue.path))
        yield "notifications.queue.path", str(queue.parent)


def audit_path(configuration: Configuration) -> str:
    """Return the absolute path of ``log.audit``; empty if that is no file."""
    path = configuration.log.audit
    return "" if path in {"", "stdout"} else _absolute(path)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _needed_packages(configuration: Configuration) -> Iterator[tuple[str, str, str]]:
    """Yield keys of the configuration, the extra that each needs, and a module of it."""
    debug = configuration.http.debug
    if debug.addr and debug.prometheus.enabled:
        yield "http.debug.prometheus.enabled", "metrics", "prometheus_client"
    if configuration.auth.token is not None:
        yield "auth.token", "auth", "jwt"
    if configuration.tokens is not None:
        yield "access.tokens", "auth", "jwt"
    if configuration.http.tls.letsencrypt.cachefile:
        yield "http.tls.letsencrypt", "acme", "acme"
    if configuration.storage.cache.kind == "redis":
        yield "storage.cache.blobdescriptor", "redis", "txredisapi"


def _check_extras(configuration: Configuration) -> Iterator[Finding]:
    for key, extra, module in _needed_packages(configuration):
        if find_spec(module) is None:
            problem = f"needs the extra {extra}, which is not installed"
            yield Finding(key, problem, f"import {module}", install_command(extra))


def _check_tracing(environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        check_tracing(environ)
    except StartError as error:
        yield _from_start_error(error, "environment variables", "correct it, or unset it")


def _check_plugins(configuration: Configuration) -> Iterator[Finding]:
    if not (configuration.storage.plugin or configuration.auth.plugin or configuration.listeners):
        return
    from twisted_registry.app.plugins import require_plugins  # noqa: PLC0415 - rare

    try:
        require_plugins(configuration)
    except StartError as error:
        yield _from_start_error(error, "entry points", "install the package that has it")


def _check_endpoints(configuration: Configuration) -> Iterator[Finding]:
    """Find addresses with a type of endpoint that neither Twisted nor a plugin of it has."""
    for key, address in configuration.http.listening_addresses().items():
        if address.path:
            yield from check_socket(key, address.path)
        kind = address.endpoint.partition(":")[0]
        if address.shareable or kind == "ssl":
            continue
        from twisted.internet.interfaces import (  # noqa: PLC0415 - rare
            IStreamServerEndpointStringParser,
        )
        from twisted.plugin import getPlugins  # noqa: PLC0415 - rare

        known = {each.prefix for each in getPlugins(IStreamServerEndpointStringParser)}
        if kind not in known:
            problem = f"{address.text} begins with {kind!r}, which is no endpoint of Twisted"
            advice = "write HOST:PORT, or install the package of the endpoint"
            yield Finding(key, problem, "plugins of Twisted", advice)


def _check_access(configuration: Configuration) -> Iterator[Finding]:
    auth, tokens = configuration.auth, configuration.tokens
    if auth.htpasswd is not None:
        path = _absolute(auth.htpasswd.path)
        found = check_file(
            "auth.htpasswd.path", path, parse=_parse_passwords, is_secret=True, is_created=True
        )
        yield from found
        if Path(path).is_file() and all(each.is_warning for each in found):
            yield from _check_users("auth.htpasswd.path", path)
    if auth.token is not None:
        found = [
            each
            for name in ("rootcertbundle", "jwks")
            if (path := getattr(auth.token, name))
            for each in check_file(f"auth.token.{name}", _absolute(path))
        ]
        if not found:
            from twisted_registry.app.access import load_token_keys  # noqa: PLC0415 - an extra

            try:
                load_token_keys(auth.token)
            except StartError as error:
                found = [_from_start_error(error, "content of the file", "correct it")]
        yield from found
    if tokens is not None and tokens.keyfile and not tokens.signing_key:
        from twisted_registry.tokens.keys import read_key_file  # noqa: PLC0415 - an extra

        path = _absolute(tokens.keyfile)
        yield from check_file(
            "access.tokens.keyfile", path, parse=lambda _: read_key_file(path), is_secret=True
        )


def _check_users(key: str, path: str) -> Iterator[Finding]:
    """Find users of an htpasswd file who cannot log in."""
    users = parse_htpasswd(Path(path).read_bytes())
    if users.ignored:
        problem = f"{path}: ignored: {users.describe_ignored()}"
        advice = "set these passwords again: twisted-registry user passwd, or htpasswd -B"
        yield Finding(key, problem, "expected NAME:HASH with bcrypt", advice, is_warning=True)
    elif not users.hashes:
        problem = f"{path} has no users, so that nobody can log in"
        yield Finding(key, problem, "empty", "twisted-registry user add NAME", is_warning=True)


def _parse_passwords(content: bytes) -> None:
    try:
        parse_htpasswd(content)
    except HtpasswdInvalid as error:
        raise ValueError(str(error)) from error


def _check_certificates(configuration: Configuration) -> list[Finding]:
    section = configuration.http.tls
    if not section.is_enabled:
        return []
    found = [
        each
        for index, path in enumerate(section.clientcas)
        for each in check_file(f"http.tls.clientcas[{index}]", _absolute(path))
    ]
    if section.certificate:
        found += check_file("http.tls.certificate", _absolute(section.certificate))
        found += check_file("http.tls.key", _absolute(section.keyfile), is_secret=True)
    if any(not each.is_warning for each in found):
        return found
    # Cryptography and OpenSSL, for TLS only.
    from twisted_registry.app.tls import (  # noqa: PLC0415
        describe_certificate_error,
        make_certificate_source,
        make_tls_options,
    )
    from twisted_registry.tls.context import make_context, missing_ciphers  # noqa: PLC0415
    from twisted_registry.tls.interfaces import CertificateError  # noqa: PLC0415
    from twisted_registry.tls.sources import CertificateFiles  # noqa: PLC0415

    source = make_certificate_source(configuration, lambda: datetime.now(UTC).timestamp())
    options = make_tls_options(configuration, source)
    if missing := missing_ciphers(options.ciphers):
        problem = f"this OpenSSL has no {', '.join(missing)} (its name for it)"
        found.append(Finding("http.tls.ciphersuites", problem, "OpenSSL", "name others"))
    elif isinstance(source, CertificateFiles):
        try:
            make_context(source.load(), options)
        except CertificateError as error:
            key, _, problem = describe_certificate_error(error, section).partition(": ")
            found.append(Finding(key, problem, "content of the files", "correct them"))
    return found


def _check_redis_files(configuration: Configuration) -> Iterator[Finding]:
    redis = configuration.redis
    if redis is None or configuration.storage.cache.kind != "redis":
        return
    paths = {
        "certificate": redis.tls.certificate,
        "key": redis.tls.keyfile,
        **{f"rootcas[{index}]": path for index, path in enumerate(redis.tls.rootcas)},
    }
    for name, path in paths.items():
        if path:
            yield from check_file(f"redis.tls.{name}", _absolute(path), is_secret=name == "key")


def _check_written_paths(configuration: Configuration) -> Iterator[Finding]:
    filesystem = configuration.storage.filesystem
    for key, path in written_folders(configuration):
        yield from check_folder(key, path)
    if filesystem is not None and configuration.storage.maintenance.readonly.enabled:
        root = _absolute(filesystem.rootdirectory)
        yield from check_folder("storage.filesystem.rootdirectory", root, is_written=False)
    if audit_path(configuration):
        yield from check_appendable("log.audit", audit_path(configuration))


def _from_start_error(error: StartError, evidence: str, advice: str) -> Finding:
    key, _, problem = str(error).partition(": ")
    return Finding(key, problem, evidence, advice)
