"""The systemd unit of a registry: its user, and what it may write. Blocks."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAME = "twisted-registry.service"
_PROPERTIES = (
    *("ExecStart", "User", "DynamicUser", "WorkingDirectory", "LimitNOFILE"),
    *("AmbientCapabilities", "CapabilityBoundingSet"),
    *("ProtectSystem", "ProtectHome", "ReadWritePaths", "StateDirectory", "LogsDirectory"),
)
_TIMEOUT_S = 5.0
_LOW_PORTS = "cap_net_bind_service"
_HOMES = ("/home", "/root", "/run/user")


@frozen
class Unit:
    """The settings of a unit.

    :ivar user: the user of the service; empty for root.
    :ivar working_directory: base of relative paths; empty for the root directory.
    :ivar max_descriptors: descriptors that the service may have; 0 if that is not known.
    :ivar may_bind_low: whether it may listen on ports below 1024.
    :ivar writable: the paths that it may write to; None for all.
    :ivar hides_homes: whether home directories are hidden.
    :ivar is_dynamic: whether systemd makes the user for each start.
    """

    user: str
    working_directory: str
    max_descriptors: int
    may_bind_low: bool
    writable: tuple[str, ...] | None
    hides_homes: bool
    is_dynamic: bool

    def check_paths(self, paths: Iterable[tuple[str, str]]) -> list[Finding]:
        """Find paths that the restrictions of the unit exclude.

        :param paths: keys of the configuration, and the absolute paths that are written.
        """
        found = []
        for key, path in paths:
            if self.hides_homes and _is_below(path, _HOMES):
                advice = f"use another directory, or set ProtectHome=no: systemctl edit {NAME}"
                found.append(Finding(key, f"the service cannot see {path}", "ProtectHome=", advice))
            elif self.writable is not None and not _is_below(path, self.writable):
                advice = f"write ReadWritePaths={path} below [Service]: systemctl edit {NAME}"
                evidence = f"ProtectSystem=strict of {NAME}"
                found.append(Finding(key, f"the service may not write {path}", evidence, advice))
        return found


def find_unit(configuration: str, systemctl: str = "systemctl") -> Unit | None:
    """Return the unit that serves a configuration file; None if there is none.

    :param configuration: the absolute path of the file.
    :param systemctl: the program.
    """
    command = [systemctl, "show", NAME, *(f"--property={name}" for name in _PROPERTIES)]
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    settings = {name: value for name, _, value in pairs}
    if configuration not in settings.get("ExecStart", "").replace(";", " ").split():
        return None
    return _parse(settings)


def _parse(settings: Mapping[str, str]) -> Unit:
    def words(name: str) -> list[str]:
        return settings.get(name, "").split()

    writable = [
        *(path.lstrip("-+") for path in words("ReadWritePaths")),
        *(f"/var/lib/{name}" for name in words("StateDirectory")),
        *(f"/var/log/{name}" for name in words("LogsDirectory")),
    ]
    limit = settings.get("LimitNOFILE", "")
    gets = {_LOW_PORTS} if not settings.get("User") else set(words("AmbientCapabilities"))
    return Unit(
        settings.get("User", ""),
        settings.get("WorkingDirectory", "").lstrip("!-"),
        int(limit) if limit.isdecimal() else 0,
        _LOW_PORTS in gets.intersection(words("CapabilityBoundingSet")),
        tuple(writable) if settings.get("ProtectSystem") == "strict" else None,
        settings.get("ProtectHome") in {"yes", "tmpfs"},
        settings.get("DynamicUser") == "yes",
    )


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)
