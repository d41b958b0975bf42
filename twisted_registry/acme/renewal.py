"""Ordering certificates: the orders, and the service that places them in time.

An order follows RFC 8555, section 7.4, with TLS-ALPN-01 challenges (RFC 8737). A certificate is
ordered when there is none, and when a third of its lifetime is left. A failed order is repeated
after increasing pauses, while the certificate in use stays. Let's Encrypt rejects all orders after
five failures for a host in an hour; the pauses are long enough to stay below that.

This module needs the packages of the extra ``acme``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from josepy.json_util import encode_b64jose
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from twisted_registry.acme.cache import make_challenge_certificate
from twisted_registry.acme.client import ACMEClient, ACMEError, format_problem
from twisted_registry.tls.authority import alternative_names, generate_key, key_pem

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.web.iweb import IAgent

    from twisted_registry.acme.cache import ACMECache

log = Logger()

#: Seconds between two checks whether an order is due.
CHECK_INTERVAL_S: Final = 60.0
#: Maximum seconds until the certificate is read again; its file may be lost.
_RECHECK_S: Final = 3600.0
#: Seconds until a failed order is repeated; doubled each time, up to the maximum.
_MIN_RETRY_S: Final = 600.0
_MAX_RETRY_S: Final = 24 * 3600.0
#: Seconds until the next check if another process is ordering.
_BUSY_RETRY_S: Final = 300.0
#: Time limit of an order, in seconds.
_ORDER_TIMEOUT_S: Final = 1800.0
_CHALLENGE_TYPE: Final = "tls-alpn-01"
#: How often a status is polled; with the pauses between, about ten minutes.
_MAX_POLLS: Final = 60
#: Seconds between two polls: minimum, default if the server does not say, and maximum.
_MIN_POLL_S, _DEFAULT_POLL_S, _MAX_POLL_S = 0.2, 2.0, 60.0


class CertificateRenewal(Service):
    """A service that orders a certificate when one is due."""

    def __init__(
        self,
        clock: Any,
        cache: ACMECache,
        orders: Orders,
        in_thread: Callable[..., Deferred[Any]],
        on_renewed: Callable[[], object],
    ) -> None:
        """Make the service.

        :param cache: the folder of the certificate.
        :param orders: places the orders.
        :param in_thread: runs the blocking functions of the cache on a thread.
        :param on_renewed: called when a new certificate is stored.
        """
        self._clock = clock
        self._cache = cache
        self._orders = orders
        self._in_thread = in_thread
        self._on_renewed = on_renewed
        self._failures = 0
        self._next_attempt = 0.0
        self._renewing: Deferred[None] | None = None
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        """Check now and then regularly."""
        super().startService()
        self._loop.start(CHECK_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Stop the checks and cancel an order in progress; fire when it has ended."""
        super().stopService()
        self._loop.stop()
        renewing, ended = self._renewing, Deferred[None]()
        if renewing is None:
            ended.callback(None)
        else:
            renewing.addBoth(lambda _: ended.callback(None))
            renewing.cancel()
        return ended

    def retry_now(self) -> None:
        """Ignore earlier failures at the next check."""
        self._failures, self._next_attempt = 0, 0.0

    def _check(self) -> None:
        # The Deferred is not returned: the loop would wait for it, and a stop could not cancel it.
        if self._renewing is None and self._clock.seconds() >= self._next_attempt:
            self._renewing = Deferred.fromCoroutine(self._renew())
            self._renewing.addBoth(self._renew_ended)

    def _renew_ended(self, _: object) -> None:
        self._renewing = None

    async def _renew(self) -> None:
        self._next_attempt = self._clock.seconds() + _RECHECK_S
        try:
            with self._cache.order_lock() as acquired:
                if not acquired:
                    self._next_attempt = self._clock.seconds() + _BUSY_RETRY_S
                    return
                renew_at = await self._in_thread(self._cache.renew_at)
                if renew_at > self._clock.seconds():
                    self._next_attempt = min(renew_at, self._next_attempt)
                    return
                ordering = Deferred.fromCoroutine(self._orders.order())
                await ordering.addTimeout(_ORDER_TIMEOUT_S, self._clock)
        except ACMEError as error:
            self._schedule_retry(str(error), error.retry_after)
        except OSError as error:
            self._schedule_retry(f"cachefile: {error.filename}: {error.strerror}")
        except defer.TimeoutError:
            self._schedule_retry(f"no certificate within {_ORDER_TIMEOUT_S:.0f} s")
        except CancelledError:
            return  # stopService
        except Exception as error:  # noqa: BLE001 - unexpected responses of the server
            log.failure("unexpected response of the ACME server")
            self._schedule_retry(f"{type(error).__name__}: {error}")
        else:
            self._failures = 0
            self._on_renewed()

    def _schedule_retry(self, reason: str, wait: float = 0.0) -> None:
        if not self.running:
            return
        wait = max(wait, min(_MIN_RETRY_S * 2**self._failures, _MAX_RETRY_S))
        self._failures += 1
        self._next_attempt = self._clock.seconds() + wait
        log.error(
            "http.tls.letsencrypt: {reason}; next attempt in {minutes:.0f} minutes; the certificate"
            " in use stays",
            reason=reason,
            minutes=wait / 60,
        )


class Orders:
    """Orders certificates for the hosts of a cache."""

    def __init__(
        self,
        reactor: Any,
        cache: ACMECache,
        directory: str,
        email: str,
        in_thread: Callable[..., Deferred[Any]],
        agent: IAgent | None = None,
    ) -> None:
        """Prepare orders; nothing is sent yet.

        :param cache: the folder with the account key, which also stores the certificate.
        :param directory: the URL of the ACME server's directory.
        :param email: the contact for notifications; may be empty.
        :param in_thread: runs the blocking functions of the cache on a thread.
        :param agent: by default one that verifies certificates as browsers do.
        """
        self._reactor = reactor
        self._cache = cache
        self._directory = directory
        self._email = email
        self._in_thread = in_thread
        self._agent = agent

    async def order(self) -> None:
        """Order a certificate and store it. Takes seconds or minutes.

        :raises ACMEError: if the server issues none.
        """
        hosts = self._cache.hosts
        log.info(
            "ordering a certificate for {hosts} from {directory}",
            directory=self._directory,
            hosts=", ".join(hosts),
        )
        account_key = await self._in_thread(self._cache.account_key)
        client = ACMEClient(self._reactor, self._directory, account_key, self._agent)
        terms = await client.register(self._email)
        if terms is not None:
            log.info(
                "ACME account created, terms of service accepted: {terms}", terms=terms or "none"
            )
        payload = {"identifiers": [{"type": "dns", "value": host} for host in hosts]}
        order = await client.post(client.directory_url("newOrder"), payload)
        for url in order.document["authorizations"]:
            await self._authorize(client, url)
        chain, key = await self._finalize(client, order.location)
        await self._in_thread(self._cache.store_certificate, chain, key)

    async def _authorize(self, client: ACMEClient, url: str) -> None:
        """Answer the challenge for a host."""
        document = (await client.post(url)).document
        if document["status"] == "valid":
            return
        host = document["identifier"]["value"]
        challenges = [each for each in document["challenges"] if each["type"] == _CHALLENGE_TYPE]
        if not challenges:
            raise ACMEError(f"{url}: no challenge {_CHALLENGE_TYPE} for {host}")
        (challenge, *_) = challenges
        authorization = client.authorization(challenge["token"])
        certificate, key = make_challenge_certificate(host, authorization, self._reactor.seconds())
        await self._in_thread(self._cache.store_challenge, host, certificate, key)
        try:
            if challenge["status"] == "pending":
                await client.post(challenge["url"], {})
            document = await self._poll(client, url, "pending")
        finally:
            await self._in_thread(self._cache.delete_challenge, host)
        if document["status"] != "valid":
            errors = [each["error"] for each in document["challenges"] if each.get("error")]
            reasons = "; ".join(map(format_problem, errors)) or f"status {document['status']}"
            raise ACMEError(f"validation of {host} failed: {reasons}")

    async def _finalize(self, client: ACMEClient, url: str) -> tuple[bytes, bytes]:
        """Finalize a validated order; return the chain and its key, both PEM."""
        document = await self._poll(client, url, "pending")
        key = generate_key()
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(alternative_names(self._cache.hosts), critical=False)
            .sign(key, hashes.SHA256())
        )
        if document["status"] == "ready":
            der = request.public_bytes(serialization.Encoding.DER)
            await client.post(document["finalize"], {"csr": encode_b64jose(der)})
            document = await self._poll(client, url, "ready", "processing")
        if document["status"] != "valid":
            reason = format_problem(document.get("error") or {}) or f"status {document['status']}"
            raise ACMEError(f"{url}: the order failed: {reason}")
        chain = (await client.post(document["certificate"])).content
        try:
            own = x509.load_pem_x509_certificates(chain)[0]
        except ValueError as error:
            raise ACMEError(f"{document['certificate']}: contains no certificate in PEM") from error
        if own.public_key() != key.public_key():
            raise ACMEError(f"{document['certificate']}: is for another key")
        return chain, key_pem(key)

    async def _poll(self, client: ACMEClient, url: str, *before: str) -> dict[str, Any]:
        """Poll an object until its status is none of ``before``, and return it."""
        for _ in range(_MAX_POLLS):
            reply = await client.post(url)
            document = reply.document
            if document["status"] not in before:
                return document
            wait = min(max(reply.retry_after or _DEFAULT_POLL_S, _MIN_POLL_S), _MAX_POLL_S)
            await deferLater(self._reactor, wait)
        raise ACMEError(f"{url}: still {document['status']} after {_MAX_POLLS} polls")
