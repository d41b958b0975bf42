"""From an order to a certificate (RFC 8555, section 7.4), with TLS-ALPN-01 (RFC 8737)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from josepy.json_util import encode_b64jose
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_registry.letsencrypt.client import ACMEClient, ACMEError, told
from twisted_registry.letsencrypt.selfsigned import make_challenge_certificate
from twisted_registry.tls.authority import alternative_names, key_pem, generate_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.web.iweb import IAgent

    from twisted_registry.letsencrypt.cache import ACMECache

log = Logger()

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
