"""Storage middleware of a configuration: ``middleware.storage``.

Imported only if an entry is configured: it imports cryptography and an HTTP client.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted_registry.config.middleware import CLOUDFRONT, REDIRECT
from twisted_registry.frame.errors import StartError
from twisted_registry.http.client import make_agent
from twisted_registry.storage.middleware.aws_ip_ranges import AWSClients
from twisted_registry.storage.middleware.cloudfront import CloudFront, CloudFrontSigner
from twisted_registry.storage.middleware.urls import Redirect, Rewrite
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from twisted_registry.config.middleware import StorageMiddleware, StorageOptions
    from twisted_registry.config.schema import Configuration
    from twisted_registry.storage.interfaces import IStorageDriver

#: Seconds to connect for the download of the IP ranges of AWS.
_CONNECT_TIMEOUT_S: Final = 10.0


def apply_middleware(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> IStorageDriver:
    """Return the driver inside the middleware of the configuration, the first entry innermost.

    :raises StartError: if the private key of ``cloudfront`` cannot be used.
    """
    for index, entry in enumerate(configuration.middleware.storage):
        if not entry.disabled:
            path = f"middleware.storage[{index}].options"
            driver = _wrap_driver(configuration, driver, entry, path, reactor)
    return driver


def _wrap_driver(
    configuration: Configuration,
    driver: IStorageDriver,
    entry: StorageMiddleware,
    path: str,
    reactor: Any,
) -> IStorageDriver:
    settings = entry.options
    if entry.name == REDIRECT:
        return Redirect(driver, settings.baseurl)
    if entry.name == CLOUDFRONT:
        bucket = configuration.storage.bucket
        root = "" if bucket is None else bucket.rootdirectory
        return _make_cloudfront(driver, settings, path, root, reactor)
    return Rewrite(driver, settings.scheme, settings.host, settings.trimpathprefix)


def _make_cloudfront(
    driver: IStorageDriver, settings: StorageOptions, path: str, root: str, reactor: Any
) -> IStorageDriver:
    file = Path(settings.privatekey).absolute()
    try:
        signer = CloudFrontSigner.load(settings.keypairid, file.read_bytes())
    except OSError as error:
        raise StartError(f"{path}.privatekey: {file}: {error.strerror}") from error
    except ValueError as error:
        raise StartError(f"{path}.privatekey: {file}: {error}") from error
    inside = None
    if settings.ipfilteredby != "none":
        inside = AWSClients(
            reactor,
            make_agent(reactor, _CONNECT_TIMEOUT_S),
            Threads(reactor, 1, "ip-ranges"),
            settings.regions if settings.ipfilteredby == "awsregion" else (),
            settings.iprangesurl,
            settings.frequency,
        )
    return CloudFront(
        driver, reactor, settings.baseurl, signer,
        root=root, duration_s=settings.lifetime, inside=inside,
    )  # fmt: skip
