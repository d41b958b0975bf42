"""``storage.cache.blobdescriptor`` joined to constructors: a part of service.py.

Imported only where a cache is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.repository.descriptors import MemoryDescriptors

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.descriptors import IDescriptorCache


def make_descriptors(configuration: Configuration, reactor: Any) -> IDescriptorCache:
    """The cache that a configuration asks for.

    :raises StartError: if it can not be had.
    """
    if configuration.storage.cache.kind == "redis":
        from twisted_registry.redisconnection import redis_descriptors  # noqa: PLC0415

        assert configuration.redis is not None
        return redis_descriptors(configuration.redis, reactor)
    return MemoryDescriptors(configuration.storage.cache.blobdescriptorsize)
