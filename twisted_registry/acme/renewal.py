"""Ordering a certificate when there is none, and when a third of its time is left.

What fails is tried again later and later, while the certificate that is there is shown. Let's
Encrypt counts five failures for a host in an hour, and then says no to everything: the pauses stay
below that.

From an order to a certificate (RFC 8555, section 7.4), with TLS-ALPN-01 (RFC 8737).
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
from twisted_registry.acme.client import ACMEClient, ACMEError, told
from twisted_registry.tls.authority import alternative_names, generate_key, key_pem

if TYPE_CHECKING:
    from collections.abc import Callable

    # @@EMPTY
    from twisted.web.iweb import IAgent

    from twisted_registry.acme.cache import ACMECache

log = Logger()

#: Seconds between two looks whether it is time.
CHECK_INTERVAL_S: Final = 60.0
#: Seconds until a certificate that is good for longer is looked at again: files may be lost.
_RECHECK_S: Final = 3600.0
#: Seconds until an order that failed is tried again; doubled each time, up to the limit.
_MIN_RETRY_S: Final = 600.0
_MAX_RETRY_S: Final = 24 * 3600.0
#: Seconds until it is looked at again what another process orders.
_BUSY_RETRY_S: Final = 300.0
#: Seconds that an order may take.
_ORDER_TIMEOUT_S: Final = 1800.0


class CertificateRenewal(Service):
    """Orders certificates in time."""

    def __init__(
        self,
        clock: Any,
        cache: ACMECache,
        orders: Orders,
        in_thread: Callable[..., Deferred[Any]],
        renewed: Callable[[], object],
    ) -> None:
        """Take what to order with, and where it is kept.

        :param in_thread: calls what blocks, the cache.
        :param renewed: called when there is another certificate.
        """
        self._clock = clock
        self._cache = cache
        self._orders = orders
        self._in_thread = in_thread
        self._renewed = renewed
        self._failures = 0
        self._next_attempt = 0.0
        self._renewing: Deferred[None] | None = None
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        """Look now, and from now on."""
        super().startService()
        self._loop.start(CHECK_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Look no more; an order that is under way is given up."""
        super().stopService()
        self._loop.stop()
        busy, ended = self._renewing, Deferred[None]()
        if busy is None:
            ended.callback(None)
        else:
            busy.addBoth(lambda _: ended.callback(None))
            busy.cancel()
        return ended

    def retry_now(self) -> None:
        """Look at the next opportunity, whatever has failed before."""
        self._failures, self._next_attempt = 0, 0.0

    def _check(self) -> None:
        # The loop is not told of the order, which it would wait for: a stop could not cancel it.
        if self._renewing is None and self._clock.seconds() >= self._next_attempt:
            self._renewing = Deferred.fromCoroutine(self._renew())
            self._renewing.addBoth(self._renew_ended)

    def _renew_ended(self, _: object) -> None:
        self._renewing = None

    async def _renew(self) -> None:
        self._next_attempt = self._clock.seconds() + _RECHECK_S
        try:
            with self._cache.order_lock() as order_lock:
                if not order_lock:
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
            return  # we stop
        except Exception as error:  # noqa: BLE001 - whatever the server's answers lead to
            log.failure("answers of the ACME server make no sense")
            self._schedule_retry(f"{type(error).__name__}: {error}")
        else:
            self._failures = 0
            self._renewed()

    def _schedule_retry(self, reason: str, wait: float = 0.0) -> None:
        if not self.running:
            return
        wait = max(wait, min(_MIN_RETRY_S * 2**self._failures, _MAX_RETRY_S))
        self._failures += 1
        self._next_attempt = self._clock.seconds() + wait
        log.error(
            "http.tls.letsencrypt: {reason}; tried again in {minutes:.0f} minutes; the certificate"
            " in use stays",
            reason=reason,
            minutes=wait / 60,
        )


_CHALLENGE_TYPE: Final = "tls-alpn-01"
#: How often something is looked at until it is settled; with the pauses, some ten minutes.
_MAX_POLLS: Final = 60
#: Seconds between two looks: at least, if the server does not say, and at most.
_MIN_POLL_S, _DEFAULT_POLL_S, _MAX_POLL_S = 0.2, 2.0, 60.0


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
        """Take who to ask, as whom, and for what.

        :param directory: the URL of the ACME server's directory.
        :param email: who is to be told of trouble; may be empty.
        :param in_thread: calls what blocks, the cache, with its arguments.
        """
        self._reactor = reactor
        self._cache = cache
        self._directory = directory
        self._email = email
        self._in_thread = in_thread
        self._agent = agent

    async def order(self) -> None:
        """Have a certificate, and keep it. Takes seconds, or minutes.

        :raises ACMEError: if the server gives none.
        """
        hosts = self._cache.hosts
        log.info(
            "asking {directory} for a certificate for {hosts}",
            directory=self._directory,
            hosts=", ".join(hosts),
        )
        account_key = await self._in_thread(self._cache.account_key)
        client = ACMEClient(self._reactor, self._directory, account_key, self._agent)
        terms = await client.register(self._email)
        if terms is not None:
            log.info("an account was made, and its terms agreed to: {terms}", terms=terms or "none")
        wanted = {"identifiers": [{"type": "dns", "value": host} for host in hosts]}
        made = await client.post(client.directory_url("newOrder"), wanted)
        for url in made.document["authorizations"]:
            await self._authorize(client, url)
        chain, key = await self._finalize(client, made.location)
        await self._in_thread(self._cache.store_certificate, chain, key)

    async def _authorize(self, client: ACMEClient, url: str) -> None:
        """Prove that a host is ours."""
        document = (await client.post(url)).document
        if document["status"] == "valid":
            return
        host = document["identifier"]["value"]
        challenges = [each for each in document["challenges"] if each["type"] == _CHALLENGE_TYPE]
        if not challenges:
            raise ACMEError(f"{url}: has no challenge {_CHALLENGE_TYPE} for {host}")
        (challenge, *_) = challenges
        authorization = client.authorization(challenge["token"])
        answer = make_challenge_certificate(host, authorization, self._reactor.seconds())
        await self._in_thread(self._cache.answer, host, *answer)
        try:
            if challenge["status"] == "pending":
                await client.post(challenge["url"], {})
            document = await self._poll(client, url, "pending")
        finally:
            await self._in_thread(self._cache.delete_challenge, host)
        if document["status"] != "valid":
            errors = [each["error"] for each in document["challenges"] if each.get("error")]
            reasons = "; ".join(map(told, errors)) or f"it is {document['status']}"
            raise ACMEError(f"{host} could not be shown to be ours: {reasons}")

    async def _finalize(self, client: ACMEClient, url: str) -> tuple[bytes, bytes]:
        """The chain of an order whose hosts are ours, and its key; both PEM."""
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
            reason = told(document.get("error") or {}) or f"it is {document['status']}"
            raise ACMEError(f"{url}: the order came to nothing: {reason}")
        chain = (await client.post(document["certificate"])).content
        try:
            own = x509.load_pem_x509_certificates(chain)[0]
        except ValueError as error:
            raise ACMEError(f"{document['certificate']}: holds no certificate in PEM") from error
        if own.public_key() != key.public_key():
            raise ACMEError(f"{document['certificate']}: is a certificate for another key")
        return chain, key_pem(key)

    async def _poll(self, client: ACMEClient, url: str, *before: str) -> dict[str, Any]:
        """Something, as soon as its status is none of ``before``."""
        for _ in range(_MAX_POLLS):
            reply = await client.post(url)
            document = reply.document
            if document["status"] not in before:
                return document
            wait = min(max(reply.retry_after or _DEFAULT_POLL_S, _MIN_POLL_S), _MAX_POLL_S)
            await deferLater(self._reactor, wait)
        raise ACMEError(f"{url}: still {document['status']}, after {_MAX_POLLS} looks")
