"""``twisted-registry doctor``: find out what is wrong with a registry, and what to do about it."""

from __future__ import annotations

import os
import pwd
import sys
from typing import TYPE_CHECKING, Any

from twisted_registry.commands.configured import add_config_argument, add_listing_arguments
from twisted_registry.commands.output import format_count, print_json
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load
from twisted_registry.doctor.files import check_file, user_name
from twisted_registry.doctor.findings import Finding
from twisted_registry.doctor.network import find_listener
from twisted_registry.doctor.unit import NAME, find_unit
from twisted_registry.frame.errors import WrongUsage

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from twisted_registry.config.document import Fault
    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.doctor.runner import CheckResult
    from twisted_registry.doctor.unit import Unit


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="check with the rights of this user; by default that of the systemd unit",
    )
    add_listing_arguments(parser)
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Run all checks, and print what was found.

    :returns: the exit status: 1 if there is a problem.
    """
    return run_doctor(options.file, options.user, as_json=options.json, as_lines=options.json_lines)


def run_doctor(
    path: str | None, user: str | None = None, *, as_json: bool = False, as_lines: bool = False
) -> int:
    """Run all checks of a configuration, and print what was found.

    :param path: the file, or None for the default paths.
    :param user: the user whose rights are checked; None for the one of the unit.
    :param as_json: whether to print one object.
    :param as_lines: whether to print an object a line for each finding.
    :returns: the exit status: 1 if there is a problem.
    :raises WrongUsage: if the user does not exist, or this process may not have its rights.
    """
    try:
        loaded = load(path, os.environ)
    except ConfigurationError as error:
        found = [_from_fault(fault) for fault in error.faults]
        loaded_from, names = path or "", ["configuration"]
    else:
        loaded_from = loaded.origin
        found, names = _check_everything(loaded, user)
    if as_lines:
        for finding in found:
            print_json(_finding_data(finding))
    else:
        _print_report(loaded_from, found, names, as_json=as_json)
    return 1 if any(not finding.is_warning for finding in found) else 0


def _check_everything(
    loaded: LoadedConfiguration, user: str | None
) -> tuple[list[Finding], list[str]]:
    """Run the checks of a configuration that could be loaded.

    :returns: what they have found, and their names.
    """
    unit = find_unit(loaded.origin)
    listeners = _find_listeners(loaded)
    found = _take_rights(user, unit)
    if unit is not None:
        found += _enter(unit)
    if os.path.isabs(loaded.origin):  # noqa: PTH117 - it may be no path
        found += check_file("configuration", loaded.origin)
    results = _run_checks(loaded, unit, listeners)
    found += [finding for result in results for finding in result.findings]
    names = [result.name for result in results]
    return _without_duplicates(found), names


def _find_listeners(loaded: LoadedConfiguration) -> dict[int, Any]:
    from twisted_registry.app.doctor import listening_ports  # noqa: PLC0415 - Twisted

    ports = [port for _, _, port in listening_ports(loaded.configuration)]
    return {port: find_listener(port) for port in ports}


def _run_checks(
    loaded: LoadedConfiguration, unit: Unit | None, listeners: dict[int, Any]
) -> Sequence[CheckResult]:
    from twisted_registry.app import standalone  # noqa: PLC0415 - it installs the reactor
    from twisted_registry.app.doctor import Surroundings, make_checks  # noqa: PLC0415
    from twisted_registry.doctor.runner import run_checks  # noqa: PLC0415

    surroundings = Surroundings(unit, listeners)

    async def check(reactor: Any) -> Sequence[CheckResult]:
        checks = make_checks(loaded, surroundings, reactor, os.environ)
        return await run_checks(checks, reactor)

    return standalone.run_once(check)


def _take_rights(user: str | None, unit: Unit | None) -> list[Finding]:
    """Continue as a user, as far as this process may.

    :raises WrongUsage: if a user that was named does not exist, or this process is not root's.
    """
    if user is None and unit is not None and unit.is_dynamic:
        problem = f"the rights of {user_name()} are checked: only the service may enter its folders"
        advice = "use the user of conf/twisted-registry.sysusers, without DynamicUser=yes"
        evidence = f"DynamicUser= of {NAME}"
        return [Finding("user", problem, evidence, advice, is_warning=True)]
    name = user or (unit.user if unit is not None else "")
    if not name or name == user_name():
        return []
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if user is not None:
            raise WrongUsage(f"--user {name}: no such user") from None
        advice = "systemd-sysusers, with conf/twisted-registry.sysusers in /etc/sysusers.d"
        return [Finding("user", f"there is no user {name}", f"User= of {NAME}", advice)]
    if os.geteuid() != 0:
        if user is not None:
            raise WrongUsage(f"--user {name}: only root can have the rights of others; use sudo")
        problem = f"the rights of {user_name()} are checked, not those of {name}"
        return [Finding("user", problem, f"User= of {NAME}", "use sudo", is_warning=True)]
    _open_unpacked_files()
    os.initgroups(name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = entry.pw_dir
    if os.access(os.__file__, os.R_OK):
        return []
    problem = f"{name} may not read Python, so that the service cannot run this installation"
    advice = "install it where every user may read, such as /opt/twisted-registry"
    return [Finding("user", problem, f"access to {os.__file__}", advice)]


def _open_unpacked_files() -> None:
    """Let every user read what the one-file program has unpacked, for modules still to come."""
    folder = getattr(sys, "_MEIPASS", None)
    for path, _, files in os.walk(folder) if folder else ():
        for each in (path, *(os.path.join(path, name) for name in files)):  # noqa: PTH118 - many
            os.chmod(each, 0o755)  # noqa: PTH101, S103 - it has no secrets


def _enter(unit: Unit) -> list[Finding]:
    """Change to the working directory of the service, to which relative paths refer."""
    folder = unit.working_directory or "/"
    try:
        os.chdir(folder)
    except OSError as error:
        problem = f"the working directory {folder} cannot be entered"
        advice = f"systemd makes that of StateDirectory= at the start; otherwise mkdir {folder}"
        return [Finding("unit", problem, f"chdir: {error.strerror}", advice, is_warning=True)]
    return []


def _from_fault(fault: Fault) -> Finding:
    key, _, problem = str(fault).partition(": ")
    is_file = os.path.isabs(key)  # noqa: PTH117 - it may be a key
    advice = "correct the file, or name another" if is_file else "correct the key"
    return Finding(key, problem, "configuration", advice)


def _without_duplicates(found: Sequence[Finding]) -> list[Finding]:
    """Remove what two checks have found: the start needs the store as well."""
    return list({(each.subject, each.problem): each for each in found}.values())


def _print_report(
    path: str, found: Sequence[Finding], names: Sequence[str], *, as_json: bool
) -> None:
    problems = sum(not finding.is_warning for finding in found)
    warnings = len(found) - problems
    if as_json:
        print_json(
            {
                "configuration": path,
                "user": user_name(),
                "checks": list(names),
                "problems": problems,
                "warnings": warnings,
                "findings": [_finding_data(finding) for finding in found],
            }
        )
    else:
        for finding in sorted(found, key=lambda each: each.is_warning):
            sys.stdout.write(f"{'warning' if finding.is_warning else 'problem'}: {finding}\n")
        sys.stdout.write(
            f"{format_count(problems, 'problem')}, {format_count(warnings, 'warning')} in"
            f" {format_count(len(names), 'check')} as {user_name()}\n"
        )


def _finding_data(finding: Finding) -> dict[str, str]:
    return {
        "level": "warning" if finding.is_warning else "problem",
        "subject": finding.subject,
        "problem": finding.problem,
        "evidence": finding.evidence,
        "advice": finding.advice,
    }
