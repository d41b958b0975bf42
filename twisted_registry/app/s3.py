"""The ``s3`` section joined to constructors: a part of service.py, for the driver that needs most.

Imported only where that section is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from twisted_registry import __version__
from twisted_registry.app.listener import StartError
from twisted_registry.storage.s3.address import (
    AddressError,
    BucketAddress,
    aws_address,
    endpoint_address,
)
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.connections import find_proxy
from twisted_registry.storage.s3.credentials import CredentialsError, find_credentials
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkewed,
    NoSuchBucket,
    NotFound,
    S3Error,
    WrongRegion,
)
from twisted_registry.storage.s3.files import CopyOptions
from twisted_registry.storage.s3.interfaces import ObjectOptions
from twisted_registry.storage.s3.sender import RequestLog, Sender
from twisted_registry.storage.s3.transport import make_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure

    from twisted_registry.config.s3 import S3

log = Logger()

#: What is wrong for an error of the first request, and with which option.
_MISCONFIGURATIONS: Final[tuple[tuple[type[S3Error], str, str], ...]] = (
    (NoSuchBucket, "bucket", "there is no such bucket"),
    (WrongRegion, "region", "the bucket is elsewhere"),
    (ClockSkewed, "", "the clock of this machine is wrong"),
    (BadCredentials, "accesskey", "the store does not accept the credentials"),
    (AccessDenied, "bucket", "the credentials are good, and do not allow to list the bucket"),
    (NotFound, "bucket", "there is no such bucket"),
)


def make_s3_driver(name: str, options: S3, reactor: Any, environ: Mapping[str, str]) -> S3Driver:
    """Build the driver; nothing is asked of the store yet.

    :param name: what the section is called: s3 or s3aws.
    :param environ: where credentials and proxies may be.
    :raises StartError: if the options make no address, or no credentials are found.
    """
    try:
        address, public = _addresses(options)
        proxy = find_proxy(environ, address.scheme, address.host)
        credentials = find_credentials(
            reactor, environ, options.accesskey, options.secretkey, options.sessiontoken
        )
    except AddressError as error:
        raise StartError(f"storage.{name}: {error}") from error
    except CredentialsError as error:
        raise StartError(f"storage.{name}.accesskey: {error}") from error
    agent = f"twisted-registry/{__version__} {options.useragent}".strip()
    sender = Sender(
        reactor,
        make_transport(reactor, verify=not options.skipverify, scheme=address.scheme, proxy=proxy),
        address,
        credentials,
        agent,
        request_log=RequestLog(options.loglevel.lower()),
    )
    storing = ObjectOptions(
        options.encrypt,
        options.keyid,
        "" if options.storageclass == "NONE" else options.storageclass,
        options.objectacl,
    )
    copy_options = CopyOptions(
        options.multipartcopythresholdsize,
        options.multipartcopychunksize,
        options.multipartcopymaxconcurrency,
    )
    client = S3Client(sender, storing, public)
    return S3Driver(client, reactor, options.rootdirectory, options.chunksize, copy_options)


def _addresses(options: S3) -> tuple[BucketAddress, BucketAddress | None]:
    """Where we find the bucket, and where clients do if that is elsewhere."""
    if options.regionendpoint:
        address = endpoint_address(
            options.bucket,
            options.regionendpoint,
            region=options.region,
            path_style=options.forcepathstyle,
            secure=options.secure,
        )
    else:
        address = aws_address(
            options.bucket,
            options.region,
            path_style=options.forcepathstyle or False,
            secure=options.secure,
            accelerate=options.accelerate,
            dual_stack=options.usedualstack,
            fips=options.usefipsendpoint,
        )
    if not options.redirectendpoint:
        return address, None
    in_path = options.forcepathstyle
    return address, endpoint_address(
        options.bucket,
        options.redirectendpoint,
        region=address.region,
        path_style=bool(options.regionendpoint) if in_path is None else in_path,
        secure=options.secure,
    )


class BucketCheck(Service):
    """Asks the store for one key when the registry starts.

    What is configured wrongly (bucket, region, credentials, clock) ends the start. A store that
    is down or overloaded does not: it may come back, and a registry that restarts meanwhile
    should be there then.
    """

    def __init__(
        self, name: str, driver: S3Driver, on_start_error: Callable[[StartError], object]
    ) -> None:
        """Take what to ask.

        :param name: what the section is called: s3 or s3aws.
        :param give_up: called with what is configured wrongly, after it was logged.
        """
        self._name = name
        self._driver = driver
        self._on_start_error = on_start_error
        #: Fires when the answer is there and was told.
        self.checked: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Ask."""
        super().startService()
        self.checked = self._driver.client.head_bucket()
        self.checked.addErrback(self._failed)

    def stopService(self) -> None:
        """Wait for the answer no longer."""
        self.checked.cancel()

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        fault = find_misconfiguration(error, self._name)
        if fault is None:
            log.error(
                "the store does not answer as it should; the registry goes on, and so may the"
                " store: {error}",
                error=str(error),
            )
            return
        log.critical("{error}", error=str(fault))
        self._on_start_error(fault)


async def require_bucket(name: str, driver: S3Driver) -> None:
    """Ask the store for one key; what is wrong, for whatever reason, is an error.

    :param name: what the section is called.
    :raises StartError: with what is configured wrongly, or why there is no answer.
    """
    try:
        await driver.client.head_bucket()
    except S3Error as error:
        fault = find_misconfiguration(error, name)
        raise fault or StartError(f"storage.{name}: {error}") from error


def find_misconfiguration(error: BaseException | None, name: str) -> StartError | None:
    """Which option an error of the first request speaks of, and how; None if of none.

    :param name: what the section is called.
    """
    for kind, option, words in _MISCONFIGURATIONS:
        if isinstance(error, kind):
            key = f"storage.{name}.{option}".rstrip(".")
            return StartError(f"{key}: {words}: {error}")
    return None
