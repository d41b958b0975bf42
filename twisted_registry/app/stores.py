"""The store of a configuration, and what it takes: for whoever serves it, and for commands.

Commands need nothing of what serves it, which takes a third of their start.

``storage.cache.blobdescriptor`` joined to constructors: a part of service.py.

Imported only where a cache is configured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from twisted_registry.app.maintenance import immutable_tags
from twisted_registry.repository.cache import MemoryDescriptorCache
from twisted_registry.repository.policy import Policy
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.filesystem.folder_names import MAX_CACHED_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.cache import IDescriptorCache
    from twisted_registry.storage.interfaces import IStorageDriver


def make_driver(
    configuration: Configuration,
    reactor: Any,
    environ: Mapping[str, str],
    max_cached_names: int = MAX_CACHED_NAMES,
) -> IStorageDriver:
    """The driver of the store that a configuration names.

    :param environ: where credentials may be.
    :param kept_names: see :class:`~twisted_registry.storage.filesystem.driver.FilesystemDriver`.
    """
    storage = configuration.storage
    if storage.bucket is not None:
        from twisted_registry.app import s3 as s3_module  # noqa: PLC0415 - needed by few

        name = s3_section_name(configuration)
        return s3_module.make_s3_driver(name, storage.bucket, reactor, environ)
    if storage.filesystem is None:
        from twisted_registry.storage.memory import MemoryDriver  # noqa: PLC0415 - rarely used

        return MemoryDriver(reactor)
    root = Path(storage.filesystem.rootdirectory).absolute()
    threads = storage.filesystem.maxthreads
    return FilesystemDriver(str(root), reactor, threads, max_cached_names=max_cached_names)


def s3_section_name(configuration: Configuration) -> str:
    """The name of the section of a bucket."""
    return "s3aws" if configuration.storage.s3 is None else "s3"


def make_manifest_policy(configuration: Configuration) -> Policy:
    """Which manifests are taken."""
    validation = configuration.validation
    indexes = validation.manifests.indexes
    return Policy(
        check_references=not validation.disabled,
        url_allow=validation.manifests.urls.allow,
        url_deny=validation.manifests.urls.deny,
        platforms=cast("Literal['all', 'none', 'list']", indexes.platforms),
        platform_list=frozenset((item.architecture, item.os) for item in indexes.platformlist),
        classes=frozenset(configuration.policy.repository.classes),
        max_manifest_bytes=configuration.http.limits.manifestbytes,
        immutable=immutable_tags(configuration),
    )


def make_descriptor_cache(configuration: Configuration, reactor: Any) -> IDescriptorCache:
    """The cache that a configuration asks for.

    :raises StartError: if it can not be had.
    """
    if configuration.storage.cache.kind == "redis":
        from twisted_registry.app.redis import make_redis_cache  # noqa: PLC0415

        assert configuration.redis is not None
        return make_redis_cache(configuration.redis, reactor)
    return MemoryDescriptorCache(configuration.storage.cache.blobdescriptorsize)
