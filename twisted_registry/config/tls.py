"""The ``http.tls`` section: certificates, versions, cipher suites, and client certificates."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.document import quote_value
from twisted_registry.config.kinds import ListOf, Scalar, choice, text, text_list
from twisted_registry.config.sections import Section, SectionBase, key, section
from twisted_registry.oci.linear_regex import LinearRegex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.config.document import Node, Report
    from twisted_registry.config.http import Http
    from twisted_registry.config.storage import Storage

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
#: A domain name, optionally a wildcard. Its last label is not a number.
_DOMAIN_NAME: Final = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}", re.ASCII)
_MAX_DOMAIN_NAME_CHARS: Final = 253
#: A group in ``http.tls.clientusers[].user``.
_GROUP: Final = re.compile(r"\{(\d)\}")
_LETSENCRYPT_DIRECTORY_URL: Final = "https://acme-v02.api.letsencrypt.org/directory"

#: The keys of ``http.tls`` that give a certificate, the key below each that must be set, and to
#: what.
_CERTIFICATE_SOURCES: Final = {
    "certificate": ("certificate", "a file"),
    "key": ("certificate", "a file"),
    "auto": ("auto.hosts", "the host names of this registry"),
    "letsencrypt": ("letsencrypt.cachefile", "a directory"),
}

#: The cipher suites of TLS 1.2: IANA names and OpenSSL names.
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
#: The cipher suites of TLS 1.3. All of them are always offered, as in Distribution, so that naming
#: one has no effect.
TLS13_SUITES: Final = frozenset({
    "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256",
})  # fmt: skip
#: The first suites of TLS12_SUITES, with forward secrecy and AEAD, are the default.
_DEFAULT_SUITE_COUNT: Final = 6


def _is_domain_name(name: str) -> bool:
    return len(name) <= _MAX_DOMAIN_NAME_CHARS and _DOMAIN_NAME.fullmatch(name) is not None


def _host(node: Node) -> str:
    """Check a domain name, optionally a wildcard, or an IP address."""
    host = values.text(node).lower()
    return host if _is_domain_name(host) else str(ip_address(host))


def _public_domain(node: Node) -> str:
    name = values.text(node).lower()
    if name.startswith("*") or "." not in name or not _is_domain_name(name):
        raise ValueError
    return name


class ClientUser(SectionBase):
    """``http.tls.clientusers[]``."""

    source: str = key(
        choice("cn", "dns", "email", "uri"),
        "The part of the certificate that is matched: a common name of the subject, or a subject"
        " alternative name.",
        default="cn",
        name="from",
    )
    pattern: LinearRegex = key(
        Scalar("a regular expression in the syntax of Go (RE2)", values.regex),
        "A regular expression that must match all of it.",
        default=LinearRegex(".+"),
    )
    organization: str = key(text(), "An organization (``O``) that the subject must have as well.")
    user: str = key(
        text(),
        "The name of the user. ``{0}`` is the matched text, ``{1}`` the first group of the"
        " pattern.",
        default="{0}",
    )
    groups: tuple[str, ...] = key(
        text_list("a list of groups"), "The groups of the user, for ``access``."
    )


class LetsEncrypt(SectionBase):
    """``http.tls.letsencrypt``."""

    cachefile: str = key(
        text("a path"),
        "The directory of the account and the certificate. It is created if it does not exist.",
    )
    email: str = key(text(), "The contact address of the account.")
    hosts: tuple[str, ...] = key(
        ListOf("a list of host names", Scalar("a public host name", _public_domain)),
        "The host names of this registry, all in one certificate.",
    )
    directoryurl: str = key(
        text("a URL"), f"The directory of the ACME server. Empty: ``{_LETSENCRYPT_DIRECTORY_URL}``."
    )

    @property
    def directory(self) -> str:
        """The URL of the directory of the ACME server."""
        return self.directoryurl or _LETSENCRYPT_DIRECTORY_URL


class Auto(SectionBase):
    """``http.tls.auto``."""

    hosts: tuple[str, ...] = key(
        ListOf("a list of host names and addresses", Scalar("a host name or an address", _host)),
        "The host names and addresses of this registry, such as ``registry.lan``.",
    )
    folder: str = key(
        text("a path"),
        "The directory of the authority and the certificates. Empty: ``twisted-registry/tls`` below"
        " the root directory of the store.",
    )


class Tls(SectionBase):
    """``http.tls``."""

    certificate: str = key(
        text("a path"),
        "A PEM file with the certificate and its chain. If it is set, the registry serves only"
        " TLS.",
    )
    keyfile: str = key(
        text("a path"),
        "A PEM file with the private key of ``certificate``, without a passphrase.",
        name="key",
    )
    clientcas: tuple[str, ...] = key(
        text_list("a list of paths"),
        "PEM files of certificate authorities for client certificates. If set, clients are"
        " requested to send a certificate.",
    )
    clientauth: str = key(
        choice(
            "",
            "request-client-cert",
            "require-any-client-cert",
            "verify-client-cert-if-given",
            "require-and-verify-client-cert",
        ),
        "How client certificates are requested and verified, if ``clientcas`` is set. Empty:"
        " ``require-and-verify-client-cert``.",
    )
    minimumtls: str = key(
        choice("", "tls1.2", "tls1.3"), "The oldest version of TLS. Empty: ``tls1.2``."
    )
    ciphersuites: tuple[str, ...] = key(
        ListOf("a list of cipher suites", choice(*TLS12_SUITES, *sorted(TLS13_SUITES))),
        "IANA names of the cipher suites of TLS 1.2. Empty: ECDHE with AES-GCM or ChaCha20. The"
        " suites of TLS 1.3 are always offered.",
    )
    letsencrypt: LetsEncrypt = section(LetsEncrypt, "Certificates by ACME.")
    auto: Auto = section(
        Auto,
        "A certificate authority and a certificate that the registry creates.",
        strict=True,
        extension=True,
    )
    clientusers: tuple[ClientUser, ...] = key(
        ListOf("a list of rules", Section(ClientUser, strict=True)),
        "Rules that map client certificates to users; the first match applies. Such clients need no"
        " password.",
        extension=True,
    )

    @property
    def is_enabled(self) -> bool:
        """Whether the registry serves TLS."""
        return bool(self.certificate or self.auto.hosts or self.letsencrypt.cachefile)

    @property
    def ciphers(self) -> tuple[str, ...]:
        """The OpenSSL names of the cipher suites of TLS 1.2; none if TLS 1.2 is disabled."""
        if self.minimumtls == "tls1.3":
            return ()
        names = self.ciphersuites or tuple(TLS12_SUITES)[:_DEFAULT_SUITE_COUNT]
        return tuple(TLS12_SUITES[name] for name in names if name in TLS12_SUITES)


def check_tls(http: Http, storage: Storage, report: Report) -> None:
    """Report keys of ``http.tls`` that contradict each other.

    Distribution serves without TLS if the certificate is missing, and requests no client
    certificates if the authorities are missing. Here both are faults.
    """
    tls = http.tls
    if not (tls.is_enabled or tls.auto.folder or tls.letsencrypt.hosts or tls.letsencrypt.email):
        _check_without_certificate(tls, report)
        return
    _check_source(http, storage, report)
    _check_client_certificates(tls, report)
    if http.addr.startswith("ssl:"):
        report.add_fault(
            "http.addr",
            f"got {quote_value(http.addr)}",
            "HOST:PORT, because http.tls has the certificate",
        )
    _check_suites(tls, report)


def check_empty_tls(http: Http, names: Sequence[str] | None, report: Report) -> None:
    """Report a section ``http.tls`` without a certificate: the registry would serve plain HTTP.

    A section that names no source of a certificate is accepted with a warning, because files of
    Distribution have it where everything below it is commented out. So are empty variables, with
    which TLS is switched off in Distribution.

    :param names: the keys of the section in the file, with or without values; None without section.
    """
    if names is None or http.tls.is_enabled:
        return
    if any(fault.path.startswith("http.tls") for fault in report.faults):
        return
    for name, (key_name, expected) in _CERTIFICATE_SOURCES.items():
        if name in names:
            report.add_fault(
                f"http.tls.{key_name}",
                "not set",
                f"{expected}; to serve plain HTTP, remove http.tls.{name}",
            )
            return
    report.add_warning(
        "http.tls", "has no certificate, auto or letsencrypt; the registry serves plain HTTP"
    )


def _check_without_certificate(tls: Tls, report: Report) -> None:
    options = {
        "key": tls.keyfile,
        "clientcas": tls.clientcas,
        "clientauth": tls.clientauth,
        "clientusers": tls.clientusers,
    }
    for name, value in options.items():
        if value:
            report.add_fault(
                "http.tls.certificate", "not set", f"a file, because http.tls.{name} is set"
            )
            break


def _check_source(http: Http, storage: Storage, report: Report) -> None:
    """Check that exactly one source of the certificate is configured, and completely."""
    tls, auto, acme = http.tls, http.tls.auto, http.tls.letsencrypt
    if acme.cachefile or acme.hosts or acme.email:
        _check_acme(http, report)
    elif auto.folder and not auto.hosts:
        report.add_fault("http.tls.auto.hosts", "not set", "the host names of this registry")
    elif auto.hosts and (tls.certificate or tls.keyfile):
        report.add_fault(
            "http.tls.auto", None, "cannot be used with http.tls.certificate and http.tls.key"
        )
    elif auto.hosts and not auto.folder and storage.filesystem is None:
        report.add_fault(
            "http.tls.auto.folder", "not set", "a directory, because the store is not a filesystem"
        )
    elif tls.certificate and not tls.keyfile:
        report.add_fault("http.tls.key", "not set", "the file with the key of the certificate")


def _check_acme(http: Http, report: Report) -> None:
    tls, acme = http.tls, http.tls.letsencrypt
    if tls.certificate or tls.keyfile or tls.auto.hosts or tls.auto.folder:
        report.add_fault(
            "http.tls.letsencrypt",
            None,
            "cannot be used with http.tls.auto, http.tls.certificate or http.tls.key",
        )
    elif not acme.cachefile:
        report.add_fault("http.tls.letsencrypt.cachefile", "not set", "a directory")
    elif not acme.hosts:
        # Invalid names have been reported and left out.
        if not any(fault.path.startswith("http.tls.letsencrypt.hosts") for fault in report.faults):
            report.add_fault(
                "http.tls.letsencrypt.hosts", "not set", "the host names of this registry"
            )
    elif not acme.directory.startswith("https://"):
        report.add_fault(
            "http.tls.letsencrypt.directoryurl",
            f"got {quote_value(acme.directory)}",
            "a URL that begins with https://",
        )
    elif not http.addr.endswith(":443"):
        report.notices.append(
            f"http.tls.letsencrypt: ACME servers connect to port 443 of {acme.hosts[0]}; it must"
            " forward to http.addr"
        )


def _check_client_certificates(tls: Tls, report: Report) -> None:
    if tls.clientauth and not tls.clientcas:
        report.add_fault(
            "http.tls.clientcas",
            "not set",
            f"files of certificate authorities, because clientauth is {tls.clientauth}",
        )
    if tls.clientusers and not (tls.clientcas and "verify" in (tls.clientauth or "verify")):
        report.add_fault(
            "http.tls.clientusers",
            None,
            "requires verified certificates: set clientcas, and a clientauth that verifies",
        )
    _check_client_users(tls.clientusers, report)


def _check_client_users(users: Sequence[ClientUser], report: Report) -> None:
    for index, rule in enumerate(users):
        path = f"http.tls.clientusers[{index}].user"
        highest = max((int(group) for group in _GROUP.findall(rule.user)), default=0)
        if highest > rule.pattern.groups:
            report.add_fault(
                path,
                f"got {quote_value(rule.user)}",
                f"no group above {rule.pattern.groups}, the number of groups of the pattern",
            )
        if not rule.user:
            report.add_fault(path, "got ''", "a name")


def _check_suites(tls: Tls, report: Report) -> None:
    if not tls.ciphersuites:
        return
    if tls.minimumtls == "tls1.3":
        report.notices.append(
            "http.tls.ciphersuites: no effect, the suites of TLS 1.3 are always offered"
        )
    elif not tls.ciphers:
        report.add_fault(
            "http.tls.ciphersuites",
            f"got {', '.join(tls.ciphersuites)}",
            "a cipher suite of TLS 1.2 as well, or http.tls.minimumtls tls1.3",
        )
