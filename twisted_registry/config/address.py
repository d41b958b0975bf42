"""Where to listen: HOST:PORT as in Distribution, a socket's path, or an endpoint of Twisted.

All three become one endpoint string for ``serverFromString``. The string is checked here as
far as that is possible without Twisted, so that a wrong port is a fault of the configuration
and not a traceback at the start.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from attrs import frozen


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
