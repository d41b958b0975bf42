"""The command line, and the processes that it starts."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import (
    SERVE,
    RegistryProcess,
    environment,
    passing_socket,
    run,
    status_over_unix,
    write_configuration,
)
from twisted_registry import __version__
from twisted_registry.cli import main
from twisted_registry.commands.parser import COMMANDS

#: A combined log line: host, user, time, request, status, size, referer, agent.
COMBINED = re.compile(
    r'127\.0\.0\.1 - (\S+) \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "(.+?)" (\d{3}) (\d+|-) '
    r'"(.*?)" "(.*?)"'
)

#: A command that prints at once, and one that prints while the reactor runs.
OUTPUTS = (("completion", "bash"), ("stats", "--watch", "--interval=100ms"))


@pytest.fixture(autouse=True)
def _empty_directory_and_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("REGISTRY_"):
            monkeypatch.delenv(name)


def test_help_lists_the_commands(capsys):
    assert main(["help"]) == 0
    text = capsys.readouterr().out
    for command in ("serve", "check", "help"):
        assert command in text
    assert main([]) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dance", ": unknown command 'dance'; see twisted-registry --help"),
        ("help dance", ": unknown command 'dance'; see twisted-registry --help"),
        ("srve", ": unknown command 'srve'; did you mean serve?"),
        ("user ad x", " user: unknown command 'ad'; did you mean add?"),
        ("user", " user: the following arguments are required: ACTION; see @ user --help"),
        ("serve --confg=x", " serve: unknown option '--confg'; did you mean --config?"),
        ("gc", ": unknown command 'gc'; see @ --help"),
        ("check a b", " check: unexpected argument 'b'; see @ check --help"),
        (
            "check a --config b",
            " check: two configuration files: a and --config b; see @ check --help",
        ),
        (
            "garbage-collect --dryrun a",
            " garbage-collect: unknown option '--dryrun'; did you mean --dry-run?",
        ),
    ],
)
def test_wrong_usage_is_one_line_with_advice(words, expected, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    expected = expected.replace("@", "twisted-registry")
    assert capsys.readouterr() == ("", f"twisted-registry{expected}\n")


@pytest.mark.parametrize("words", [["serve"], ["user", "add"]])
def test_help_of_a_command_is_that_of_its_option(words, capsys):
    texts = []
    for arguments in (["help", *words], [*words, "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert f"usage: twisted-registry {' '.join(words)}" in texts[0]


@pytest.mark.parametrize("words", [["--config", "@"], ["-c", "@"], ["--config=@"], ["@"]])
def test_the_configuration_is_named_with_and_without_an_option(words, tmp_path, capsys):
    path = write_configuration(tmp_path)
    assert main(["check", *(word.replace("@", path) for word in words)]) == 0
    assert f"configuration: {path}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.yml", "config.yaml"])
def test_a_configuration_without_a_command_is_served(name, capsys):
    """As ``docker run registry:2 /config.yml`` does."""
    with pytest.raises(SystemExit) as stopped:
        main([name])
    assert stopped.value.code == 1
    assert f"{name}: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-v", "--version"])
def test_the_version_is_printed(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([option])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"twisted-registry {__version__}\n"


def test_check_prints_the_configuration_and_warnings(tmp_path, capsys):
    path = write_configuration(tmp_path, more="  prefixx: /x/\n")
    assert main(["check", path]) == 0
    out, err = capsys.readouterr()
    assert "rootdirectory: " in out
    assert "do-not-tell" not in out + err
    assert f"configuration: {path}" in err
    assert all(line.startswith("twisted-registry: ") for line in err.splitlines())
    (warning,) = [line for line in err.splitlines() if "warning: " in line]
    assert "http.prefixx" in warning
    assert "prefix" in warning


def test_check_uses_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REGISTRY_CONFIGURATION_PATH", write_configuration(tmp_path))
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "127.0.0.1:5999")
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    assert "5999" in out
    assert "REGISTRY_CONFIGURATION_PATH" in err


def test_the_output_of_check_is_a_configuration(tmp_path, capsys):
    assert main(["check", write_configuration(tmp_path)]) == 0
    first = capsys.readouterr().out
    again = tmp_path / "again.yml"
    again.write_text(first)
    assert main(["check", str(again)]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("command", ["check", "serve"])
def test_faults_are_printed_one_per_line(tmp_path, capsys, command):
    path = write_configuration(
        tmp_path, "version: 0.1\nstorage:\n  inmemory: {{}}\nhttp:\n  addr: nonsense\n  net: udp\n"
    )
    with pytest.raises(SystemExit) as stopped:
        main([command, path])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("twisted-registry: ") for line in lines)
    assert any("http.addr" in line and "nonsense" in line for line in lines)
    assert any("http.net" in line and "udp" in line for line in lines)


@pytest.mark.parametrize("text", [None, "{", "a: b: c", "[]", ""])
def test_an_unusable_file_is_reported_without_traceback(tmp_path, capsys, text):
    path = tmp_path / "registry.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main(["serve", str(path)])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert str(path) in err
    assert err.startswith("twisted-registry: ")


def push(server, content, headers=None):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    target = f"/v2/a/blobs/uploads/?digest={digest}"
    response, _ = server.ask("POST", target, content, headers)
    assert response.status == 201
    return digest


def test_serve_logs_its_start_and_every_request(tmp_path):
    path = write_configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        headers = {
            "Authorization": "Basic dG9wOnNlY3JldA==",
            "User-Agent": 'me/1 "x"',
            "Referer": "http://elsewhere/",
        }
        digest = push(server, b"content", headers)
        response, body = server.ask("GET", f"/v2/a/blobs/{digest}")
        assert (response.status, body) == (200, b"content")
        assert response.getheader("Docker-Distribution-Api-Version") == "registry/2.0"
        assert server.ask("GET", "/v2/a/manifests/none")[0].status == 404
        status, out, lines = server.stop()
    assert status == 0
    text = "\n".join(lines)
    assert f"configuration: {path}" in text
    assert f"storage: files below {tmp_path / 'store'}" in text
    assert f"listening on http://127.0.0.1:{server.port}" in text
    assert f"docker tag IMAGE 127.0.0.1:{server.port}/NAME" in text
    assert " object at 0x" not in text
    assert all(re.match(r'time="[^"]+" level=\w+ msg=', line) for line in lines)
    matches = [COMBINED.fullmatch(line) for line in out.splitlines()]
    assert [match[2].split()[0] for match in matches] == ["POST", "GET", "GET"]
    assert [match[3] for match in matches] == ["201", "200", "404"]
    assert matches[0][5] == "http://elsewhere/"
    assert matches[0][6] == 'me/1 \\"x\\"'
    assert matches[1][4] == "7"
    for secret in ("do-not-tell", "dG9wOnNlY3JldA", "Basic"):
        assert secret not in out + text


def test_serve_from_memory_below_a_prefix_without_access_log(tmp_path):
    path = write_configuration(
        tmp_path,
        "version: 0.1\nlog:\n  accesslog:\n    disabled: true\nstorage: inmemory\n"
        "http:\n  addr: {addr}\n  prefix: /registry/\n",
    )
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        assert server.ask(path="/registry/v2/")[0].status == 200
        assert server.ask(path="/v2/")[0].status == 404
        status, out, lines = server.stop()
    assert (status, out) == (0, "")
    text = "\n".join(lines)
    assert "in memory" in text
    assert "docker" not in text  # docker does not support a prefix
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("formatter", ["json", "logstash"])
def test_log_lines_are_json(tmp_path, formatter):
    more = f"log:\n  level: debug\n  formatter: {formatter}\n  fields:\n    service: mine\n"
    with RegistryProcess(*SERVE, write_configuration(tmp_path, more=more), cwd=tmp_path) as server:
        headers = {"Authorization": "Bearer c2VjcmV0"}
        assert server.ask("GET", "/v2/A/tags/list", headers=headers)[0].status == 400
        status, out, lines = server.stop()
    assert status == 0
    documents = [json.loads(line) for line in lines]
    assert all(document["service"] == "mine" for document in documents)
    key = "msg" if formatter == "json" else "message"
    assert any("listening on" in document[key] for document in documents)
    assert any(document.get("err.code") == "name invalid" for document in documents)
    assert "c2VjcmV0" not in out + "".join(lines)


def failed_start(tmp_path, path, **environ):
    """The one line that a failed start prints."""
    status, out, lines = run(*SERVE, path, cwd=tmp_path, **environ)
    assert (status, out) == (1, "")
    (line,) = lines
    assert line.startswith(f"twisted-registry: {path}: ")
    return line


def test_a_port_in_use_is_reported(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
        line = failed_start(tmp_path, write_configuration(tmp_path, addr=addr))
    assert f"http.addr: {addr}: " in line
    assert "in use" in line


def test_a_root_that_is_not_a_directory_is_reported(tmp_path):
    (tmp_path / "store").write_text("a file")
    line = failed_start(tmp_path, write_configuration(tmp_path))
    assert f"storage.filesystem.rootdirectory: {tmp_path / 'store'}: " in line


def test_an_error_names_the_whole_paths_of_configuration_and_store(tmp_path):
    (tmp_path / "store").write_text("a file")
    text = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: store}}}}\n"
    write_configuration(tmp_path, text)
    status, _, lines = run(*SERVE, "registry.yml", cwd=tmp_path)
    assert (status, lines) == (
        1,
        [
            (
                f"twisted-registry: {tmp_path}/registry.yml: storage.filesystem.rootdirectory:"
                f" {tmp_path}/store: File exists"
            )
        ],
    )
    write_configuration(tmp_path, "version: 0.1\nstorage: inmemory\n")
    status, _, lines = run(
        *SERVE[:-1], "fsck", cwd=tmp_path, REGISTRY_CONFIGURATION_PATH="registry.yml"
    )
    assert status == 1
    assert lines[-1].startswith(f"twisted-registry: {tmp_path}/registry.yml: storage.inmemory: ")


def test_a_fault_names_the_whole_path_of_the_configuration(tmp_path):
    write_configuration(tmp_path, "version: 0.1\nstorage: inmemory\nhttp:\n  net: udp\n")
    status, _, (line,) = run(*SERVE, "registry.yml", cwd=tmp_path)
    assert status == 1
    assert line.endswith(f"({tmp_path}/registry.yml line 4)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores permissions")
def test_an_unreadable_root_is_reported(tmp_path):
    (tmp_path / "store").mkdir(mode=0)
    line = failed_start(tmp_path, write_configuration(tmp_path))
    assert "storage.filesystem.rootdirectory" in line
    assert "ermission" in line


def test_a_unix_socket_replaces_a_dead_one(tmp_path):
    path = tmp_path / "registry.sock"
    configuration = write_configuration(tmp_path, addr=path, more="  net: unix\n")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with RegistryProcess(*SERVE, configuration, cwd=tmp_path) as server:
        assert status_over_unix(path) == 200
        line = failed_start(tmp_path, configuration)
        assert "another process listens" in line
        assert status_over_unix(path) == 200
        status, out, lines = server.stop()
    assert status == 0
    assert f"unix socket {path}" in "\n".join(lines)
    assert '"GET /v2/ HTTP/1.1" 200' in out
    assert not path.exists()


def test_a_unix_socket_does_not_replace_a_file(tmp_path):
    path = tmp_path / "registry.sock"
    path.write_text("precious")
    line = failed_start(tmp_path, write_configuration(tmp_path, addr=path, more="  net: unix\n"))
    assert str(path) in line
    assert path.read_text() == "precious"


def test_a_socket_of_systemd_is_used(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        port = waiting.getsockname()[1]
        # A client connects before the registry starts.
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            path = write_configuration(tmp_path, addr="127.0.0.1:1")
            command = (*passing_socket(waiting), *SERVE[1:], path)
            with RegistryProcess(*command, cwd=tmp_path, pass_fds=(waiting.fileno(),)) as server:
                assert server.port == port
                response = http.client.HTTPResponse(early)
                response.begin()
                assert response.status == 200
                assert server.ask()[0].status == 200
                assert server.stop()[0] == 0


def test_sockets_for_another_process_are_ignored(tmp_path):
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    with RegistryProcess(*SERVE, write_configuration(tmp_path), cwd=tmp_path, **environ) as server:
        assert server.ask()[0].status == 200


def test_content_survives_a_killed_process(tmp_path):
    path = write_configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        digest = push(server, b"content")
        server.process.kill()
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        assert server.ask("GET", f"/v2/a/blobs/{digest}")[1] == b"content"
        server.process.send_signal(2)
        assert server.stop()[0] == 0


def test_each_command_has_help(capsys):
    for name, text in COMMANDS.items():
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
        assert text[1:] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", OUTPUTS)
def test_output_that_nobody_reads_ends_a_command(words, tmp_path):
    write_configuration(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run_with_output(words, writing, tmp_path) == (141, b"")
    finally:
        os.close(writing)


@pytest.mark.parametrize("words", OUTPUTS)
def test_output_that_cannot_be_written_is_one_line(words, tmp_path):
    write_configuration(tmp_path)
    with Path("/dev/full").open("wb") as full:
        status, errors = run_with_output(words, full, tmp_path)
    assert (status, errors) == (1, b"twisted-registry: [Errno 28] No space left on device\n")


def test_a_command_runs_with_standard_output_closed(tmp_path):
    write_configuration(tmp_path)
    command = f"exec {sys.executable} -m twisted_registry check registry.yml >&-"
    assert run("sh", "-c", command, cwd=tmp_path)[0] == 0


def test_a_file_without_end_is_no_configuration(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", "/dev/zero"])
    assert stopped.value.code == 1
    expected = "/dev/zero: is larger than 4 MiB, so that it is no configuration"
    assert capsys.readouterr() == ("", f"twisted-registry: {expected}\n")


def run_with_output(words, output, folder):
    """Return exit status and standard error of a command."""
    done = subprocess.run(
        (sys.executable, "-m", "twisted_registry", *words),
        stdout=output, stderr=subprocess.PIPE, check=False, cwd=folder, timeout=60,
        env=environment(REGISTRY_CONFIGURATION_PATH="registry.yml"),
    )  # fmt: skip
    return done.returncode, done.stderr
