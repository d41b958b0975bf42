"""Which variables start tracing, and what is wrong with them."""

from __future__ import annotations

import logging
import sys

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.support.processes import run, write_configuration
from twisted_registry.app.tracing import exporter_names, make_tracing
from twisted_registry.frame.errors import StartError, install_command

pytest.importorskip("opentelemetry.sdk", reason="install the extra test")

COLLECTOR = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "registry", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": COLLECTOR}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp", "console"]),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, []),
    ],
)
def test_exporters_that_variables_ask_for(environ, names):
    assert list(exporter_names(environ)) == names


def test_without_variables_nothing_is_made():
    assert make_tracing({}, reactor) is None


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: zipkin: expected one of: otlp, console, none",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL: grpc: only http/protobuf is supported, for which"
                " collectors listen on port 4318"
            ),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL that begins with http:// or https://",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[collector"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: Invalid IPv6 URL",
        ),
    ],
)
def test_a_variable_that_cannot_be_used_ends_the_start(environ, error):
    with pytest.raises(StartError) as raised:
        make_tracing(environ, reactor)
    assert str(raised.value) == error


@pytest_twisted.ensureDeferred
async def test_a_value_that_the_sdk_refuses_is_an_error_in_the_log(monkeypatch, log_lines):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-5")
    tracing = make_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, reactor)
    tracing.start()
    await tracing.close()
    assert [line for line in log_lines if line.startswith("tracing: ")] == [
        "tracing: OTEL_BSP_*: schedule_delay_millis must be positive. No spans are sent."
    ]


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_missing_extra_ends_the_start(tmp_path, command):
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from twisted_registry.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    path = write_configuration(tmp_path)
    status, _, err = run(
        sys.executable, "-c", script, command, path, cwd=tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=COLLECTOR,
    )  # fmt: skip
    assert status == 1
    expected = f"{path}: OTEL_EXPORTER_OTLP_ENDPOINT: needs the package opentelemetry"
    (line,) = [line for line in err if expected in line]
    assert f"; to install it: {install_command('otel')}" in line


def test_an_unknown_propagator_ends_the_start(tmp_path):
    path = write_configuration(tmp_path)
    status, _, err = run(
        sys.executable, "-m", "twisted_registry", "serve", path, cwd=tmp_path,
        OTEL_TRACES_EXPORTER="otlp", OTEL_PROPAGATORS="pigeon",
    )  # fmt: skip
    assert status == 1
    assert err[-1].startswith(f"twisted-registry: {path}: OTEL_PROPAGATORS: Propagator pigeon")


@pytest_twisted.ensureDeferred
async def test_complaints_of_the_sdk_have_no_secrets_and_are_rare(monkeypatch, log_lines):
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:pass-word@127.0.0.1:1/?key=in-query",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20in-header,unusable",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracing = make_tracing(environ, reactor)
    sdk = logging.getLogger("opentelemetry.test")
    for _ in range(3):
        sdk.error("cannot send to %s: %s", *environ.values())
    sdk.info("not logged")
    await deferLater(reactor, 0)
    await tracing.close()
    complaints = [line for line in log_lines if line.startswith("tracing: ")]
    assert len(complaints) == 1
    assert not [word for word in ("pass-word", "in-query", "in-header") if word in repr(complaints)]
    sdk.error("after the end")
    await deferLater(reactor, 0)
    assert [line for line in log_lines if line.startswith("tracing: ")] == complaints
