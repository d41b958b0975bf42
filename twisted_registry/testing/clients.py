"""What clients need to know of a registry: URL, credentials, certificates, configuration files."""

from __future__ import annotations

import json
import ssl
from abc import abstractmethod
from base64 import b64encode
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

#: The default ports.
_PORTS = {"http": 80, "https": 443}


@frozen(slots=False)
class ClientSettings:
    """What clients need to know of a registry.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: host and port, as in the names of images: ``127.0.0.1:40123``.
    :ivar users: the passwords of all users, by name.
    :ivar ca_file: a PEM file with the certificate that clients have to trust, until the registry
        stops; None without TLS.
    """

    scheme: str
    host: str
    users: dict[str, str] = field(factory=dict, repr=False)
    ca_file: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the settings of a registry at a URL, which may have a name and a password.

        :raises ValueError: if it is not a URL of HTTP with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
        users = {unquote(parts.username): unquote(parts.password or "")} if parts.username else {}
        return cls(parts.scheme, parts.netloc.rpartition("@")[2], users)

    @property
    def url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return f"{self.scheme}://{self.host}"

    @property
    def port(self) -> int:
        """The port."""
        return urlsplit(self.url).port or _PORTS[self.scheme]

    @property
    def auth(self) -> tuple[str, str] | None:
        """The name and the password of the first user; None for a registry without users."""
        return next(iter(self.users.items()), None)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that trusts the registry; None without TLS."""
        if self.scheme == "http":
            return None
        return ssl.create_default_context(
            cafile=None if self.ca_file is None else str(self.ca_file)
        )

    def docker_config(self, folder: str | Path) -> Path:
        """Write a ``config.json`` with the credentials, as docker, podman and oras read it.

        :param folder: for the environment variable ``DOCKER_CONFIG``; created if it is missing.
        :returns: the path of the file, for options as ``--authfile`` and ``--registry-config``.
        """
        path = Path(folder) / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        auths = {}
        if self.auth is not None:
            auths[self.host] = {"auth": b64encode(":".join(self.auth).encode()).decode()}
        path.write_text(json.dumps({"auths": auths}), encoding="utf-8")
        path.chmod(0o600)
        return path


class ClientAttributes:
    """What clients need to know of a registry that runs, as its own attributes."""

    @property
    @abstractmethod
    def client_settings(self) -> ClientSettings:
        """All attributes for clients in one object."""

    @property
    def url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return self.client_settings.url

    @property
    def host(self) -> str:
        """Host and port, as in the names of images: ``127.0.0.1:40123``."""
        return self.client_settings.host

    @property
    def port(self) -> int:
        """The port."""
        return self.client_settings.port

    @property
    def auth(self) -> tuple[str, str] | None:
        """The name and the password of the first user; None for a registry without users."""
        return self.client_settings.auth

    @property
    def ca_file(self) -> Path | None:
        """A PEM file with the certificate that clients have to trust; None without TLS."""
        return self.client_settings.ca_file

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that trusts the registry; None without TLS."""
        return self.client_settings.ssl_context

    def docker_config(self, folder: str | Path) -> Path:
        """Write a ``config.json`` with the credentials, as docker, podman and oras read it.

        :param folder: for the environment variable ``DOCKER_CONFIG``; created if it is missing.
        :returns: the path of the file, for options as ``--authfile`` and ``--registry-config``.
        """
        return self.client_settings.docker_config(folder)
