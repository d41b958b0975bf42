"""The configuration in the words of the API: a part of service.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.exchange import APISettings
from twisted_registry.api.limits import Limits
from twisted_registry.api.urls import URLBuilder

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration


def make_api_settings(configuration: Configuration) -> APISettings:
    """What the API is told."""
    http, storage = configuration.http, configuration.storage
    return APISettings(
        links=URLBuilder(http.host, http.relativeurls),
        headers=http.headers,
        delete=storage.delete.enabled,
        read_only=storage.maintenance.readonly.enabled,
        redirect=not storage.redirect.disable,
        catalog_limit=configuration.catalog.maxentries,
        tags_limit=configuration.tags.maxtags,
    )


def make_limits(configuration: Configuration) -> Limits:
    """What clients are held to."""
    limits = configuration.http.limits
    return Limits(
        url_bytes=limits.urlbytes,
        header_bytes=limits.headerbytes,
        header_seconds=limits.headertimeout,
        idle_seconds=limits.idletimeout,
        body_seconds=limits.bodytimeout,
    )
