"""From a path and the environment to a checked configuration: the one way in.

What no single key can tell: keys that need or exclude each other, and what is not served.

A section that would change who may do what (``auth``, an upstream) refuses the start
while it is not served, because going on without it would be worse than not starting. One
that only watches or speeds up is warned of, and the registry goes on.

The configuration as it holds, said again in the shape of the file and without secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from attrs import frozen

from twisted_registry.config import storage as storage_module
from twisted_registry.config.access import check_access
from twisted_registry.config.document import DocumentError, Node, Report, parse, quote_value
from twisted_registry.config.environment import FILE_VARIABLE, apply_overrides
from twisted_registry.config.http import check_tls, parse_address
from twisted_registry.config.kinds import ReadContext
from twisted_registry.config.middleware import check_middleware
from twisted_registry.config.s3 import check_s3
from twisted_registry.config.schema import VERSION, Configuration
from twisted_registry.config.sections import Section
from twisted_registry.config.storage import check_retention

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_registry.config.environment import Override
    from twisted_registry.config.s3 import S3

#: Seconds: a push must have ended by then.
_MIN_GRACE_S = 3600.0
#: How many descriptors a memory cache holds, unless it is said.
_DEFAULT_DESCRIPTORS = 10_000


def named_drivers(root: Node) -> tuple[str, ...]:
    """The storage drivers that the tree names."""
    storage = _child(root, "storage")
    if storage is None or storage.value is None or isinstance(storage.value, list):
        return ()
    if not isinstance(storage.value, dict):
        return (storage.text.lower(),)
    return tuple(name for name in storage.value if name in storage_module.DRIVERS)


def migrate_loglevel(root: Node, report: Report) -> None:
    """Read the deprecated ``loglevel`` as ``log.level``, unless that is set too."""
    if not isinstance(root.value, dict) or _child(root, "loglevel") is None:
        return
    old = root.value.pop("loglevel")
    report.notices.append("loglevel: deprecated; log.level takes its place")
    log = root.value.setdefault("log", Node({}, "", old.origin))
    log.value = {} if log.value is None else log.value
    if isinstance(log.value, dict):
        log.value.setdefault("level", old)


def choose_driver(
    root: Node, before: tuple[str, ...], overrides: tuple[Override, ...], report: Report
) -> None:
    """Let a driver that only the environment names replace the file's.

    Whoever adds ``REGISTRY_STORAGE_...`` variables of another driver to an image whose file
    names the filesystem means the other driver.

    :param before: the drivers of the file alone.
    """
    now = named_drivers(root)
    storage = _child(root, "storage")
    if storage is None or not isinstance(storage.value, dict) or len(now) < 2:
        return
    places = {item.path[1] if len(item.path) > 1 else "" for item in overrides
              if item.path[:1] == ("storage",)}  # fmt: skip
    added = [name for name in now if name not in before or "" in places]
    touched = added + [name for name in now if name in places and name not in added]
    if len(before) > 1 or len(added) != 1 or len(touched) != 1:
        return
    for name in now:
        if name != added[0]:
            origin = storage.value.pop(name).origin
            report.warn(f"storage.{name}", f"replaced by {added[0]} of the environment", origin)


def check_configuration(configuration: Configuration, report: Report) -> None:
    """Report everything about the whole of *configuration* that is wrong or not served."""
    version = configuration.version
    if version != VERSION:
        said = (
            f"unsupported version {quote_value(version)}"
            if version
            else "unsupported version: none"
        )
        report.fault("version", said, f"version: {VERSION}")
    _check_storage(configuration, report)
    _check_maintenance(configuration, report)
    _check_http(configuration, report)
    if configuration.access is not None:
        check_access(configuration.access, configuration.auth, report)
    _refuse_unserved(configuration, report)
    _warn_unserved(configuration, report)
    _note_ineffective(configuration, report)


def _check_storage(configuration: Configuration, report: Report) -> None:
    storage = configuration.storage
    drivers = storage.drivers
    served = f"{', '.join(storage_module.SERVED_DRIVERS[:-2])} and s3"
    if not drivers:
        report.fault("storage", None, f"no storage driver is configured; known are {served}")
    elif len(drivers) > 1:
        report.fault("storage", f"got {', '.join(drivers)}", "exactly one driver")
    for name in drivers:
        if name not in storage_module.SERVED_DRIVERS:
            report.fault(f"storage.{name}", None, f"this driver is not served; {served} are")
    for name in ("s3", "s3aws"):
        options: S3 | None = getattr(storage, name)
        if options is not None:
            check_s3(name, options, report)
    cache = storage.cache.blobdescriptor or storage.cache.layerinfo
    if cache == "redis" and configuration.redis is None:
        report.fault("storage.cache.blobdescriptor", "got 'redis'", "a redis section beside it")
    elif cache not in {"", "inmemory", "redis"}:
        report.warn(
            "storage.cache.blobdescriptor", f"{quote_value(cache)} is unknown, no cache is used"
        )
    elif cache == "redis":
        _check_redis(configuration, report)


def _check_redis(configuration: Configuration, report: Report) -> None:
    redis = configuration.redis
    assert redis is not None
    if not redis.address:
        report.fault("redis.addr", "got none", "HOST:PORT")
    elif not redis.is_one_server:
        report.fault("redis.addrs", "got a cluster or sentinels", "one server: the cache of"
                     " descriptors knows no others")  # fmt: skip
    if configuration.storage.cache.blobdescriptorsize != _DEFAULT_DESCRIPTORS:
        report.warn("storage.cache.blobdescriptorsize", "has no effect with redis, which is to be"
                    " bounded by its own maxmemory and allkeys-lru")  # fmt: skip


def _check_maintenance(configuration: Configuration, report: Report) -> None:
    check_retention(configuration.storage.maintenance.retention, report)
    marks = configuration.storage.maintenance.watermark
    if marks.warn and marks.refuse and marks.warn > marks.refuse:
        report.fault("storage.maintenance.watermark.warn", f"got {100 * marks.warn:g}%",
                     f"at most refuse, {100 * marks.refuse:g}%")  # fmt: skip
    if (marks.warn or marks.refuse) and configuration.storage.filesystem is None:
        report.warn("storage.maintenance.watermark", "has no effect without storage.filesystem")
    grace = configuration.storage.maintenance.gc.grace
    if grace < _MIN_GRACE_S:
        report.warn("storage.maintenance.gc.grace", f"{grace:g} s is less than an hour: an image"
                    " whose push takes longer may have to be pushed again")  # fmt: skip


def _check_http(configuration: Configuration, report: Report) -> None:
    http = configuration.http
    place = "HOST:PORT with a port from 0 to 65535, or an endpoint of Twisted"
    if http.debug.addr:
        try:
            parse_address(http.debug.addr)
        except ValueError:
            report.fault("http.debug.addr", f"got {quote_value(http.debug.addr)}", place)
    try:
        _ = http.address
    except ValueError:
        hint = "; set http.net to unix to listen on a path" if http.addr.startswith("/") else ""
        report.fault("http.addr", f"got {quote_value(http.addr)}", f"{place}{hint}")
    else:
        _check_workers(configuration, report)
    check_tls(http, configuration.storage, report)


def _check_workers(configuration: Configuration, report: Report) -> None:
    http = configuration.http
    if http.workers == 1:
        return
    got = f"got {http.workers}"
    if "inmemory" in configuration.storage.drivers:
        report.fault("http.workers", got, "1 with storage.inmemory, which processes can not share")
    if not http.address.shareable:
        report.fault("http.workers", got, f"1 with http.addr {quote_value(http.addr)}; several share"
                     " HOST:PORT, tcp:, tcp6:, unix: and systemd: alone")  # fmt: skip


def _refuse_unserved(configuration: Configuration, report: Report) -> None:
    auth = configuration.auth
    if auth.token is not None and not (auth.token.rootcertbundle or auth.token.jwks):
        report.fault("auth.token", "got no keys", "rootcertbundle, jwks, or both")
    if len(auth.schemes) > 1:
        report.fault("auth", f"got {', '.join(auth.schemes)}", "one of them")
    if configuration.proxy.remoteurl:
        report.fault("proxy.remoteurl", None, "pulling through from another registry is not"
                     " served yet; remove the section")  # fmt: skip
    check_middleware(configuration.middleware, configuration.storage, report)


def _warn_unserved(configuration: Configuration, report: Report) -> None:
    later = "is not served yet, the registry goes on without it"
    if any(not endpoint.disabled for endpoint in configuration.notifications.endpoints):
        report.warn("notifications", later)
    if configuration.health is not None:
        report.warn("health", later)
    if any(not hook.disabled for hook in configuration.log.hooks):
        report.warn("log.hooks", later)


def _note_ineffective(configuration: Configuration, report: Report) -> None:
    if configuration.http.h2c is not None or configuration.http.http2 is not None:
        report.notices.append("http: HTTP/2 is not served; http2 and h2c have no effect")
    if configuration.validation.enabled is not None:
        report.notices.append("validation.enabled: deprecated, no effect; see validation.disabled")
    for name in ("reporting", "compatibility"):
        if getattr(configuration, name):
            report.notices.append(f"{name}: gone from Distribution, no effect")


def _child(node: Node, name: str) -> Node | None:
    return node.value.get(name) if isinstance(node.value, dict) else None


#: Where the images of Distribution 3 and 2.8 keep their file.
DEFAULT_PATHS: Final = (
    "/etc/distribution/config.yml",
    "/etc/docker/registry/config.yml",
)
#: What holds when there is no file at all: enough to try it, on this machine alone.
BUILT_IN: Final = """
version: 0.1
storage:
  filesystem:
    rootdirectory: ./registry-data
  delete:
    enabled: true
"""
SCHEMA: Final = Section("a mapping of sections", Configuration)


@frozen
class LoadedConfiguration:
    """A configuration, and what its reader should hear.

    :ivar configuration: checked, with every default filled in.
    :ivar source: a sentence: which file it came from, and why that one.
    :ivar warnings: what was ignored or is not served yet, a line each.
    :ivar notices: what is merely good to know, a line each.
    """

    configuration: Configuration
    source: str
    warnings: Sequence[str]
    notices: Sequence[str]


def load(
    path: str | None,
    environ: Mapping[str, str],
    *,
    default_paths: Sequence[str] = DEFAULT_PATHS,
) -> LoadedConfiguration:
    """Read the file at *path*, or else the one that the environment or a default names.

    :param path: the file that the command line names, or None.
    :param environ: the environment, for ``REGISTRY_CONFIGURATION_PATH`` and overrides.
    :param default_paths: where to look for a file that nobody named.
    :raise ConfigurationError: with every fault that was found.
    """
    report = Report()
    found, why = _find_file(path, environ, default_paths)
    if found is None:
        return _load(BUILT_IN, "built-in default", why, environ, report)
    text = _read_text(found, report)
    report.raise_faults()
    return _load(text, found, why, environ, report)


def load_text(
    text: str, environ: Mapping[str, str], origin: str = "configuration"
) -> LoadedConfiguration:
    """As :func:`load`, from text instead of a file; *origin* is what faults call it."""
    return _load(text, origin, f"{origin}, given as text", environ, Report())


def _find_file(
    path: str | None, environ: Mapping[str, str], default_paths: Sequence[str]
) -> tuple[str | None, str]:
    if path is not None:
        return path, f"{path}, named on the command line"
    named = environ.get(FILE_VARIABLE)
    if named:
        return named, f"{named}, named by {FILE_VARIABLE}"
    for candidate in default_paths:
        if Path(candidate).exists():
            return candidate, f"{candidate}, where Distribution keeps it"
    return None, "the built-in default, because no file was named or found"


def _read_text(path: str, report: Report) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        report.fault(path, None, "is not UTF-8 text")
    except OSError as error:
        report.fault(path, None, f"can not be read: {error.strerror}")
    except ValueError:
        report.fault(path, None, "is no path")
    return ""


def _load(
    text: str, origin: str, source: str, environ: Mapping[str, str], report: Report
) -> LoadedConfiguration:
    try:
        root = parse(text, origin, report)
    except DocumentError as error:
        report.fault(origin, None, f"is {error}")
        root = Node(None)
    report.raise_faults()
    if not isinstance(root.value, dict):
        report.fault(origin, None, "is not a mapping of sections; it must begin with version: 0.1")
    report.raise_faults()
    before = named_drivers(root)
    overrides = apply_overrides(root, SCHEMA, environ, report)
    choose_driver(root, before, overrides, report)
    migrate_loglevel(root, report)
    configuration: Configuration = SCHEMA.read(root, ReadContext(report))
    check_configuration(configuration, report)
    report.raise_faults()
    return LoadedConfiguration(configuration, source, tuple(report.warnings), tuple(report.notices))


def masked_data(configuration: Configuration) -> dict[str, Any]:
    """*configuration* as plain data, defaults included, secrets as ``******``."""
    said: dict[str, Any] = SCHEMA.dump(configuration)
    return said


def effective_yaml(configuration: Configuration) -> str:
    """The same as YAML, ready to print; without secrets it loads to an equal configuration."""
    return yaml.safe_dump(
        masked_data(configuration), sort_keys=False, allow_unicode=True, default_flow_style=False
    )
