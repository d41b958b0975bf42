"""The configuration in the words of the API: a part of service.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.exchange import Settings
from twisted_registry.api.limits import Limits
from twisted_registry.api.urls import Links

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration


def settings_of(configuration: Configuration) -> Settings:
    """What the API is told."""
    http, storage = configuration.http, configuration.storage
    return Settings(
        links=Links(http.host, http.relativeurls),
        headers=http.headers,
        delete=storage.delete.enabled,
        read_only=storage.maintenance.readonly.enabled,
        redirect=not storage.redirect.disable,
        catalog_limit=configuration.catalog.maxentries,
        tags_limit=configuration.tags.maxtags,
    )


def limits_of(configuration: Configuration) -> Limits:
    """What clients are held to."""
    limits = configuration.http.limits
    return Limits(
        url_bytes=limits.urlbytes,
        header_bytes=limits.headerbytes,
        header_seconds=limits.headertimeout,
        idle_seconds=limits.idletimeout,
        body_seconds=limits.bodytimeout,
    )
