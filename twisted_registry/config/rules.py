"""What no single key can tell: keys that need or exclude each other, and what is not served.

A section that would change who may do what (``auth``, an upstream) refuses the start
while it is not served, because going on without it would be worse than not starting. One
that only watches or speeds up is warned of, and the registry goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config import storing
from twisted_registry.config.access import check_access
from twisted_registry.config.address import parse_address
from twisted_registry.config.document import Node
from twisted_registry.config.faults import Report, quote_value
from twisted_registry.config.middleware import check_middleware
from twisted_registry.config.objects import check_s3
from twisted_registry.config.retaining import check_retention
from twisted_registry.config.schema import VERSION
from twisted_registry.config.tls import check_tls

if TYPE_CHECKING:
    from twisted_registry.config.environment import Override
    from twisted_registry.config.objects import S3
    from twisted_registry.config.schema import Configuration

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
    return tuple(name for name in storage.value if name in storing.DRIVERS)


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
        said = f"unsupported version {quote_value(version)}" if version else "unsupported version: none"
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
    served = f"{', '.join(storing.SERVED_DRIVERS[:-2])} and s3"
    if not drivers:
        report.fault("storage", None, f"no storage driver is configured; known are {served}")
    elif len(drivers) > 1:
        report.fault("storage", f"got {', '.join(drivers)}", "exactly one driver")
    for name in drivers:
        if name not in storing.SERVED_DRIVERS:
            report.fault(f"storage.{name}", None, f"this driver is not served; {served} are")
    for name in ("s3", "s3aws"):
        options: S3 | None = getattr(storage, name)
        if options is not None:
            check_s3(name, options, report)
    cache = storage.cache.blobdescriptor or storage.cache.layerinfo
    if cache == "redis" and configuration.redis is None:
        report.fault("storage.cache.blobdescriptor", "got 'redis'", "a redis section beside it")
    elif cache not in {"", "inmemory", "redis"}:
        report.warn("storage.cache.blobdescriptor", f"{quote_value(cache)} is unknown, no cache is used")
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
