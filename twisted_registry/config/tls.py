"""``http.tls``: certificates, and what is asked of clients."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from twisted_registry.config.clientusers import ClientUser, check_client_users
from twisted_registry.config.faults import quote_value
from twisted_registry.config.forms import choice, text, text_list
from twisted_registry.config.kinds import ListOf, Scalar
from twisted_registry.config.sections import Section, SectionBase, key, schema, section
from twisted_registry.config.values import text as text_of

if TYPE_CHECKING:
    from twisted_registry.config.document import Node
    from twisted_registry.config.faults import Report
    from twisted_registry.config.serving import Http
    from twisted_registry.config.storing import Storage

#: Cipher suites of TLS 1.2 by their IANA names, with what OpenSSL calls them.
TLS12_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
}
#: Those of TLS 1.3. All of them are good, and Distribution always offers all: to name one is no
#: fault and changes nothing.
TLS13_SUITES: Final = frozenset({
    "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256",
})  # fmt: skip
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
#: A host name, perhaps for all those below it. The last label of a name has a letter.
_NAME: Final = rf"(?:\*\.)?(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}"
#: How many of SUITES, from its beginning, are offered by default: forward secret and authenticated.
_DEFAULT_SUITE_COUNT: Final = 6
_LETSENCRYPT_DIRECTORY_URL: Final = "https://acme-v02.api.letsencrypt.org/directory"


def _is_name(said: str) -> bool:
    return len(said) <= 253 and re.fullmatch(_NAME, said, re.ASCII) is not None


def _host(node: Node) -> str:
    said = text_of(node).lower()
    if _is_name(said):
        return said
    return str(ip_address(said))


def _domain(node: Node) -> str:
    said = text_of(node).lower()
    if said.startswith("*") or "." not in said or not _is_name(said):
        raise ValueError
    return said


@schema
class LetsEncrypt(SectionBase):
    """``http.tls.letsencrypt``."""

    cachefile: str = key(
        text("a path"), "A folder for the account and the certificate, made if it is missing.",
        default="",
    )  # fmt: skip
    email: str = key(text(), "Whom Let's Encrypt may write to about the account.", default="")
    hosts: tuple[str, ...] = key(
        ListOf("a list of host names", Scalar("a host name of the internet", _domain)),
        "The host names of this registry, all in one certificate.", default=(),
    )  # fmt: skip
    directoryurl: str = key(
        text("a URL"), f"The directory of the ACME server. Empty: ``{_LETSENCRYPT_DIRECTORY_URL}``.", default=""
    )

    @property
    def directory(self) -> str:
        """Where the ACME server is."""
        return self.directoryurl or _LETSENCRYPT_DIRECTORY_URL


@schema
class Auto(SectionBase):
    """``http.tls.auto``."""

    hosts: tuple[str, ...] = key(
        ListOf("a list of host names and addresses", Scalar("a host name or an address", _host)),
        "What clients call this registry: names, as ``registry.lan``, and addresses.", default=(),
        extension=True,
    )  # fmt: skip
    folder: str = key(
        text("a path"), "Where authority and certificates are kept. Empty: ``twisted-registry/tls``"
        " below the root directory of the store.", default="", extension=True,
    )  # fmt: skip


@schema
class Tls(SectionBase):
    """``http.tls``."""

    certificate: str = key(
        text("a path"), "A PEM file: the certificate, then those that vouch for it. With it the"
        " registry serves over TLS alone.", default="",
    )  # fmt: skip
    keyfile: str = key(
        text("a path"), "A PEM file with the private key of ``certificate``, without a"
        " passphrase.", default="", name="key",
    )  # fmt: skip
    clientcas: tuple[str, ...] = key(
        text_list("a list of paths"), "PEM files of authorities for certificates of clients. With them"
        " clients are asked for one.", default=(),
    )  # fmt: skip
    clientauth: str = key(
        choice(
            "", "request-client-cert", "require-any-client-cert", "verify-client-cert-if-given",
            "require-and-verify-client-cert",
        ),
        "What is asked of clients, where there are ``clientcas``. Empty:"
        " ``require-and-verify-client-cert``.", default="",
    )  # fmt: skip
    minimumtls: str = key(
        choice("", "tls1.2", "tls1.3"), "The oldest version of TLS. Empty: ``tls1.2``.", default=""
    )
    ciphersuites: tuple[str, ...] = key(
        ListOf("a list of names", choice(*TLS12_SUITES, *sorted(TLS13_SUITES))),
        "IANA names of cipher suites, for TLS 1.2. Empty: ECDHE with AES-GCM or ChaCha20."
        " TLS 1.3 always offers all of its own.", default=(),
    )  # fmt: skip
    letsencrypt: LetsEncrypt = section(LetsEncrypt, "Certificates by ACME.")
    auto: Auto = section(
        Auto, "An authority and a certificate that the registry makes itself.", strict=True,
        extension=True,
    )  # fmt: skip
    clientusers: tuple[ClientUser, ...] = key(
        ListOf("a list of rules", Section("a section", ClientUser, strict=True)),
        "Which certificates of clients are which user's; the first rule that fits holds. Such a"
        " client needs no password.", default=(), extension=True,
    )  # fmt: skip

    @property
    def is_enabled(self) -> bool:
        """Whether the registry is to be served over TLS."""
        return bool(self.certificate or self.auto.hosts or self.letsencrypt.cachefile)

    @property
    def ciphers(self) -> tuple[str, ...]:
        """OpenSSL's names of the cipher suites for TLS 1.2; none if it is not to be spoken."""
        if self.minimumtls == "tls1.3":
            return ()
        names = self.ciphersuites or tuple(TLS12_SUITES)[:_DEFAULT_SUITE_COUNT]
        return tuple(TLS12_SUITES[name] for name in names if name in TLS12_SUITES)


def check_tls(http: Http, storage: Storage, report: Report) -> None:
    """Report what of ``http.tls`` makes no sense together.

    Distribution serves without TLS when the certificate is missing, and asks nobody for a
    certificate when the authorities are: either would be a surprise.
    """
    tls = http.tls
    if not (tls.is_enabled or tls.auto.folder or tls.letsencrypt.hosts or tls.letsencrypt.email):
        _check_none(tls, report)
        return
    _check_source(http, storage, report)
    _check_clients(tls, report)
    if http.addr.startswith("ssl:"):
        report.fault("http.addr", f"got {quote_value(http.addr)}",
                     "HOST:PORT, because http.tls has the certificate")  # fmt: skip
    _check_suites(tls, report)


def _check_none(tls: Tls, report: Report) -> None:
    given = {"key": tls.keyfile, "clientcas": tls.clientcas, "clientauth": tls.clientauth,
             "clientusers": tls.clientusers}  # fmt: skip
    for name, value in given.items():
        if value:
            report.fault("http.tls.certificate", "got nothing",
                         f"a file, because http.tls.{name} is set")  # fmt: skip
            break


def _check_source(http: Http, storage: Storage, report: Report) -> None:
    tls, auto, acme = http.tls, http.tls.auto, http.tls.letsencrypt
    if acme.cachefile or acme.hosts or acme.email:
        _check_acme(http, report)
    elif auto.folder and not auto.hosts:
        report.fault("http.tls.auto.hosts", "got nothing", "what clients call this registry")
    elif auto.hosts and (tls.certificate or tls.keyfile):
        report.fault("http.tls.auto", None, "makes certificate and key: either it, or the files")
    elif auto.hosts and not auto.folder and storage.filesystem is None:
        report.fault("http.tls.auto.folder", "got nothing",
                     "a folder, because the store has none")  # fmt: skip
    elif tls.certificate and not tls.keyfile:
        report.fault("http.tls.key", "got nothing", "the file with the key of the certificate")


def _check_acme(http: Http, report: Report) -> None:
    tls, acme = http.tls, http.tls.letsencrypt
    if tls.certificate or tls.keyfile or tls.auto.hosts or tls.auto.folder:
        report.fault("http.tls.letsencrypt", None, "orders certificate and key: either it, or"
                     " http.tls.auto, or the files")  # fmt: skip
    elif not acme.cachefile:
        report.fault("http.tls.letsencrypt.cachefile", "got nothing", "a folder")
    elif not acme.hosts:
        # Those that are no names have been told of.
        if not any(fault.path.startswith("http.tls.letsencrypt.hosts") for fault in report.faults):
            report.fault("http.tls.letsencrypt.hosts", "got nothing",
                         "what clients call this registry")  # fmt: skip
    elif not acme.directory.startswith("https://"):
        report.fault("http.tls.letsencrypt.directoryurl", f"got {quote_value(acme.directory)}",
                     "a URL that begins with https://")  # fmt: skip
    elif not http.addr.endswith(":443"):
        report.notices.append(
            f"http.tls.letsencrypt: servers of ACME connect to port 443 of {acme.hosts[0]}, which"
            " has to lead to http.addr"
        )


def _check_clients(tls: Tls, report: Report) -> None:
    if tls.clientauth and not tls.clientcas:
        report.fault("http.tls.clientcas", "got nothing",
                     f"files with authorities, for clientauth {tls.clientauth}")  # fmt: skip
    if tls.clientusers and not (tls.clientcas and "verify" in (tls.clientauth or "verify")):
        report.fault("http.tls.clientusers", None, "certificates are believed if they are verified:"
                     " it takes clientcas, and a clientauth that verifies")  # fmt: skip
    check_client_users(tls.clientusers, report)


def _check_suites(tls: Tls, report: Report) -> None:
    if not tls.ciphersuites:
        return
    if tls.minimumtls == "tls1.3":
        report.notices.append("http.tls.ciphersuites: no effect, TLS 1.3 offers all of its own")
    elif not tls.ciphers:
        report.fault("http.tls.ciphersuites", f"got {', '.join(tls.ciphersuites)}",
                     "one of TLS 1.2 too, or http.tls.minimumtls tls1.3")  # fmt: skip
