"""The store of a configuration: driver, root directory, manifest policy and descriptor cache.

Serving processes and commands use it, so it imports nothing of the HTTP server.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from twisted.logger import Logger

from twisted_registry.frame.errors import StartError
from twisted_registry.oci.document import DocumentLimits
from twisted_registry.repository import layout
from twisted_registry.repository.cache import MemoryDescriptorCache, NullDescriptorCache
from twisted_registry.repository.clock import monotonic_clock
from twisted_registry.repository.policy import Policy, TagSelector
from twisted_registry.repository.quotas import Quota, Quotas
from twisted_registry.repository.recent_links import MAX_RECENT_LINKS, RecentLinks
from twisted_registry.storage.filesystem.permissions import restrict_permissions
from twisted_registry.storage.memory import MemoryDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.web.iweb import IAgent

    from twisted_registry.config.schema import Configuration
    from twisted_registry.oci.patterns import GlobSet
    from twisted_registry.repository.cache import IDescriptorCache
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: The errors of a user, or of a unit, that may not write somewhere.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def make_driver(
    configuration: Configuration,
    reactor: Any,
    environ: Mapping[str, str],
    max_cached_names: int | None = None,
    wrap_agent: Callable[[IAgent], IAgent] | None = None,
) -> IStorageDriver:
    """Make the driver that ``storage`` names.

    :param environ: environment variables, which may set the credentials of a bucket.
    :param max_cached_names: number of names in cached directory listings, see
        :class:`~twisted_registry.storage.filesystem.driver.FilesystemDriver`; None for its default.
    :param wrap_agent: returns the agent for requests to a bucket, given the one that makes
        connections.
    :raises StartError: if the options of a bucket are invalid, or a plugin is missing; the text
        names the key.
    """
    storage = configuration.storage
    if storage.bucket is not None:
        # Imported late: it imports an HTTP client and XML, for buckets only.
        from twisted_registry.app.s3 import make_s3_driver  # noqa: PLC0415

        name = s3_section_name(configuration)
        return make_s3_driver(name, storage.bucket, reactor, environ, wrap_agent)
    if storage.plugin is not None:
        from twisted_registry.app.plugins import make_plugin_driver  # noqa: PLC0415 - rare

        return make_plugin_driver(storage.plugin, reactor)
    if storage.filesystem is None:
        return MemoryDriver(reactor)
    from twisted_registry.storage.filesystem.driver import FilesystemDriver  # noqa: PLC0415
    from twisted_registry.storage.filesystem.folder_names import (  # noqa: PLC0415
        MAX_CACHED_NAMES,
    )

    root = Path(storage.filesystem.rootdirectory).absolute()
    return FilesystemDriver(
        str(root),
        reactor,
        storage.filesystem.maxthreads,
        max_cached_names=max_cached_names or MAX_CACHED_NAMES,
        reserve_bytes=storage.filesystem.reserve,
    )


def s3_section_name(configuration: Configuration) -> str:
    """Return the name of the section that configures the bucket: ``s3`` or ``s3aws``."""
    return "s3aws" if configuration.storage.s3 is None else "s3"


def describe_store(configuration: Configuration) -> str:
    """Return where the content is stored, for the log."""
    storage = configuration.storage
    filesystem, bucket = storage.filesystem, storage.bucket
    if bucket is not None:
        below = f" below {bucket.rootdirectory}" if bucket.rootdirectory else ""
        return f"objects in the bucket {bucket.bucket} of {bucket.description}{below}"
    if storage.plugin is not None:
        return f"the driver {storage.plugin.name} of another package"
    if filesystem is None:
        return "in memory: all content is lost when this process ends"
    return f"files below {Path(filesystem.rootdirectory).absolute()}"


def prepare_root_directory(configuration: Configuration, *, is_first: bool) -> None:
    """Make the directory of ``storage.filesystem``, if the content is stored there.

    :param is_first: whether this is the first process, which restricts the permissions of secrets.
    :raises StartError: if it cannot be read, or written to.
    """
    filesystem = configuration.storage.filesystem
    if filesystem is None:
        return
    is_read_only = configuration.storage.maintenance.readonly.enabled
    root = Path(filesystem.rootdirectory).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        next(root.iterdir(), None)
        if not (is_read_only or os.access(root, os.W_OK | os.X_OK)):
            raise PermissionError(errno.EACCES, "is not writable")
    except OSError as error:
        advice = "; as root, twisted-registry doctor says why" if error.errno in _REFUSED else ""
        raise StartError(
            f"storage.filesystem.rootdirectory: {root}: {error.strerror}{advice}"
        ) from error
    if is_first:
        _restrict_permissions(root)


def _restrict_permissions(root: Path) -> None:
    """Make secrets in a store readable for their owner only; log what was not."""
    for wide in restrict_permissions(str(root), layout.SECRETS, os.geteuid()):
        if wide.problem:
            log.warn(
                "secrets may be readable for other users: path={path} mode={mode:04o}, which"
                " cannot be changed: {problem}",
                path=wide.path, mode=wide.mode, problem=wide.problem,
            )  # fmt: skip
        else:
            log.warn(
                "secrets were readable for other users, permissions were restricted: path={path}"
                " mode={mode:04o}",
                path=wide.path, mode=wide.mode,
            )  # fmt: skip


def make_manifest_policy(configuration: Configuration) -> Policy:
    """Make the policy that decides which manifests are accepted, and which tags are immutable."""
    validation = configuration.validation
    indexes = validation.manifests.indexes
    limits = configuration.http.limits
    return Policy(
        check_references=not validation.disabled,
        url_allow=validation.manifests.urls.allow,
        url_deny=validation.manifests.urls.deny,
        platforms=cast("Literal['all', 'none', 'list']", indexes.platforms),
        platform_list=frozenset((item.architecture, item.os) for item in indexes.platformlist),
        classes=frozenset(configuration.policy.repository.classes),
        max_manifest_bytes=limits.manifestbytes,
        document_limits=DocumentLimits(limits.manifestdepth, limits.manifestvalues),
        immutable=immutable_tags(configuration),
    )


def immutable_tags(configuration: Configuration) -> tuple[TagSelector, ...]:
    """Return the selectors of ``storage.maintenance.retention.immutable``."""
    return tuple(
        TagSelector.parse(rule.repositories, rule.tags)
        for rule in configuration.storage.maintenance.retention.immutable
    )


def make_quotas(configuration: Configuration, driver: IStorageDriver) -> Quotas | None:
    """Make the quotas of ``access.quotas``; None without any.

    :param driver: of the store of the configuration.
    """
    quotas = parse_quotas(configuration)
    return Quotas(driver, quotas) if quotas else None


def quota_areas(configuration: Configuration) -> Mapping[str, GlobSet]:
    """Return the repositories that ``access.quotas`` limits, by the name of each area."""
    return {quota.area: quota.repositories for quota in parse_quotas(configuration)}


def parse_quotas(configuration: Configuration) -> list[Quota]:
    """Return the quotas of ``access.quotas``."""
    return [
        Quota.parse(quota.repositories, quota.bytes, quota.users, authenticated=quota.authenticated)
        for quota in configuration.quotas
    ]


def make_descriptor_cache(configuration: Configuration, reactor: Any) -> IDescriptorCache:
    """Make the cache that ``storage.cache.blobdescriptor`` names; without it one that is empty.

    :raises StartError: if its library is missing, or its files cannot be read.
    """
    cache = configuration.storage.cache
    if not cache.kind:
        return NullDescriptorCache()
    if cache.kind == "redis":
        from twisted_registry.app.redis import make_redis_cache  # noqa: PLC0415 - an extra

        return make_redis_cache(configuration, reactor)
    return MemoryDescriptorCache(cache.blobdescriptorsize)


def make_recent_links(configuration: Configuration, reactor: Any) -> RecentLinks | None:
    """Make what remembers links for ``storage.cache.blobdescriptor: inmemory``, otherwise None.

    Redis is for several registries over one store. They read each link, since another one may have
    removed it.
    """
    cache = configuration.storage.cache
    if cache.kind != "inmemory":
        return None
    limit = min(cache.blobdescriptorsize or MAX_RECENT_LINKS, MAX_RECENT_LINKS)
    return RecentLinks(monotonic_clock(reactor), limit)
