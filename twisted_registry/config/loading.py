"""From a path and the environment to a checked configuration: the one way in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from twisted_registry.config.document import DocumentError, Node, parse
from twisted_registry.config.environment import FILE_VARIABLE, apply_overrides
from twisted_registry.config.faults import Report
from twisted_registry.config.kinds import ReadContext
from twisted_registry.config.rules import migrate_loglevel, check_configuration, choose_driver, named_drivers
from twisted_registry.config.schema import Configuration
from twisted_registry.config.sections import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Where the images of Distribution 3 and 2.8 keep their file.
DEFAULT_PATHS: Final = (
    "/etc/distribution/config.yml",
    "/etc/docker/registry/config.yml",
)
#: What holds when there is no file at all: enough to try it, on this machine alone.
BUILT_IN: Final = """
version: 0.1
storage:
  filesystem:
    rootdirectory: ./registry-data
  delete:
    enabled: true
"""
SCHEMA: Final = Section("a mapping of sections", Configuration)


@frozen
class LoadedConfiguration:
    """A configuration, and what its reader should hear.

    :ivar configuration: checked, with every default filled in.
    :ivar source: a sentence: which file it came from, and why that one.
    :ivar warnings: what was ignored or is not served yet, a line each.
    :ivar notices: what is merely good to know, a line each.
    """

    configuration: Configuration
    source: str
    warnings: Sequence[str]
    notices: Sequence[str]


def load(
    path: str | None,
    environ: Mapping[str, str],
    *,
    default_paths: Sequence[str] = DEFAULT_PATHS,
) -> LoadedConfiguration:
    """Read the file at *path*, or else the one that the environment or a default names.

    :param path: the file that the command line names, or None.
    :param environ: the environment, for ``REGISTRY_CONFIGURATION_PATH`` and overrides.
    :param default_paths: where to look for a file that nobody named.
    :raise ConfigurationError: with every fault that was found.
    """
    report = Report()
    found, why = _find_file(path, environ, default_paths)
    if found is None:
        return _load(BUILT_IN, "built-in default", why, environ, report)
    text = _read_text(found, report)
    report.raise_faults()
    return _load(text, found, why, environ, report)


def load_text(text: str, environ: Mapping[str, str], origin: str = "configuration") -> LoadedConfiguration:
    """As :func:`load`, from text instead of a file; *origin* is what faults call it."""
    return _load(text, origin, f"{origin}, given as text", environ, Report())


def _find_file(
    path: str | None, environ: Mapping[str, str], default_paths: Sequence[str]
) -> tuple[str | None, str]:
    if path is not None:
        return path, f"{path}, named on the command line"
    named = environ.get(FILE_VARIABLE)
    if named:
        return named, f"{named}, named by {FILE_VARIABLE}"
    for candidate in default_paths:
        if Path(candidate).exists():
            return candidate, f"{candidate}, where Distribution keeps it"
    return None, "the built-in default, because no file was named or found"


def _read_text(path: str, report: Report) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        report.fault(path, None, "is not UTF-8 text")
    except OSError as error:
        report.fault(path, None, f"can not be read: {error.strerror}")
    except ValueError:
        report.fault(path, None, "is no path")
    return ""


def _load(
    text: str, origin: str, source: str, environ: Mapping[str, str], report: Report
) -> LoadedConfiguration:
    try:
        root = parse(text, origin, report)
    except DocumentError as error:
        report.fault(origin, None, f"is {error}")
        root = Node(None)
    report.raise_faults()
    if not isinstance(root.value, dict):
        report.fault(origin, None, "is not a mapping of sections; it must begin with version: 0.1")
    report.raise_faults()
    before = named_drivers(root)
    overrides = apply_overrides(root, SCHEMA, environ, report)
    choose_driver(root, before, overrides, report)
    migrate_loglevel(root, report)
    configuration: Configuration = SCHEMA.read(root, ReadContext(report))
    check_configuration(configuration, report)
    report.raise_faults()
    return LoadedConfiguration(configuration, source, tuple(report.warnings), tuple(report.notices))
