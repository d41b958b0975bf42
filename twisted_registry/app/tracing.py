"""Tracing as ``OTEL_*`` variables ask for it: off without them.

Distribution 3 traces always, to a collector on this machine. This does if one of the variables
names an exporter or a collector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from twisted_registry import __version__
from twisted_registry.frame.errors import StartError, require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twisted_registry.tracing.export import Tracing

_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


def exporter_names(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the exporters that variables ask for, each with the variable that does.

    It is empty if tracing is off.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    configured = environ.get(_EXPORTER, "").strip()
    if configured:
        names = [name.strip() for name in configured.split(",")]
        return {name: _EXPORTER for name in names if name and name != "none"}
    endpoint = _first_set(_ENDPOINTS, environ)
    return {"otlp": endpoint} if endpoint else {}


def make_tracing(environ: Mapping[str, str], reactor: Any) -> Tracing | None:
    """Make the tracing of a process; None if it is off.

    :param environ: environment variables. The SDK reads some of ``os.environ`` itself.
    :raises StartError: if the extra ``otel`` is missing, or a variable has a value that cannot be
        used; the text names the variable.
    """
    names = exporter_names(environ)
    if not names:
        return None
    check_tracing(environ)
    from twisted_registry.tracing.export import EXPORTERS, Tracing  # noqa: PLC0415 - an extra

    exporters = [EXPORTERS[name] for name in names]
    try:
        return Tracing(reactor, exporters, __version__, [*_find_secrets(environ)])
    except ValueError as error:
        raise StartError(f"OTEL_*: {error}") from error


def check_tracing(environ: Mapping[str, str]) -> None:
    """Check the variables, and that the extra is installed if they ask for it.

    :raises StartError: as :func:`make_tracing`.
    """
    names = exporter_names(environ)
    if not names:
        return
    with require_extra("otel", next(iter(names.values()))):
        try:
            from twisted_registry.tracing.export import EXPORTERS  # noqa: PLC0415 - an extra
        except ValueError as error:  # the SDK looks for propagators when it is imported
            raise StartError(f"OTEL_PROPAGATORS: {error}") from error
    for name, variable in names.items():
        if name not in EXPORTERS:
            expected = ", ".join((*EXPORTERS, "none"))
            raise StartError(f"{variable}: {name}: expected one of: {expected}")
    if "otlp" in names:
        _check_collector(environ)


def _check_collector(environ: Mapping[str, str]) -> None:
    variable = _first_set(_PROTOCOLS, environ)
    if variable and environ[variable].strip() != "http/protobuf":
        raise StartError(
            f"{variable}: {environ[variable]}: only http/protobuf is supported, for which"
            " collectors listen on port 4318"
        )
    variable = _first_set(_ENDPOINTS, environ)
    try:
        scheme = urlsplit(environ[variable].strip()).scheme if variable else "http"
    except ValueError as error:
        raise StartError(f"{variable}: {error}") from error
    if scheme not in {"http", "https"}:
        raise StartError(f"{variable}: expected a URL that begins with http:// or https://")


def _find_secrets(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is secret in variables and may occur in messages of the SDK."""
    for variable in _HEADERS:
        for pair in environ.get(variable, "").split(","):
            value = (pair.partition("=")[2] or pair).strip()
            yield from (text for text in (value, unquote(value)) if text)
    for variable in _ENDPOINTS:
        parts = urlsplit(environ.get(variable, ""))
        yield from (text for text in (parts.password, parts.query) if text)


def _first_set(variables: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Return the first variable that is set, and not empty; an empty string without one."""
    return next((name for name in variables if environ.get(name, "").strip()), "")
