"""The configuration of a registry for tests, made from its options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen

from twisted_registry.config.loading import load_mapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.storage.interfaces import IStorageDriver

#: A user and a password, or the passwords of several users, or True for a user made here.
Auth: TypeAlias = "tuple[str, str] | Mapping[str, str] | bool | None"
#: A folder, or a function of the reactor that makes a driver, or the section ``storage``.
Storage: TypeAlias = "str | Path | Callable[[Any], IStorageDriver] | Mapping[str, Any] | None"
#: A configuration as a mapping, as YAML, or the path of a file.
Config: TypeAlias = "Mapping[str, Any] | str | Path | None"

#: The user of ``auth=True`` and of ``token_auth=True`` without ``auth``.
DEFAULT_AUTH = ("user", "password")
#: The file with the certificate of the authority, in the folder of a registry with TLS. It is alone
#: in its folder, which skopeo and podman take as ``--cert-dir``.
CA_FILE = "ca/ca.crt"
#: The names in the certificate.
_HOSTS = ("127.0.0.1", "::1", "localhost")
#: The lowest cost that bcrypt has: passwords of tests need no protection.
_BCRYPT_COST = 4


@frozen
class Options:
    """The options of :class:`~twisted_registry.testing.registry.Registry`, described there."""

    auth: Auth = None
    tls: bool = False
    token_auth: bool = False
    readonly: bool = False
    delete: bool = True
    storage: Storage = None
    config: Config = None
    port: int = 0
    environ: Mapping[str, str] = field(factory=dict)

    @property
    def users(self) -> dict[str, str]:
        """The passwords of all users, by name."""
        auth = self.auth
        if isinstance(auth, Mapping):
            return dict(auth)
        if isinstance(auth, tuple):
            return dict([auth])
        return dict([DEFAULT_AUTH]) if auth or self.token_auth else {}

    @property
    def needs_folder(self) -> bool:
        """Whether :meth:`load` writes files."""
        return self.tls or bool(self.users)

    def load(self, folder: Path, now: float) -> LoadedConfiguration:
        """Make the configuration.

        :param folder: an empty folder for passwords and certificates, if they are needed.
        :param now: in seconds since the epoch.
        :raises ConfigurationError: if ``config`` is not a valid configuration.
        """
        document = _read(self.config)
        document.setdefault("version", 0.1)
        self._set_storage(document)
        http = _section(document, "http")
        # What would collide with another registry, or does not work beside the tests.
        http.update(addr=f"127.0.0.1:{self.port}", net="tcp", workers=1)
        if isinstance(http.get("debug"), dict) and http["debug"].get("addr"):
            http["debug"]["addr"] = "127.0.0.1:0"
        if self.tls:
            http["tls"] = _write_certificate(folder, now)
        if self.users:
            path = folder / "htpasswd"
            _write_passwords(path, self.users)
            document["auth"] = {"htpasswd": {"realm": "test", "path": str(path)}}
        if self.token_auth:
            access = _section(document, "access")
            access.setdefault("tokens", {})
            access.setdefault("authenticated", ["admin"])
        environ = {name: text for name, text in self.environ.items() if name not in _IGNORED}
        return load_mapping(document, environ, "config")

    def _set_storage(self, document: dict[str, Any]) -> None:
        storage = self.storage
        if isinstance(storage, Mapping):
            document["storage"] = dict(storage)
        section = _section(document, "storage")
        if isinstance(storage, str | Path):
            document["storage"] = section = {
                name: value for name, value in section.items() if name in _NOT_DRIVERS
            }
            section["filesystem"] = {"rootdirectory": str(storage)}
        elif callable(storage) or not section.keys() - _NOT_DRIVERS:
            section.setdefault("inmemory", {})
        section.setdefault("delete", {"enabled": self.delete})
        if self.readonly:
            _section(section, "maintenance")["readonly"] = {"enabled": True}


#: The keys of ``storage`` that name no driver.
_NOT_DRIVERS = frozenset({"cache", "delete", "maintenance", "redirect", "tag"})
#: Variables without effect.
_IGNORED = frozenset(f"REGISTRY_HTTP_{name}" for name in ("ADDR", "DEBUG_ADDR", "NET", "WORKERS"))


def _read(config: Config) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Path):
        config = config.read_text(encoding="utf-8")
    document: Any = _parse_yaml(config) if isinstance(config, str) else config
    if not isinstance(document, Mapping):
        raise TypeError(
            "config: expected a mapping of sections, the same as YAML text, or the Path of a file;"
            f" got {config!r}"
        )
    # A copy that may be changed, with everything in the form of the file.
    copy: dict[str, Any] = json.loads(json.dumps(document, default=str))
    return copy


def _parse_yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 - for YAML only

    return yaml.safe_load(text)


def _section(parent: dict[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(parent.get(name), dict):
        parent[name] = {}
    section: dict[str, Any] = parent[name]
    return section


def _write_certificate(folder: Path, now: float) -> dict[str, str]:
    """Write a certificate and its authority; return the section ``http.tls``.

    ``http.tls.auto`` would do the same, and wait until the disk has it.
    """
    from twisted_registry.tls.authority import CertificateAuthority  # noqa: PLC0415 - TLS only

    authority = CertificateAuthority.make("Twisted Registry in a test", now)
    chain, key = authority.issue(_HOSTS, now)
    (folder / CA_FILE).parent.mkdir()
    (folder / CA_FILE).write_bytes(authority.pem)
    (folder / "server.crt").write_bytes(chain)
    (folder / "server.key").touch(mode=0o600)
    (folder / "server.key").write_bytes(key)
    return {"certificate": str(folder / "server.crt"), "key": str(folder / "server.key")}


def _write_passwords(path: Path, users: Mapping[str, str]) -> None:
    from twisted_registry.auth.password_file import hash_password  # noqa: PLC0415 - bcrypt

    lines = [
        f"{name}:{hash_password(password.encode(), _BCRYPT_COST).decode()}\n"
        for name, password in users.items()
    ]
    path.write_text("".join(lines), encoding="utf-8")
