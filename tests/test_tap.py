from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest
from twisted.application.service import Application, IServiceCollection
from twisted.internet import reactor
from twisted.logger import ILogObserver
from twisted.python.usage import UsageError

from tests.support.processes import TWISTD, RegistryProcess, run, wait_until, write_configuration
from twisted_registry import __version__
from twisted_registry.app.service import RegistryService
from twisted_registry.tap import Options, makeService


@pytest.fixture(autouse=True)
def _stdout(monkeypatch):
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())


def options(*arguments, **parent):
    parsed = Options()
    parsed.parseOptions(arguments)
    parsed.parent = {"nodaemon": 1, **parent}
    return parsed


def test_options_take_only_the_config_file():
    assert options()["config"] is None
    assert options("--config", "x")["config"] == "x"
    assert options("-c", "x")["config"] == "x"
    with pytest.raises(UsageError):
        options("--nonsense")
    assert options("x")["config"] == "x"
    with pytest.raises(UsageError, match="two configuration files: y and --config x"):
        options("--config", "x", "y")
    with pytest.raises(UsageError):
        options("x", "y")


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        options("--version")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"twisted-registry {__version__}\n"


def test_make_service_opens_nothing_and_sets_the_log_observer(tmp_path):
    service = makeService(options("--config", write_configuration(tmp_path)), reactor)
    assert isinstance(service, RegistryService)
    application = Application("registry")
    service.setServiceParent(application)
    assert list(IServiceCollection(application)) == [service]
    assert application.getComponent(ILogObserver) is not None
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "parent", [{"logfile": "mine"}, {"logger": "mine"}, {"syslog": 1}, {"nodaemon": 0}]
)
def test_a_log_of_twistd_is_kept(tmp_path, parent):
    parsed = options("--config", write_configuration(tmp_path), **parent)
    application = Application("registry")
    makeService(parsed, reactor).setServiceParent(application)
    assert application.getComponent(ILogObserver) is None


def test_errors_of_the_configuration_are_one_line_each(tmp_path):
    path = write_configuration(tmp_path, "version: 0.1\nhttp:\n  net: udp\n")
    with pytest.raises(SystemExit) as stopped:
        makeService(options("--config", path), reactor)
    lines = str(stopped.value.code).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("twisted-registry: ") for line in lines)


def test_twistd_lists_the_command(tmp_path):
    status, out, _ = run(*TWISTD, "--help", cwd=tmp_path)
    assert status == 0
    assert "registry" in out
    status, out, _ = run(*TWISTD, "registry", "--help", cwd=tmp_path)
    assert status == 0
    assert "--config" in out


def test_twistd_serves(tmp_path):
    path = write_configuration(tmp_path, more="  draintimeout: 1s\n")
    with RegistryProcess(*TWISTD, "registry", "--config", path, cwd=tmp_path) as server:
        headers = {"Authorization": "Basic c2VjcmV0"}
        response, body = server.ask("GET", "/v2/", headers=headers)
        assert (response.status, body) == (200, b"{}")
        status, out, lines = server.stop()
    # twistd ends with the signal that it received.
    assert status == -signal.SIGTERM
    text = "\n".join(lines)
    assert f"configuration: {path}" in text
    assert 'level=info msg="listening on' in text
    (line,) = [line for line in out.splitlines() if "GET" in line]
    assert '"GET /v2/ HTTP/1.1" 200 2' in line
    for secret in ("c2VjcmV0", "do-not-tell"):
        assert secret not in out + text
    assert "Traceback" not in out + text


def handles(process, number):
    """Whether a process handles a signal."""
    text = Path(f"/proc/{process}/status").read_text()
    (mask,) = [line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_twistd_in_the_background_logs_to_its_file_and_rotates_it(tmp_path):
    path = write_configuration(tmp_path)
    background = [*TWISTD[:3], "--pidfile=twistd.pid"]
    assert run(*background, "registry", "--config", path, cwd=tmp_path)[0] == 0
    process = int((tmp_path / "twistd.pid").read_text())
    try:
        log = tmp_path / "twistd.log"
        wait_until(lambda: "listening on" in log.read_text())
        # The command returns before the daemon handles signals.
        wait_until(lambda: handles(process, signal.SIGTERM))
        os.kill(process, signal.SIGUSR1)
        rotated = tmp_path / "twistd.log.1"
        wait_until(lambda: rotated.exists() and log.exists())
    finally:
        os.kill(process, signal.SIGTERM)
        wait_until(lambda: not (tmp_path / "twistd.pid").exists())
    assert f"configuration: {path}" in rotated.read_text()
    assert "Server Shut Down" in log.read_text()


def test_a_failed_start_in_the_background_is_reported_at_the_terminal(tmp_path):
    text = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: /dev/null/x}}}}\n"
    background = [*TWISTD[:3], "--pidfile=twistd.pid"]
    path = write_configuration(tmp_path, text)
    status, _, lines = run(*background, "registry", "--config", path, cwd=tmp_path)
    assert status == 1
    assert "storage.filesystem.rootdirectory" in lines[0]
    said = f"twisted-registry: {path}: storage.filesystem.rootdirectory: /dev/null/x: Not a dir"
    assert said in (tmp_path / "twistd.log").read_text()
    # The command returns before the daemon has ended.
    wait_until(lambda: not (tmp_path / "twistd.pid").exists())


@pytest.mark.parametrize(
    "text",
    [
        "version: 0.1\nstorage: inmemory\nhttp:\n  net: udp\n",
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: /dev/null/x}}}}\n",
    ],
)
def test_twistd_ends_with_one_line_if_the_configuration_is_wrong(tmp_path, text):
    path = write_configuration(tmp_path, text)
    status, out, lines = run(*TWISTD, "registry", "--config", path, cwd=tmp_path)
    assert status == 1
    (line,) = [line for line in lines if "twisted-registry: " in line]
    assert "Traceback" not in out + "\n".join(lines)
    assert "udp" in line or "rootdirectory" in line
