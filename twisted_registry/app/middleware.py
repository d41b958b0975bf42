"""``middleware.storage`` joined to constructors. Imported only where some is configured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted_registry.app.errors import StartError
from twisted_registry.config.middleware import CLOUDFRONT, REDIRECT
from twisted_registry.storage.middleware.urls import Redirect, Rewrite

if TYPE_CHECKING:
    from twisted_registry.config.middleware import StorageMiddleware, StorageOptions
    from twisted_registry.config.schema import Configuration
    from twisted_registry.storage.interfaces import IStorageDriver

#: How long connecting may take for the download of AWS's IP ranges.
_CONNECT_TIMEOUT_S: Final = 10.0


def apply_middleware(
    driver: IStorageDriver, configuration: Configuration, reactor: Any
) -> IStorageDriver:
    """Answer the driver with all that is configured around it, the first entry innermost.

    :raises StartError: if the private key of ``cloudfront`` can not be used.
    """
    for index, entry in enumerate(configuration.middleware.storage):
        if not entry.disabled:
            path = f"middleware.storage[{index}].options"
            driver = _wrap_driver(driver, entry, path, configuration, reactor)
    return driver


def _wrap_driver(
    driver: IStorageDriver,
    entry: StorageMiddleware,
    path: str,
    configuration: Configuration,
    reactor: Any,
) -> IStorageDriver:
    settings = entry.settings
    if entry.name == REDIRECT:
        redirect: IStorageDriver = Redirect(driver, settings.baseurl)
        return redirect
    if entry.name == CLOUDFRONT:
        bucket = configuration.storage.bucket
        root = "" if bucket is None else bucket.rootdirectory
        return _cloudfront(driver, settings, path, root, reactor)
    rewrite: IStorageDriver = Rewrite(
        driver, settings.scheme, settings.host, settings.trimpathprefix
    )
    return rewrite


def _cloudfront(
    driver: IStorageDriver, settings: StorageOptions, path: str, root: str, reactor: Any
) -> IStorageDriver:
    # These import cryptography and an HTTP client, which the others do not need.
    from twisted_registry.http.client import make_agent  # noqa: PLC0415
    from twisted_registry.storage.middleware.aws_ip_ranges import AWSClients  # noqa: PLC0415
    from twisted_registry.storage.middleware.cloudfront import (  # noqa: PLC0415
        CloudFront,
        CloudFrontSigner,
    )
    from twisted_registry.storage.threads import Threads  # noqa: PLC0415

    try:
        signer = CloudFrontSigner.load(settings.keypairid, Path(settings.privatekey).read_bytes())
    except OSError as error:
        raise StartError(f"{path}.privatekey: {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise StartError(f"{path}.privatekey: {settings.privatekey}: {error}") from error
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
    cloudfront: IStorageDriver = CloudFront(
        driver, reactor, settings.baseurl, signer,
        root=root, duration_s=settings.lifetime, inside=inside,
    )  # fmt: skip
    return cloudfront
