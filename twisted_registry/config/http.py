"""The ``http`` section: address, TLS, limits, and the debug address.

An address is HOST:PORT as in Distribution, the path of a socket, or a Twisted endpoint string.
:func:`parse_address` makes all three an endpoint string for ``serverFromString``, and checks it as
far as that is possible without Twisted, so that a wrong port is a fault of the configuration and
not a traceback at the start.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from attrs import frozen

from twisted_registry.config import values
from twisted_registry.config.document import quote_value
from twisted_registry.config.kinds import (
    ListOf,
    Scalar,
    boolean,
    choice,
    duration,
    headers,
    integer,
    size,
    text,
    text_list,
)
from twisted_registry.config.sections import Section, SectionBase, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_registry.config.document import Node, Report
    from twisted_registry.config.storage import Storage

#: This machine only, because the default configuration has no authentication.
DEFAULT_ADDR: Final = "127.0.0.1:5000"

#: The positional and keyword arguments of Twisted's own endpoints; others come from plugins.
_ENDPOINT_KEYWORDS: Final = {
    "tcp": {"port", "interface", "backlog"},
    "tcp6": {"port", "interface", "backlog"},
    "unix": {"address", "mode", "backlog", "lockfile"},
    "systemd": {"domain", "index", "name"},
}
_PORT_ENDPOINTS: Final = frozenset({"tcp", "tcp6", "ssl"})
#: Endpoints that accept connections from a plain socket, without a protocol around them.
_SOCKET_ENDPOINTS: Final = frozenset({"tcp", "tcp6", "unix", "systemd"})
_ENDPOINT_NAME: Final = re.compile(r"[a-z][a-z0-9]*")
_ENDPOINT_ARGUMENT: Final = re.compile(r"(?:\\.|[^\\:])*")
_ENDPOINT_KEYWORD: Final = re.compile(r"(?s)([^=\\]*)=(.*)")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")
_DIGITS: Final = re.compile("[0-9]+")

#: Loopback, private and link-local addresses, and Unix sockets; the HTTP engine has the same list.
DEFAULT_TRUSTED_PROXIES: Final = (
    *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *("169.254.0.0/16", "fc00::/7", "fe80::/10", "unix"),
)

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


@frozen
class Address:
    """An address to listen on.

    :ivar text: as it is configured.
    :ivar endpoint: the same as a server endpoint string of Twisted.
    :ivar host: the interface of a TCP address; empty for all interfaces, or for another type.
    :ivar port: the port of a TCP address, 0 for a free port; None for another type.
    :ivar path: the path of a Unix socket, or empty.
    """

    text: str
    endpoint: str
    host: str = ""
    port: int | None = None
    path: str = ""

    @property
    def shareable(self) -> bool:
        """Whether it is a plain socket, from which several processes can accept connections."""
        return self.endpoint.partition(":")[0] in _SOCKET_ENDPOINTS


def parse_address(text: str, *, unix: bool = False) -> Address:
    """Parse HOST:PORT, a socket path or an endpoint string.

    :param unix: text that is not an endpoint string is the path of a socket.
    :raise ValueError: if it is none of them.
    """
    name, colon, rest = text.partition(":")
    if not text.isprintable() or not text.strip():
        raise ValueError
    known = name in _ENDPOINT_KEYWORDS or name in _PORT_ENDPOINTS
    # The endpoint of a plugin (haproxy:tcp:5000) has more than one colon; HOST:PORT has one.
    if colon and rest and (known or (_ENDPOINT_NAME.fullmatch(name) and ":" in rest)):
        return _parse_endpoint(text, name)
    if unix:
        return Address(text, f"unix:{_escape(text)}", path=text)
    return _parse_host_and_port(text)


def _parse_host_and_port(text: str) -> Address:
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise ValueError
    port = _parse_port(digits)
    if host.startswith("[") and host.endswith("]"):
        host = str(IPv6Address(host[1:-1]))
        return Address(text, f"tcp6:{port}:interface={_escape(host)}", host, port)
    if not host:
        return Address(text, f"tcp:{port}", "", port)
    if not _HOST.fullmatch(host):
        raise ValueError
    return Address(text, f"tcp:{port}:interface={host}", host, port)


def _parse_endpoint(text: str, name: str) -> Address:
    positional, keywords = _split_arguments(text[len(name) + 1 :])
    allowed = _ENDPOINT_KEYWORDS.get(name)
    if allowed is not None and (set(keywords) - allowed or len(positional) > 1):
        raise ValueError
    if name in _PORT_ENDPOINTS:
        digits = keywords["port"] if "port" in keywords else positional[0] if positional else ""
        return Address(text, text, keywords.get("interface", ""), _parse_port(digits))
    if name == "unix":
        path = keywords.get("address", positional[0] if positional else "")
        if not path:
            raise ValueError
        return Address(text, text, path=path)
    if (
        name == "systemd"
        and "name" not in keywords
        and not _DIGITS.fullmatch(keywords.get("index", ""))
    ):
        raise ValueError
    return Address(text, text)


def _split_arguments(text: str) -> tuple[list[str], dict[str, str]]:
    """Return the positional and keyword arguments of an endpoint; a backslash escapes."""
    positional: list[str] = []
    keywords: dict[str, str] = {}
    start = 0
    while start <= len(text):
        match = _ENDPOINT_ARGUMENT.match(text, start)
        if match is None or (match.end() < len(text) and text[match.end()] != ":"):
            raise ValueError
        keyword = _ENDPOINT_KEYWORD.fullmatch(match[0])
        if keyword:
            keywords[keyword[1]] = _unescape(keyword[2])
        else:
            positional.append(_unescape(match[0]))
        start = match.end() + 1
    return positional, keywords


def _parse_port(digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise ValueError
    port = int(digits)
    if port > 65535:
        raise ValueError
    return port


def _escape(text: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _is_domain_name(name: str) -> bool:
    return len(name) <= _MAX_DOMAIN_NAME_CHARS and _DOMAIN_NAME.fullmatch(name) is not None


def _host(node: Node) -> str:
    """Check a domain name, optionally a wildcard, or an IP address."""
    host = values.text(node).lower()
    return host if _is_domain_name(host) else str(ip_address(host))


def _proxy(node: Node) -> str:
    """Check a network, an address, or the word unix."""
    name = values.text(node).lower()
    return name if name == "unix" else str(ip_network(name))


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
    pattern: re.Pattern[str] = key(
        Scalar("a regular expression", values.regex),
        "A regular expression that must match all of it.",
        default=re.compile(".+"),
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


class Prometheus(SectionBase):
    """``http.debug.prometheus``."""

    enabled: bool = key(boolean(), "Serve metrics.")
    path: str = key(
        Scalar("a path that starts with /", values.path),
        "The path of the metrics.",
        default="/metrics",
    )


class Debug(SectionBase):
    """``http.debug``."""

    addr: str = key(
        text("HOST:PORT or a Twisted endpoint string"),
        "A second address, for operators. It has no authentication: every client that can connect"
        " can read everything there.",
    )
    prometheus: Prometheus = section(
        Prometheus, "Prometheus metrics. Needs ``twisted-registry[metrics]``."
    )


class Http2(SectionBase):
    """``http.http2``."""

    disabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.")


class H2c(SectionBase):
    """``http.h2c``."""

    enabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.")


#: Requests per second.
_RATE: Final = Scalar(
    "a number of requests per second, 0 or more, such as 20 or 0.5", values.rate, default=0.0
)


class Limits(SectionBase):
    """``http.limits``."""

    headerbytes: int = key(
        size(1024), "The largest header section; a larger one returns 431.", default=16 * 1024
    )
    urlbytes: int = key(
        size(1024), "The longest request target; a longer one returns 414.", default=8 * 1024
    )
    manifestbytes: int = key(
        size(4 * 2**20), "The largest manifest; a larger one returns 413.", default=4 * 2**20
    )
    manifestdepth: int = key(
        integer(8, 500),
        "The deepest nesting of objects and lists in a manifest; a deeper one returns 400.",
        default=32,
    )
    manifestvalues: int = key(
        integer(1000),
        "The most values in a manifest, counted by its commas, brackets, braces and backslashes;"
        " one with more returns 400. Parsing 100,000 holds up a process for up to 30 ms.",
        default=100_000,
    )
    blobbytes: int = key(
        size(0), "The largest blob; a larger one returns 413, ``DENIED``. 0 is no limit."
    )
    requestsperaddress: float = key(
        _RATE,
        "The most requests per second from one client address (IPv6: from one /64 network), with"
        " bursts of ten times as many; more return 429 with ``Retry-After``. Counted by each"
        " process. 0 is no limit.",
    )
    requestsperuser: float = key(
        _RATE, "The same for each user, whatever the address. 0 is no limit."
    )
    uploadsperuser: int = key(
        integer(0),
        "The most uploads that a user, or a client address without a login, sends to one process"
        " at the same time; more return 429 with ``Retry-After``. docker sends up to 5. 0 is no"
        " limit.",
    )
    headertimeout: float = key(
        duration(positive=True),
        "The timeout of the headers of a request, from its first byte.",
        default=20.0,
    )
    idletimeout: float = key(
        duration(positive=True), "The timeout of a connection between two requests.", default=60.0
    )
    bodytimeout: float = key(
        duration(positive=True), "The timeout of a body that makes no progress.", default=60.0
    )
    bodyrate: int = key(
        size(0),
        "The lowest rate of a request body, in bytes per second, on average over ``bodytimeout``; a"
        " slower one returns 408. Time in which the registry reads nothing, because the store is"
        " busy, is not counted. 0: none.",
        default=512,
    )
    connections: int = key(
        integer(0),
        "How many connections a process has open at a time. Above it, those that have waited"
        " longest for a request are closed; if none waits, new ones are refused. 0: half of the"
        " descriptors that the process may have, and at most 8192.",
    )
    connectionsperaddress: int = key(
        integer(0),
        "The same for one IPv4 address, or IPv6 network of 64 bits, and each process. Addresses in"
        " a ``trustedproxies`` that is set are not limited. 0: none.",
    )


class Http(SectionBase):
    """``http``."""

    addr: str = key(
        Scalar("HOST:PORT, a socket path or a Twisted endpoint string", values.nonempty_text),
        "The address to listen on: ``HOST:PORT`` (without a host: every IPv4 interface), a path if"
        " ``net`` is unix, or a server endpoint string of Twisted such as"
        " ``unix:/run/registry.sock:mode=660`` or ``systemd:domain=INET:index=0``.",
        default=DEFAULT_ADDR,
    )
    net: str = key(choice("tcp", "unix"), "The type of ``addr``.", default="tcp")
    prefix: str = key(
        Scalar("a path that starts and ends with /", values.prefix),
        "A path before that of the API, which is then at ``PREFIXv2/``.",
    )
    host: str = key(
        Scalar("an absolute http or https URL without query", values.base_url),
        "The URL of the registry for clients, used in Location headers. If not set, it is taken"
        " from the Host header of each request, or from the Forwarded and X-Forwarded-* headers of"
        " ``trustedproxies``.",
    )
    trustedproxies: tuple[str, ...] = key(
        ListOf(
            "a list of networks",
            Scalar("a network such as 10.0.0.0/8, an IP address, or unix", _proxy),
        ),
        "The proxies whose Forwarded, X-Forwarded-* and X-Real-IP headers are believed: networks,"
        " addresses, and ``unix`` for clients on Unix sockets. By default loopback, private and"
        " link-local addresses and Unix sockets. ``[]``: none.",
        default=DEFAULT_TRUSTED_PROXIES,
        extension=True,
    )
    relativeurls: bool = key(boolean(), "Send Location headers without a host.")
    secret: str = key(
        text(),
        "Signs the state of uploads. If not set, a random secret is created and kept in the store,"
        " so that uploads can continue after a restart and on every machine that shares the store.",
        secret=True,
    )
    draintimeout: float = key(duration(), "How long a shutdown waits for active requests.")
    headers: Mapping[str, tuple[str, ...]] = key(
        headers(),
        "Headers of every response of the API. CORS headers allow access from browsers."
        " ``X-Content-Type-Options`` and ``Content-Security-Policy`` have defaults.",
    )
    workers: int = key(
        Scalar(f"an integer from 1 to {values.MAX_WORKERS}, or auto", values.worker_count),
        "The number of processes that serve. ``auto``: one for each CPU. They share the listening"
        " socket and the store, so the store cannot be in memory.",
        default=1,
        extension=True,
    )
    limits: Limits = section(Limits, "Limits of requests.", extension=True)
    tls: Tls = section(Tls, "TLS. Without a certificate the registry serves plain HTTP.")
    debug: Debug = section(Debug, "Health, metrics and maintenance on a separate address.")
    http2: Http2 | None = key(
        Section(Http2, allows_empty=True), "HTTP/2 over TLS. Accepted; not served."
    )
    h2c: H2c | None = key(
        Section(H2c, allows_empty=True), "HTTP/2 without TLS. Accepted; not served."
    )

    @property
    def address(self) -> Address:
        """The address to listen on.

        :raise ValueError: if ``addr`` is not an address; never once the configuration is checked.
        """
        return parse_address(self.addr, unix=self.net == "unix")


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
