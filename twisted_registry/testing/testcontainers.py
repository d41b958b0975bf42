"""A drop-in for ``testcontainers.registry.DockerRegistryContainer`` that needs no Docker.

::

    from twisted_registry.testing.testcontainers import DockerRegistryContainer

    with DockerRegistryContainer(username="ada", password="secret") as container:
        push(container.get_registry())

It has what tests call of that class and of its base ``DockerContainer``, version 4 of
testcontainers-python: the constructor's arguments, ``start``, ``stop``, ``get_registry``,
``get_exposed_port``, ``get_container_host_ip``, ``with_env``, ``with_envs``,
``with_exposed_ports``, ``with_bind_ports``, ``with_volume_mapping``, ``with_name`` and
``with_kwargs``. What a container has besides, such as ``exec``, is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from twisted_registry.testing.registry import Registry

if TYPE_CHECKING:
    from types import TracebackType

#: Where images of Distribution have their configuration, and their blobs.
_CONFIGURATIONS = ("/etc/docker/registry/config.yml", "/etc/distribution/config.yml")
_ROOT_DIRECTORY = "/var/lib/registry"


class DockerRegistryContainer:
    """A registry in this process, with the interface of one in a container.

    :ivar port: the port inside the container, for ``get_exposed_port``.
    :ivar registry: the registry; None before the start.
    """

    def __init__(
        self,
        image: str = "registry:2",
        port: int = 5000,
        username: str | None = None,
        password: str | None = None,
        **kwargs: object,
    ) -> None:
        """Prepare a registry.

        :param image: has no effect, as have unknown arguments.
        :param port: the port that ``get_exposed_port`` is asked for.
        """
        del kwargs
        self.image = image
        self.port = port
        self.username = username
        self.password = password
        self.registry: Registry | None = None
        self._options: dict[str, Any] = {}
        self._environ: dict[str, str] = {}

    def with_env(self, key: str, value: str) -> Self:
        """Set an environment variable, such as ``REGISTRY_STORAGE_DELETE_ENABLED``."""
        self._environ[key] = value
        return self

    def with_envs(self, **variables: str) -> Self:
        """Set environment variables."""
        self._environ.update(variables)
        return self

    def with_exposed_ports(self, *ports: int | str) -> Self:
        """Do nothing: the registry has one port."""
        del ports
        return self

    def with_bind_ports(self, container: int | str, host: int | None = None) -> Self:
        """Listen on a port of this machine; None for a free one."""
        del container
        self._options["port"] = host or 0
        return self

    def with_volume_mapping(self, host: str, container: str, mode: str = "ro") -> Self:
        """Use a folder for the images, or a configuration file.

        :raises ValueError: for another path of the container.
        """
        del mode
        if container.rstrip("/") == _ROOT_DIRECTORY:
            self._options["storage"] = host
        elif container in _CONFIGURATIONS:
            self._options["config"] = Path(host)
        else:
            expected = ", ".join((_ROOT_DIRECTORY, *_CONFIGURATIONS))
            raise ValueError(f"{container}: there is no container; expected one of {expected}")
        return self

    def with_name(self, name: str) -> Self:
        """Do nothing."""
        del name
        return self

    def with_kwargs(self, **kwargs: object) -> Self:
        """Do nothing."""
        del kwargs
        return self

    def start(self) -> Self:
        """Serve; the registry accepts connections when this returns."""
        has_users = self.username and self.password
        self.registry = Registry(
            auth=(self.username, self.password) if has_users else None,  # type: ignore[arg-type]
            # Distribution's default, which REGISTRY_STORAGE_DELETE_ENABLED changes.
            delete=False,
            environ=self._environ,
            **self._options,
        ).start()
        return self

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:  # noqa: FBT001, FBT002
        """Stop."""
        del force, delete_volume
        if self.registry is not None:
            self.registry.stop()

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def get_registry(self) -> str:
        """Return host and port, as in the names of images."""
        return self._running().host

    def get_container_host_ip(self) -> str:
        """Return the host for clients on this machine."""
        return self._running().host.rpartition(":")[0]

    def get_exposed_port(self, port: int) -> int:
        """Return the port of this machine on which the registry listens."""
        del port
        return self._running().port

    def _running(self) -> Registry:
        if self.registry is None:
            raise RuntimeError("the registry does not run: call start() first, or use 'with'")
        return self.registry
