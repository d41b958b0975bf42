"""What clients need to know of a registry: URL, credentials, certificates, configuration files."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from functools import cached_property
from pathlib import Path

from attrs import field, frozen


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

    @property
    def url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return f"{self.scheme}://{self.host}"

    @property
    def port(self) -> int:
        """The port."""
        return int(self.host.rpartition(":")[2])

    @property
    def auth(self) -> tuple[str, str] | None:
        """The name and the password of the first user; None for a registry without users."""
        return next(iter(self.users.items()), None)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that trusts the registry and nothing else; None without TLS."""
        if self.ca_file is None:
            return None
        return ssl.create_default_context(cafile=str(self.ca_file))

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
