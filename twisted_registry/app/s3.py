"""Build the s3 driver from its configuration section, and check the bucket at the start.

Imported only if the section is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from twisted_registry import __version__
from twisted_registry.frame.errors import StartError, install_command
from twisted_registry.http.client_proxies import ProxyInvalid, find_proxy
from twisted_registry.repository import layout
from twisted_registry.storage.s3.address import (
    AddressError,
    BucketAddress,
    aws_address,
    endpoint_address,
)
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.credentials import (
    BotocoreMissing,
    CredentialsError,
    find_credentials,
)
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
from twisted_registry.storage.s3.files import CopyOptions, KeyMapping
from twisted_registry.storage.s3.interfaces import ObjectOptions
from twisted_registry.storage.s3.sender import RequestLog, Sender
from twisted_registry.storage.s3.transport import make_transport
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent

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
#: Content of the object that is stored at the start.
_TEST_CONTENT: Final = b"Stored and deleted at the start of a registry, to see whether it may.\n"


def make_s3_driver(
    name: str,
    options: S3,
    reactor: Any,
    environ: Mapping[str, str],
    wrap_agent: Callable[[IAgent], IAgent] | None = None,
) -> S3Driver:
    """Build the driver, without a request to the store.

    :param name: name of the section: s3 or s3aws.
    :param environ: environment variables, which may set credentials and proxies.
    :param wrap_agent: returns the agent to use in place of the one that makes connections.
    :raises StartError: if the address is invalid or no credentials are found.
    """
    try:
        address, public = _addresses(options)
        proxy = find_proxy(environ, address.scheme, address.host)
        credentials = find_credentials(
            reactor, environ, options.accesskey, options.secretkey, options.sessiontoken
        )
    except (AddressError, ProxyInvalid) as error:
        raise StartError(f"storage.{name}: {error}") from error
    except BotocoreMissing as error:
        raise StartError(f"storage.{name}.accesskey: {error}: {install_command('aws')}") from error
    except CredentialsError as error:
        raise StartError(f"storage.{name}.accesskey: {error}") from error
    user_agent = f"twisted-registry/{__version__} {options.useragent}".strip()
    threads = Threads(reactor, WORKER_THREADS, "s3")
    sender = Sender(
        reactor,
        make_transport(reactor, verify=not options.skipverify, proxy=proxy, wrap_agent=wrap_agent),
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
    """Checks the bucket when the registry starts, see :func:`check_bucket`.

    A wrong configuration ends the start. A store that is down or overloaded does not: it may
    recover, and a registry that restarts meanwhile should be up by then.

    :ivar checked: fires when the result was handled.
    """

    def __init__(
        self,
        name: str,
        driver: S3Driver,
        on_start_error: Callable[[StartError], object],
        *,
        writes: bool = True,
    ) -> None:
        """Check the bucket of ``driver``.

        :param name: name of the section: s3 or s3aws.
        :param on_start_error: called with a configuration error.
        :param writes: whether the registry stores anything.
        """
        self._name = name
        self._driver = driver
        self._on_start_error = on_start_error
        self._writes = writes
        self.checked: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Send the requests."""
        super().startService()
        work = check_bucket(self._name, self._driver, writes=self._writes)
        self.checked = Deferred.fromCoroutine(work).addErrback(self._check_failed)

    def stopService(self) -> None:
        """Cancel the requests."""
        self.checked.cancel()

    def _check_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, StartError):
            self._on_start_error(error)
        elif not isinstance(error, CancelledError):
            log.error(
                "storage.{name}: the store fails; the registry answers 503 until it works: {error}",
                name=self._name,
                error=str(error),
            )


async def check_bucket(name: str, driver: S3Driver, *, writes: bool) -> None:
    """List one key of the bucket, then store an object as configured, and delete it again.

    Credentials that may list but not store are a warning: they are enough for pulls.

    :param name: name of the section: s3 or s3aws.
    :param writes: whether to store an object.
    :raises StartError: if an option is wrong: the text names it.
    :raises S3Error: if the store fails for another reason.
    """
    try:
        await driver.client.head_bucket()
    except S3Error as error:
        raise find_misconfiguration(error, name) or error from None
    if not writes:
        return
    client = cast("S3Client", driver.client)
    key = KeyMapping(driver.root).object_key(layout.START_CHECK)
    refusal = await _find_refusal(client, key)
    if refusal is None:
        return
    options = await _find_refused_options(client, key)
    if options:
        key_path = ", ".join(f"storage.{name}.{option}" for option in options)
        described = " and ".join(options.values())
        raise StartError(f"{key_path}: the store refuses {described}: {refusal}")
    if not isinstance(refusal, AccessDenied):
        raise refusal
    log.warn(
        "storage.{name}: the credentials permit pulls only, so pushes fail; if that is intended,"
        " set storage.maintenance.readonly.enabled: error={error}",
        name=name,
        error=str(refusal),
    )


async def _find_refusal(client: S3Client, key: str) -> S3Error | None:
    """Store an object with the options of a client, and delete it; return a permanent error.

    :raises S3Error: if the error may be temporary.
    """
    try:
        await client.put_object(key, _TEST_CONTENT)
    except S3Error as error:
        if error.retryable:
            raise
        return error
    try:
        await client.delete_object(key)
    except S3Error as error:
        log.warn(
            "the object that was stored to test the bucket cannot be deleted: key={key}"
            " error={error}",
            key=key,
            error=str(error),
        )
    return None


async def _find_refused_options(client: S3Client, key: str) -> Mapping[str, str]:
    """Return the options without which the store would not refuse objects, with descriptions.

    Each option is left out alone: a bucket may demand the others. If several are refused, all are
    returned. It is empty if objects are refused without options, too.
    """
    options = client.object_options
    tried = {
        "keyid": ("encryption with this KMS key", evolve(options, key_id="")),
        "encrypt": ("server-side encryption", evolve(options, encrypt=False)),
        "storageclass": (f"the class {options.storage_class}", evolve(options, storage_class="")),
        "objectacl": (f"the ACL {options.acl}", evolve(options, acl="")),
    }
    described: dict[str, str] = {}
    for option, (description, others) in tried.items():
        if others.headers() != options.headers():
            described[option] = description
            if await _find_refusal(evolve(client, object_options=others), key) is None:
                return {option: description}
    plain = evolve(client, object_options=ObjectOptions())
    accepted = len(described) > 1 and await _find_refusal(plain, key) is None
    return described if accepted else {}


async def require_bucket(name: str, driver: S3Driver, *, writes: bool = False) -> None:
    """Check the bucket, for commands that need the store.

    The arguments are those of :func:`check_bucket`.

    :raises StartError: if the check fails for any reason.
    """
    try:
        await check_bucket(name, driver, writes=writes)
    except S3Error as error:
        raise StartError(f"storage.{name}: {error}") from error


def find_misconfiguration(error: BaseException | None, name: str) -> StartError | None:
    """Return the configuration error that caused an error of the listing, or None.

    :param name: name of the section.
    """
    for kind, option, description in _MISCONFIGURATIONS:
        if isinstance(error, kind):
            key = f"storage.{name}.{option}".rstrip(".")
            return StartError(f"{key}: {description}: {error}")
    return None
