"""Checks of names, servers, ports and the clock."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - getaddrinfo needs it, and users may not read Python's files
import errno
import os
import smtplib
import socket
import ssl
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from twisted_registry.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.web.iweb import IAgent

    from twisted_registry.logs.mail import MailServer

_CONNECT_TIMEOUT_S = 5.0
#: S3 refuses requests whose time differs by more.
_MAX_SKEW_S = 15 * 60
_SKEW_WARNING_S = 60
_LISTENING = "0A"


@frozen
class Listener:
    """A process that listens on a port.

    :ivar command: the words of its command line.
    """

    pid: int
    command: tuple[str, ...]

    @property
    def is_ours(self) -> bool:
        """Whether it is a registry of this package, or systemd, which keeps a socket for it."""
        names = [os.path.basename(word) for word in self.command]  # noqa: PTH119 - words, not paths
        runs_python = names[:1] != [] and names[0].startswith("python")
        return (
            self.pid == 1
            or bool({"twisted-registry", "twisted_registry"} & set(names))
            or (runs_python and "registry" in names)
        )

    def __str__(self) -> str:
        name = os.path.basename(self.command[0]) if self.command else "?"  # noqa: PTH119
        return f"process {self.pid} ({name})"


def check_server(key: str, host: str, port: int) -> list[Finding]:
    """Look up the name of a server, and connect to it. Blocks for some seconds at most.

    The name is that of a server the registry needs, such as Redis.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        advice = f"correct the name, or the resolver: getent hosts {host}"
        evidence = f"getaddrinfo: {error.strerror or error}"
        return [Finding(key, f"the name {host} is not known", evidence, advice)]
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        found = ", ".join(sorted({str(address[4][0]) for address in addresses}))
        evidence = f"connect to {found}: {error.strerror or error}"
        advice = "start the server, or correct the address or the firewall"
        return [Finding(key, f"{host}:{port} does not accept connections", evidence, advice)]
    return []


def check_mail_server(key: str, server: MailServer) -> list[Finding]:
    """Connect to an SMTP server and log in as for a mail, and send none. Blocks for some seconds.

    :param key: the section of the server.
    """
    found = check_server(f"{key}.addr", server.host, server.port)
    if found:
        return found
    where = f"{server.host}:{server.port}"
    try:
        server.check()
    except smtplib.SMTPAuthenticationError as error:
        problem, evidence = f"{where} refuses the login", f"AUTH: {server.explain(error)}"
        advice = "correct username and password"
        return [Finding(f"{key}.password", problem, evidence, advice)]
    except ssl.SSLCertVerificationError as error:
        problem = f"the certificate of {where} is not trusted"
        advice = "correct the name, add its authority to those of the system, or set insecure: true"
        return [Finding(f"{key}.addr", problem, f"TLS: {error.verify_message}", advice)]
    except Exception as error:  # noqa: BLE001 - a server may answer anything
        evidence = f"SMTP: {server.explain(error)}"
        advice = "correct the port (465: TLS from the beginning), or remove username and password"
        return [Finding(f"{key}.addr", f"{where} accepts no mail from here", evidence, advice)]
    return []


def check_port(
    key: str, host: str, port: int, listener: Listener | None, *, may_bind_low: bool = False
) -> list[Finding]:
    """Check that a TCP address can be listened on, or that a registry does so already.

    :param host: empty for every interface.
    :param listener: the process that listens on the port; None if none does or it is not known.
    :param may_bind_low: whether the service has the capability for low ports.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        evidence = f"getaddrinfo: {error.strerror or error}"
        return [Finding(key, f"the name {host} is not known", evidence, "use an address")]
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return list(_explain_bind(key, host, port, error, listener, may_bind_low=may_bind_low))
    return []


def _explain_bind(
    key: str, host: str, port: int, error: OSError, listener: Listener | None, *, may_bind_low: bool
) -> Iterator[Finding]:
    evidence = f"bind: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        if listener is not None and listener.is_ours:
            return
        by = f"{listener}" if listener is not None else "a process of another user"
        advice = f"stop it, or use another port; ss -ltnp 'sport = :{port}' shows it"
        yield Finding(key, f"port {port} is in use by {by}", evidence, advice)
    elif error.errno == errno.EACCES:
        if not may_bind_low:
            advice = (
                "use a port from 1024, or write AmbientCapabilities=CAP_NET_BIND_SERVICE and"
                " CapabilityBoundingSet=CAP_NET_BIND_SERVICE below [Service]: systemctl edit"
                " twisted-registry"
            )
            yield Finding(key, f"port {port} needs a capability", evidence, advice)
    else:
        advice = "use an address of this machine (ip address), or no host"
        yield Finding(key, f"{host}:{port} cannot be listened on", evidence, advice)


def find_listener(port: int, proc: str = "/proc") -> Listener | None:
    """Return the process that listens on a TCP port; None if there is none or it is hidden."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port, Path(proc))}
    if not sockets:
        return None
    for folder in Path(proc).glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    return Listener(int(folder.name), tuple(map(os.fsdecode, words)))
    return None


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


async def check_clock(key: str, url: str, agent: IAgent, now: Any) -> list[Finding]:
    """Compare the clock of this machine with that of a server, such as S3.

    :param url: of the server.
    :param now: returns the time in seconds since the epoch.
    """
    try:
        response: Any = await agent.request(b"HEAD", url.encode("ascii"), None, None)
        stamp = response.headers.getRawHeaders("date", [""])[0]
        served = parsedate_to_datetime(stamp).timestamp()
    except Exception:  # noqa: BLE001 - another check says that the server cannot be used
        return []
    skew = now() - served
    if abs(skew) < _SKEW_WARNING_S:
        return []
    direction = "ahead of" if skew > 0 else "behind"
    return [
        Finding(
            key,
            f"the clock of this machine is {abs(skew):.0f} s {direction} the store's",
            f"its Date is {stamp}",
            "set the clock: timedatectl set-ntp true",
            is_warning=abs(skew) < _MAX_SKEW_S,
        )
    ]


def check_clock_against_file(path: str, now: float) -> list[Finding]:
    """Find a clock that is behind the last change of the configuration file."""
    try:
        changed = Path(path).stat().st_mtime
    except OSError:
        return []
    if now >= changed - _SKEW_WARNING_S:
        return []
    evidence = f"{path} was changed {changed - now:.0f} s in the future"
    advice = "set the clock: timedatectl set-ntp true"
    return [Finding("clock", "the clock of this machine is behind", evidence, advice)]
