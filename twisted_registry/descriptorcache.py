"""``storage.cache.blobdescriptor`` joined to constructors: a part of service.py.

Imported only where a cache is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.repository.descriptors import MemoryDescriptorCache

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.descriptors import IDescriptorCache


def make_descriptor_cache(configuration: Configuration, reactor: Any) -> IDescriptorCache:
    """The cache that a configuration asks for.

    :raises StartError: if it can not be had.
    """
    if configuration.storage.cache.kind == "redis":
        from twisted_registry.redisconnection import make_redis_cache  # noqa: PLC0415

        assert configuration.redis is not None
        return make_redis_cache(configuration.redis, reactor)
    return MemoryDescriptorCache(configuration.storage.cache.blobdescriptorsize)
