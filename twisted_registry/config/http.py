"""Where to listen: HOST:PORT as in Distribution, a socket's path, or an endpoint of Twisted.

All three become one endpoint string for ``serverFromString``. The string is checked here as
far as that is possible without Twisted, so that a wrong port is a fault of the configuration
and not a traceback at the start.

``http.tls.clientusers``: users by the certificates of clients. Distribution has no such key.

``http.tls``: certificates, and what is asked of clients.

The ``http`` section: where the registry listens and what its answers say.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
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
    size,
    text,
    text_list,
)
from twisted_registry.config.sections import Section, SectionBase, key, schema, section
from twisted_registry.config.values import text as text_of

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Mapping, Sequence

    from twisted_registry.config.document import Node, Report
    from twisted_registry.config.storage import Storage

# Patterns are compiled once there is something to match, not at each start.
_HOST: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?"
_NAME: Final = r"[a-z][a-z0-9]*"
_PART: Final = r"(?:\\.|[^\\:])*"
_KEYWORD: Final = r"(?s)([^=\\]*)=(.*)"
_PORT_ENDPOINTS: Final = frozenset({"tcp", "tcp6", "ssl"})
#: Endpoint names of Twisted whose connections are those of the socket, with nothing around them.
_SOCKET_ENDPOINTS: Final = frozenset({"tcp", "tcp6", "unix", "systemd"})
#: Endpoint names of Twisted with what they may be told; others come from plugins.
_ENDPOINT_KEYWORDS: Final = {
    "tcp": {"port", "interface", "backlog"},
    "tcp6": {"port", "interface", "backlog"},
    "unix": {"address", "mode", "backlog", "lockfile"},
    "systemd": {"domain", "index", "name"},
}


@frozen
class Address:
    """A place to listen on.

    :ivar text: as it was configured.
    :ivar endpoint: the same, as a server endpoint string of Twisted.
    :ivar host: the interface of a TCP address; empty for all of them, or if it is no such.
    :ivar port: the port of a TCP address; 0 lets the system choose, None if it is no such.
    :ivar path: the path of a socket in the file system, or empty.
    """

    text: str
    endpoint: str
    host: str = ""
    port: int | None = None
    path: str = ""

    @property
    def shareable(self) -> bool:
        """Whether it is a plain socket, from which several processes can accept."""
        return self.endpoint.partition(":")[0] in _SOCKET_ENDPOINTS


def parse_address(text: str, *, unix: bool = False) -> Address:
    """The address that *text* says.

    :param unix: read anything that is no endpoint string as a socket's path.
    :raise ValueError: if it says none.
    """
    name, colon, rest = text.partition(":")
    if not text.isprintable() or not text.strip():
        raise ValueError
    known = name in _ENDPOINT_KEYWORDS or name in _PORT_ENDPOINTS
    # A plugin's endpoint (haproxy:tcp:5000) has more than one colon, or it is HOST:PORT.
    if colon and rest and (known or (re.fullmatch(_NAME, name) and ":" in rest)):
        return _endpoint(text, name)
    if unix:
        return Address(text, f"unix:{_escape(text)}", path=text)
    return _host_and_port(text)


def _host_and_port(text: str) -> Address:
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise ValueError
    port = _port(digits)
    if host.startswith("[") and host.endswith("]"):
        host = str(IPv6Address(host[1:-1]))
        return Address(text, f"tcp6:{port}:interface={_escape(host)}", host, port)
    if not host:
        return Address(text, f"tcp:{port}", "", port)
    if not re.fullmatch(_HOST, host):
        raise ValueError
    return Address(text, f"tcp:{port}:interface={host}", host, port)


def _endpoint(text: str, name: str) -> Address:
    places, words = _split(text[len(name) + 1 :])
    allowed = _ENDPOINT_KEYWORDS.get(name)
    if allowed is not None and (set(words) - allowed or len(places) > 1):
        raise ValueError
    if name in _PORT_ENDPOINTS:
        port = _port(words["port"] if "port" in words else places[0] if places else "")
        return Address(text, text, words.get("interface", ""), port)
    if name == "unix":
        path = words.get("address", places[0] if places else "")
        if not path:
            raise ValueError
        return Address(text, text, path=path)
    if (
        name == "systemd"
        and "name" not in words
        and not re.fullmatch("[0-9]+", words.get("index", ""))
    ):
        raise ValueError
    return Address(text, text)


def _split(text: str) -> tuple[list[str], dict[str, str]]:
    """The arguments by place and by keyword; a backslash takes the next character as it is."""
    places: list[str] = []
    words: dict[str, str] = {}
    start = 0
    part = re.compile(_PART)
    while start <= len(text):
        match = part.match(text, start)
        if match is None or (match.end() < len(text) and text[match.end()] != ":"):
            raise ValueError
        keyword = re.fullmatch(_KEYWORD, match[0])
        if keyword:
            words[keyword[1]] = _unescape(keyword[2])
        else:
            places.append(_unescape(match[0]))
        start = match.end() + 1
    return places, words


def _port(digits: str) -> int:
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


_GROUP: Final = re.compile(r"\{(\d)\}")


@schema
class ClientUser(SectionBase):
    """``http.tls.clientusers[]``: which certificates are which user's."""

    source: str = key(
        choice("cn", "dns", "email", "uri"),
        "What is looked at: a common name of the subject, or an alternative name.",
        default="cn", name="from", extension=True,
    )  # fmt: skip
    pattern: re.Pattern[str] = key(
        Scalar("a regular expression", values.pattern),
        "What it has to be, from its beginning to its end.", default=re.compile(".+"), extension=True,
    )  # fmt: skip
    organization: str = key(
        text(), "An organization (``O``) that the subject has to name besides.", default="",
        extension=True,
    )  # fmt: skip
    user: str = key(
        text(), "What the user is called. ``{0}`` is what was looked at, ``{1}`` the first group"
        " of the pattern.", default="{0}", extension=True,
    )  # fmt: skip
    groups: tuple[str, ...] = key(
        text_list("a list of groups"),
        "The groups of the user, for ``access``.",
        default=(),
        extension=True,
    )


def check_client_users(users: Sequence[ClientUser], report: Report) -> None:
    """Report groups that a pattern does not have."""
    for index, rule in enumerate(users):
        wanted = max((int(found) for found in _GROUP.findall(rule.user)), default=0)
        if wanted > rule.pattern.groups:
            report.fault(f"http.tls.clientusers[{index}].user", f"got {quote_value(rule.user)}",
                         f"no group above {rule.pattern.groups}, which is all that the pattern"
                         " has")  # fmt: skip
        if not rule.user:
            report.fault(f"http.tls.clientusers[{index}].user", "got nothing", "a name")


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
_NAME_TLS: Final = rf"(?:\*\.)?(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}"
#: How many of SUITES, from its beginning, are offered by default: forward secret and authenticated.
_DEFAULT_SUITE_COUNT: Final = 6
_LETSENCRYPT_DIRECTORY_URL: Final = "https://acme-v02.api.letsencrypt.org/directory"


def _is_name(said: str) -> bool:
    return len(said) <= 253 and re.fullmatch(_NAME_TLS, said, re.ASCII) is not None


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
        text("a URL"),
        f"The directory of the ACME server. Empty: ``{_LETSENCRYPT_DIRECTORY_URL}``.",
        default="",
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


#: The default place: this machine alone, because nothing guards the door.
DEFAULT_ADDR = "127.0.0.1:5000"


@schema
class Prometheus(SectionBase):
    """``http.debug.prometheus``."""

    enabled: bool = key(boolean(), "Serve metrics.", default=False)
    path: str = key(Scalar("a path that starts with /", values.path), "Where.", default="/metrics")


@schema
class Debug(SectionBase):
    """``http.debug``."""

    addr: str = key(
        text("HOST:PORT or an endpoint of Twisted"),
        "A second address, for people who run it. Whoever reaches it can read everything there.",
        default="",
    )
    prometheus: Prometheus = section(
        Prometheus, "Metrics; they need the extra ``twisted-registry[metrics]``."
    )


@schema
class Http2(SectionBase):
    """``http.http2``."""

    disabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.", default=False)


@schema
class H2c(SectionBase):
    """``http.h2c``."""

    enabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.", default=False)


@schema
class Limits(SectionBase):
    """``http.limits``: bounds on what a client may send and how long it may take."""

    headerbytes: int = key(
        size(1024), "The largest header section, more is 431.", default=16 * 1024, extension=True
    )
    urlbytes: int = key(
        size(1024), "The longest request target, more is 414.", default=8 * 1024, extension=True
    )
    manifestbytes: int = key(
        size(4 * 2**20), "The largest manifest, more is 413.", default=4 * 2**20, extension=True
    )
    headertimeout: float = key(
        duration(positive=True), "For the headers of a request, from its first byte.",
        default=20.0, extension=True,
    )  # fmt: skip
    idletimeout: float = key(
        duration(positive=True), "For a connection between two requests.",
        default=60.0, extension=True,
    )  # fmt: skip
    bodytimeout: float = key(
        duration(positive=True), "For a body that makes no progress.", default=60.0, extension=True
    )


@schema
class Http(SectionBase):
    """``http``."""

    addr: str = key(
        Scalar("HOST:PORT, a socket's path or an endpoint of Twisted", values.nonempty_text),
        "Where to listen. ``HOST:PORT`` (no host: every IPv4 interface); a path if ``net`` is"
        " unix; or any server endpoint of Twisted, as ``unix:/run/registry.sock:mode=660`` or"
        " ``systemd:domain=INET:index=0``.", default=DEFAULT_ADDR,
    )  # fmt: skip
    net: str = key(choice("tcp", "unix"), "The kind of ``addr``.", default="tcp")
    prefix: str = key(
        Scalar("a path that starts and ends with /", values.prefix),
        "Serve under this path: the API is then at ``PREFIXv2/``.", default="",
    )  # fmt: skip
    host: str = key(
        Scalar("an absolute http or https URL without query", values.base_url),
        "The address that clients know, for Location headers. If not set, each request's own"
        " Host, Forwarded and X-Forwarded-* headers decide.", default="",
    )  # fmt: skip
    relativeurls: bool = key(boolean(), "Send Location headers as paths only.", default=False)
    secret: str = key(
        text(), "Signs the state of uploads. If not set, one is made and kept in the"
        " store, so that uploads go on after a restart and on every machine that shares it.",
        default="", secret=True,
    )  # fmt: skip
    draintimeout: float = key(
        duration(), "How long a stop waits for requests that are under way.", default=0.0
    )
    headers: Mapping[str, tuple[str, ...]] = key(
        headers(), "Headers for every answer of the API; with those of CORS, browsers are"
        " let in.", default={},
    )  # fmt: skip
    workers: int = key(
        Scalar(
            f"a whole number from 1 to {values.MAX_WORKERS}, or auto", values.worker_count
        ),
        "How many processes serve. ``auto``: one for each CPU. They share the listening socket"
        " and the store, so the store can not be in memory.", default=1, extension=True,
    )  # fmt: skip
    limits: Limits = section(Limits, "Limits on requests.", extension=True)
    tls: Tls = section(Tls, "TLS: without a certificate there is none.")
    debug: Debug = section(Debug, "Health, metrics and maintenance on an address of their own.")
    http2: Http2 | None = key(Section("a section", Http2, allows_empty=True), "HTTP/2 over TLS.")
    h2c: H2c | None = key(Section("a section", H2c, allows_empty=True), "HTTP/2 without TLS.")

    @property
    def address(self) -> Address:
        """Where to listen.

        :raise ValueError: if ``addr`` says no place; never once the configuration is checked.
        """
        return parse_address(self.addr, unix=self.net == "unix")
