"""Load a configuration: read the file, apply the environment, check it, and print it.

:func:`load` is the entry point. Checks that concern several keys are here, and in the modules of
the sections that they concern.

A section that is not served (``proxy``, ``middleware.registry``) is a fault: it changes who may do
what, or what is stored, so running without it would be worse than not starting.
"""

from __future__ import annotations

import os
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from twisted_registry.config.access import check_access
from twisted_registry.config.document import (
    ConfigurationError,
    DocumentError,
    Fault,
    Node,
    Report,
    make_tree,
    quote_value,
)
from twisted_registry.config.environment import FILE_VARIABLE, PREFIX, apply_overrides
from twisted_registry.config.http import DEFAULT_ADDR, parse_address
from twisted_registry.config.kinds import ReadContext
from twisted_registry.config.log import check_log
from twisted_registry.config.middleware import check_middleware
from twisted_registry.config.notifications import check_notifications
from twisted_registry.config.s3 import check_s3
from twisted_registry.config.schema import VERSION, Configuration
from twisted_registry.config.sections import Section
from twisted_registry.config.storage import (
    DEFAULT_DESCRIPTORS,
    DRIVERS,
    SERVED_DRIVERS,
    check_redis,
    check_retention,
)
from twisted_registry.config.tls import check_empty_tls, check_tls
from twisted_registry.config.unserved import uses_database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_registry.config.http import Address
    from twisted_registry.config.s3 import S3

#: The file of our service, and of the images of Distribution 3 and 2.8.
DEFAULT_PATHS: Final = (
    "/etc/twisted-registry/config.yml",
    "/etc/distribution/config.yml",
    "/etc/docker/registry/config.yml",
)
#: The configuration if there is no file: enough to try the registry on one machine.
BUILT_IN: Final = """
version: 0.1
storage:
  filesystem:
    rootdirectory: ./registry-data
  delete:
    enabled: true
"""
SCHEMA: Final = Section(Configuration, "a mapping of sections")

#: Far above any configuration; a device or a log that is named by mistake may be endless.
_MAX_FILE_BYTES: Final = 4 * 2**20
#: A push must be complete within the grace period of the garbage collection.
_MIN_GRACE_S: Final = 3600.0


@frozen
class LoadedConfiguration:
    """A configuration, and what to log about it.

    :ivar configuration: checked, with every default filled in.
    :ivar origin: the path of the file it was read from, or another name, as faults have it.
    :ivar source: the same, and why that one.
    :ivar warnings: keys that are ignored or not served, one line each.
    :ivar notices: further remarks, one line each.
    :ivar path: the file, to read it again; None if there was none.
    """

    configuration: Configuration
    origin: str
    source: str
    warnings: Sequence[str]
    notices: Sequence[str]
    path: str | None = None


def load(
    path: str | None,
    environ: Mapping[str, str],
    *,
    default_paths: Sequence[str] = DEFAULT_PATHS,
) -> LoadedConfiguration:
    """Load the file at *path*, else the one that the environment names, else a default.

    :param path: the file named on the command line, or None.
    :param environ: the environment, for ``REGISTRY_CONFIGURATION_PATH`` and overrides.
    :param default_paths: where to look for a file if none is named.
    :raise ConfigurationError: with every fault found.
    """
    found, source = _find_file(path, environ, default_paths)
    text = BUILT_IN if found is None else _read_text(found)
    return evolve(_load_text(text, found or "built-in default", source, environ), path=found)


def load_text(
    text: str, environ: Mapping[str, str], origin: str = "configuration"
) -> LoadedConfiguration:
    """Load a configuration from *text*; *origin* is its name in faults.

    :raise ConfigurationError: with every fault found.
    """
    return _load_text(text, origin, f"{origin}, given as text", environ)


def load_mapping(
    data: Mapping[str, Any], environ: Mapping[str, str], origin: str = "configuration"
) -> LoadedConfiguration:
    """Load a configuration from a mapping of sections; *origin* is its name in faults.

    :param data: as for JSON. What JSON does not have, such as a path, is taken as its text.
    :raise ConfigurationError: with every fault found.
    """
    source = f"{origin}, given as a mapping"
    return _load(make_tree(data, origin), Report(), origin, source, environ)


def as_loaded(
    configuration: LoadedConfiguration | Mapping[str, Any] | str,
) -> LoadedConfiguration:
    """Load a configuration that a program passes as a mapping or as YAML.

    :param configuration: one that is loaded already is returned as it is.
    :raise ConfigurationError: with every fault found.
    """
    if isinstance(configuration, LoadedConfiguration):
        return configuration
    if isinstance(configuration, str):
        return load_text(configuration, {})
    return load_mapping(configuration, {})


def masked_data(configuration: Configuration) -> dict[str, Any]:
    """Return *configuration* as plain data, with defaults, and with secrets as ``******``."""
    data: dict[str, Any] = SCHEMA.dump(configuration)
    return data


def effective_yaml(configuration: Configuration) -> str:
    """Return :func:`masked_data` as YAML. Without secrets it loads to an equal configuration."""
    import yaml  # noqa: PLC0415 - for YAML only

    return yaml.safe_dump(
        masked_data(configuration), sort_keys=False, allow_unicode=True, default_flow_style=False
    )


def _find_file(
    path: str | None, environ: Mapping[str, str], default_paths: Sequence[str]
) -> tuple[str | None, str]:
    if path is not None:
        whole = str(Path(path).absolute())
        return whole, f"{whole}, named on the command line"
    variable = environ.get(FILE_VARIABLE)
    if variable:
        whole = str(Path(variable).absolute())
        return whole, f"{whole}, named by {FILE_VARIABLE}"
    for candidate in default_paths:
        if _exists(candidate):
            return candidate, f"{candidate}, a default path"
    return None, "the built-in default, because no file was named or found"


def _exists(path: str) -> bool:
    """Return whether there is a file, also where this user may not look for it."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # reading it fails, too, and tells the reason
    return True


def _read_text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) <= _MAX_FILE_BYTES:
            return content.decode("utf-8-sig")
        reason = f"is larger than {_MAX_FILE_BYTES // 2**20} MiB, so that it is no configuration"
    except UnicodeDecodeError:
        reason = "is not UTF-8 text"
    except OSError as error:
        reason = f"cannot be read: {explain_read_error(error, path)}"
    except ValueError:
        reason = "is not a path"
    raise ConfigurationError((Fault(path, None, reason),))


def explain_read_error(error: OSError, path: str) -> str:
    """Return why a file cannot be read; without permissions, also the commands that give them."""
    if not isinstance(error, PermissionError):
        return str(error.strerror)
    folders = reversed(Path(path).absolute().parents)
    closed = next((str(each) for each in folders if not os.access(each, os.X_OK)), None)
    target, mode = (path, "0640") if closed is None else (closed, "0750")
    try:
        user, group = getpwuid(os.geteuid()).pw_name, getgrgid(os.getegid()).gr_name
    except KeyError:  # a container may run with any numbers
        user, group = str(os.geteuid()), str(os.getegid())
    command = f"chgrp {group} {quote(target)} && chmod {mode} {quote(target)}"
    return f"{error.strerror} for the user {user}; to permit it, as root: {command}"


def _load_text(
    text: str, origin: str, source: str, environ: Mapping[str, str]
) -> LoadedConfiguration:
    from twisted_registry.config.parsing import parse  # noqa: PLC0415 - PyYAML, for YAML only

    report = Report()
    try:
        root = parse(text, origin, report)
    except DocumentError as error:
        report.add_fault(origin, None, f"is {error}")
        root = Node(None)
    report.raise_faults()
    return _load(root, report, origin, source, environ)


def _load(
    root: Node, report: Report, origin: str, source: str, environ: Mapping[str, str]
) -> LoadedConfiguration:
    if not isinstance(root.value, dict):
        report.add_fault(
            origin, None, "is not a mapping of sections; it must begin with version: 0.1"
        )
    report.raise_faults()
    file_drivers = _named_drivers(root)
    overrides = apply_overrides(root, SCHEMA, environ, report)
    _replace_driver(root, file_drivers, overrides, report)
    _migrate_loglevel(root, report)
    configuration: Configuration = SCHEMA.read_node(root, ReadContext(report))
    count = len(report.faults)
    _check(configuration, report)
    check_empty_tls(configuration.http, _names_in_file(root, "http", "tls"), report)
    report.faults[count:] = [
        fault if fault.origin else evolve(fault, origin=root.find_origin(fault.path) or origin)
        for fault in report.faults[count:]
    ]
    report.raise_faults()
    return LoadedConfiguration(
        configuration, origin, source, tuple(report.warnings), tuple(report.notices)
    )


def _named_drivers(root: Node) -> tuple[str, ...]:
    """Return the storage drivers that the tree names."""
    storage = _child(root, "storage")
    if storage is None or storage.value is None or isinstance(storage.value, list):
        return ()
    if not isinstance(storage.value, dict):
        return (storage.text.lower(),)
    return tuple(name for name in storage.value if name in DRIVERS)


def _replace_driver(
    root: Node, file_drivers: tuple[str, ...], overrides: list[tuple[str, ...]], report: Report
) -> None:
    """Remove the driver of the file if the environment names another one.

    An image whose file names the filesystem can so be given another driver by
    ``REGISTRY_STORAGE_...`` variables alone. With more than one candidate nothing is removed: the
    check reports them.

    :param file_drivers: the drivers of the file without the environment.
    :param overrides: the keys that the environment has set.
    """
    drivers = _named_drivers(root)
    storage = _child(root, "storage")
    if storage is None or not isinstance(storage.value, dict) or len(drivers) < 2:
        return
    overridden = {
        path[1] if len(path) > 1 else "" for path in overrides if path[:1] == ("storage",)
    }
    added = [name for name in drivers if name not in file_drivers or "" in overridden]
    touched = added + [name for name in drivers if name in overridden and name not in added]
    if len(file_drivers) > 1 or len(added) != 1 or len(touched) != 1:
        return
    for name in drivers:
        if name != added[0]:
            origin = storage.value.pop(name).origin
            report.add_warning(
                f"storage.{name}", f"replaced by {added[0]} of the environment", origin
            )


def _migrate_loglevel(root: Node, report: Report) -> None:
    """Read the deprecated ``loglevel`` as ``log.level``, unless that is set too."""
    if not isinstance(root.value, dict) or _child(root, "loglevel") is None:
        return
    old = root.value.pop("loglevel")
    report.notices.append("loglevel: deprecated, replaced by log.level")
    log = root.value.setdefault("log", Node({}, "", old.origin))
    log.value = {} if log.value is None else log.value
    if isinstance(log.value, dict):
        log.value.setdefault("level", old)


def _child(node: Node, name: str) -> Node | None:
    return node.value.get(name) if isinstance(node.value, dict) else None


def _names_in_file(root: Node, *path: str) -> tuple[str, ...] | None:
    """Return the keys of a section, with or without values, that no variable has set.

    :return: None if the section is absent.
    """
    node: Node | None = root
    for name in path:
        node = None if node is None else _child(node, name)
    if node is None:
        return None
    children = node.value if isinstance(node.value, dict) else {}
    return tuple(name for name, child in children.items() if not child.origin.startswith(PREFIX))


def _check(configuration: Configuration, report: Report) -> None:
    """Report everything that is wrong with, or not served of, *configuration* as a whole."""
    version = configuration.version
    if version != VERSION:
        got = f"got {quote_value(version)}" if version else "not set"
        report.add_fault("version", got, VERSION)
    _check_storage(configuration, report)
    _check_maintenance(configuration, report)
    _check_http(configuration, report)
    _check_auth(configuration, report)
    check_middleware(configuration.middleware, configuration.storage, report)
    check_notifications(configuration.notifications, configuration.storage, report)
    check_log(configuration.log, report)
    _report_unserved(configuration, report)
    _note_ineffective(configuration, report)


def _check_storage(configuration: Configuration, report: Report) -> None:
    storage = configuration.storage
    drivers = storage.drivers
    served = f"{', '.join(SERVED_DRIVERS[:-2])} or s3"
    if not drivers:
        report.add_fault("storage", "got no driver", served)
    elif len(drivers) > 1:
        report.add_fault("storage", f"got {', '.join(drivers)}", "exactly one driver")
    for name in drivers:
        if name not in SERVED_DRIVERS:
            report.add_fault(f"storage.{name}", "this driver is not served", served)
    for name in ("s3", "s3aws"):
        options: S3 | None = getattr(storage, name)
        if options is not None:
            check_s3(name, options, report)
    cache = storage.cache.blobdescriptor or storage.cache.layerinfo
    if cache not in {"", "inmemory", "redis"}:
        report.add_warning(
            "storage.cache.blobdescriptor",
            f"got {quote_value(cache)}, expected inmemory or redis; no cache is used",
        )
    elif cache == "redis":
        check_redis(configuration.redis, report)
        if storage.cache.blobdescriptorsize != DEFAULT_DESCRIPTORS:
            report.add_warning(
                "storage.cache.blobdescriptorsize",
                "has no effect with redis; set maxmemory and allkeys-lru on the Redis server",
            )


def _check_maintenance(configuration: Configuration, report: Report) -> None:
    maintenance = configuration.storage.maintenance
    check_retention(maintenance.retention, report)
    marks = maintenance.watermark
    if marks.warn and marks.refuse and marks.warn > marks.refuse:
        report.add_fault(
            "storage.maintenance.watermark.warn",
            f"got {100 * marks.warn:g}%",
            f"at most the value of refuse, {100 * marks.refuse:g}%",
        )
    if (marks.warn or marks.refuse) and configuration.storage.filesystem is None:
        report.add_warning(
            "storage.maintenance.watermark", "has no effect without storage.filesystem"
        )
    if maintenance.gc.grace < _MIN_GRACE_S:
        report.add_warning(
            "storage.maintenance.gc.grace",
            f"{maintenance.gc.grace:g} s is less than an hour; a push that takes longer may have to"
            " be repeated",
        )


def _check_http(configuration: Configuration, report: Report) -> None:
    http = configuration.http
    expected = "HOST:PORT with a port from 0 to 65535, or a Twisted endpoint string"
    debug: Address | None = None
    if http.debug.addr:
        try:
            debug = parse_address(http.debug.addr)
        except ValueError:
            report.add_fault("http.debug.addr", f"got {quote_value(http.debug.addr)}", expected)
    try:
        address = http.address
    except ValueError:
        hint = "; set http.net to unix to listen on a path" if http.addr.startswith("/") else ""
        report.add_fault("http.addr", f"got {quote_value(http.addr)}", f"{expected}{hint}")
    else:
        _check_workers(configuration, report)
        if debug is not None and debug.overlaps(address):
            got = f"got {quote_value(http.debug.addr)}"
            report.add_fault("http.debug.addr", got, "another port than that of http.addr")
        if http.net == "unix" and http.addr == DEFAULT_ADDR:
            report.add_fault("http.addr", "not set", "the path of a socket, as http.net is unix")
    check_tls(http, configuration.storage, report)


def _check_workers(configuration: Configuration, report: Report) -> None:
    http = configuration.http
    if http.workers == 1:
        return
    got = f"got {http.workers}"
    if "inmemory" in configuration.storage.drivers:
        report.add_fault(
            "http.workers", got, "1 with storage.inmemory, which processes cannot share"
        )
    if not http.address.shareable:
        report.add_fault(
            "http.workers",
            got,
            f"1 with http.addr {quote_value(http.addr)}; several processes can share only"
            " HOST:PORT, tcp:, tcp6:, unix: and systemd:",
        )


def _check_auth(configuration: Configuration, report: Report) -> None:
    auth = configuration.auth
    if auth.token is not None and not (auth.token.rootcertbundle or auth.token.jwks):
        report.add_fault("auth.token", "got no keys", "rootcertbundle, jwks, or both")
    if len(auth.schemes) > 1:
        report.add_fault("auth", f"got {', '.join(auth.schemes)}", "one of them")
    if configuration.access is not None:
        of_certificates = {
            group for user in configuration.http.tls.clientusers for group in user.groups
        }
        check_access(configuration.access, auth, of_certificates, report)


def _report_unserved(configuration: Configuration, report: Report) -> None:
    if configuration.proxy.remoteurl:
        report.add_fault(
            "proxy.remoteurl",
            None,
            "a pull-through cache is not served yet; remove the proxy section",
        )
    if uses_database(configuration.database):
        report.add_fault(
            "database.enabled",
            None,
            "the tags of this store are in GitLab's database, which is not served; keep GitLab's"
            " registry, or copy the images with a client",
        )


def _note_ineffective(configuration: Configuration, report: Report) -> None:
    if configuration.http.h2c is not None or configuration.http.http2 is not None:
        report.notices.append("http: HTTP/2 is not served; http2 and h2c have no effect")
    if configuration.validation.enabled is not None:
        report.notices.append("validation.enabled: deprecated, no effect; use validation.disabled")
    for name in ("reporting", "compatibility"):
        if getattr(configuration, name):
            report.notices.append(f"{name}: removed from Distribution, no effect")
