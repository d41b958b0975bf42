"""Build the s3 driver from its configuration section, and check the bucket at the start.

Imported only if the section is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from twisted_registry import __version__
from twisted_registry.app.errors import StartError
from twisted_registry.storage.s3.address import (
    AddressError,
    BucketAddress,
    aws_address,
    endpoint_address,
)
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.connections import find_proxy
from twisted_registry.storage.s3.credentials import CredentialsError, find_credentials
from twisted_registry.storage.s3.driver import WORKER_THREADS, S3Driver
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
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure

    from twisted_registry.config.s3 import S3

log = Logger()

#: Errors of the first request that a wrong option causes: class, option, description.
_MISCONFIGURATIONS: Final[tuple[tuple[type[S3Error], str, str], ...]] = (
    (NoSuchBucket, "bucket", "the bucket does not exist"),
    (WrongRegion, "region", "the bucket is in another region"),
    (ClockSkewed, "", "the clock of this machine is wrong"),
    (BadCredentials, "accesskey", "the store refuses the credentials"),
    (AccessDenied, "bucket", "the credentials do not permit listing the bucket"),
    (NotFound, "bucket", "the bucket does not exist"),
)


def make_s3_driver(name: str, options: S3, reactor: Any, environ: Mapping[str, str]) -> S3Driver:
    """Build the driver, without a request to the store.

    :param name: name of the section: s3 or s3aws.
    :param environ: environment variables, which may set credentials and proxies.
    :raises StartError: if the address is invalid or no credentials are found.
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
    user_agent = f"twisted-registry/{__version__} {options.useragent}".strip()
    threads = Threads(reactor, WORKER_THREADS, "s3")
    sender = Sender(
        reactor,
        make_transport(reactor, verify=not options.skipverify, proxy=proxy),
        address,
        credentials,
        user_agent,
        request_log=RequestLog(options.loglevel.lower()),
        run_blocking=threads.run_blocking,
        sign_payloads=options.payloadsigning,
    )
    object_options = ObjectOptions(
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
    client = S3Client(sender, object_options, public)
    return S3Driver(
        client,
        reactor,
        options.rootdirectory,
        options.chunksize,
        copy_options,
        threads=threads,
    )


def _addresses(options: S3) -> tuple[BucketAddress, BucketAddress | None]:
    """Return the address of the bucket, and its address in redirects if that is another."""
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
    path_style = options.forcepathstyle
    return address, endpoint_address(
        options.bucket,
        options.redirectendpoint,
        region=address.region,
        path_style=bool(options.regionendpoint) if path_style is None else path_style,
        secure=options.secure,
    )


class BucketCheck(Service):
    """Lists one key of the bucket when the registry starts.

    A wrong configuration (bucket, region, credentials, clock) ends the start. A store that is down
    or overloaded does not: it may recover, and a registry that restarts meanwhile should be up by
    then.

    :ivar checked: fires when the result was handled.
    """

    def __init__(
        self, name: str, driver: S3Driver, on_start_error: Callable[[StartError], object]
    ) -> None:
        """Check the bucket of ``driver``.

        :param name: name of the section: s3 or s3aws.
        :param on_start_error: called with a configuration error, after it was logged.
        """
        self._name = name
        self._driver = driver
        self._on_start_error = on_start_error
        self.checked: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Send the request."""
        super().startService()
        self.checked = self._driver.client.head_bucket()
        self.checked.addErrback(self._check_failed)

    def stopService(self) -> None:
        """Cancel the request."""
        self.checked.cancel()

    def _check_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        start_error = find_misconfiguration(error, self._name)
        if start_error is None:
            log.error(
                "the s3 store failed the first request, starting nevertheless: error={error}",
                error=str(error),
            )
            return
        log.critical("{error}", error=str(start_error))
        self._on_start_error(start_error)


async def require_bucket(name: str, driver: S3Driver) -> None:
    """List one key of the bucket, for commands that need the store.

    :param name: name of the section.
    :raises StartError: if the request fails for any reason.
    """
    try:
        await driver.client.head_bucket()
    except S3Error as error:
        start_error = find_misconfiguration(error, name)
        raise start_error or StartError(f"storage.{name}: {error}") from error


def find_misconfiguration(error: BaseException | None, name: str) -> StartError | None:
    """Return the configuration error that caused an error of the first request, or None.

    :param name: name of the section.
    """
    for kind, option, description in _MISCONFIGURATIONS:
        if isinstance(error, kind):
            key = f"storage.{name}.{option}".rstrip(".")
            return StartError(f"{key}: {description}: {error}")
    return None
