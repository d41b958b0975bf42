"""Settings of the API, of connections and of rates, made from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from twisted_registry.api.context import APISettings, URLBuilder
from twisted_registry.auth.rate_limits import RateLimit, RateLimitedAccess, UploadSlots
from twisted_registry.config.http import DEFAULT_TRUSTED_PROXIES
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.proxies import TrustedProxies

if TYPE_CHECKING:
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.schema import Configuration

#: The default of ``http.limits.connections``, if there are descriptors for them. An idle one takes
#: some 6 KiB, and 34 KiB over TLS.
_MAX_CONNECTIONS = 8192


def make_api_settings(configuration: Configuration) -> APISettings:
    """Make the settings of the API."""
    http, storage = configuration.http, configuration.storage
    uploads = http.limits.uploadsperuser
    return APISettings(
        urls=URLBuilder(http.host, http.relativeurls),
        headers=http.headers,
        delete=storage.delete.enabled,
        read_only=storage.maintenance.readonly.enabled,
        redirect=not storage.redirect.disable,
        catalog_limit=configuration.catalog.maxentries,
        tags_limit=configuration.tags.maxtags,
        max_blob_bytes=http.limits.blobbytes,
        upload_slots=UploadSlots(uploads) if uploads else None,
    )


def change_api_settings(current: APISettings, configuration: Configuration) -> APISettings:
    """Return settings with the new values of what a reload can change."""
    return evolve(
        current,
        headers=configuration.http.headers,
        delete=configuration.storage.delete.enabled,
        read_only=configuration.storage.maintenance.readonly.enabled,
        catalog_limit=configuration.catalog.maxentries,
        tags_limit=configuration.tags.maxtags,
        max_blob_bytes=configuration.http.limits.blobbytes,
    )


def make_rate_limit(rate: float, what: str, reactor: Any) -> RateLimit | None:
    """Make a limit of requests; None for no limit.

    :param rate: requests per second; 0 for no limit.
    :param what: what is limited, ``address`` or ``user``.
    """
    return RateLimit(rate, reactor, what) if rate else None


def limit_rates(
    access: IAccessController,
    configuration: Configuration,
    by_address: RateLimit | None,
    reactor: Any,
) -> IAccessController:
    """Return an access controller with the limits of requests for each address and user."""
    by_user = make_rate_limit(configuration.http.limits.requestsperuser, "user", reactor)
    if by_address is None and by_user is None:
        return access
    return RateLimitedAccess(access, by_address, by_user)


def make_trusted_proxies(configuration: Configuration) -> TrustedProxies | None:
    """Make the proxies whose headers are believed; None for the default ones."""
    proxies = configuration.http.trustedproxies
    return None if proxies == DEFAULT_TRUSTED_PROXIES else TrustedProxies.parse(proxies)


def make_limits(configuration: Configuration, descriptors: int) -> Limits:
    """Make the limits for requests and connections.

    :param descriptors: how many descriptors this process may have. Half of them are for
        connections, so that every one of them can read or write a file.
    """
    limits = configuration.http.limits
    return Limits(
        url_bytes=limits.urlbytes,
        header_bytes=limits.headerbytes,
        header_seconds=limits.headertimeout,
        idle_seconds=limits.idletimeout,
        body_seconds=limits.bodytimeout,
        body_bytes_per_second=limits.bodyrate,
        connections=limits.connections or min(descriptors // 2, _MAX_CONNECTIONS),
        connections_per_address=limits.connectionsperaddress,
    )
