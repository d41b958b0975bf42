"""The Python code of the documentation runs as printed.

A block that begins with the name of its file is a module of tests (``test_*.py``) or a program that
serves; only port and folder of a program are replaced. Any other block is a script, which must end
without an error, a warning or a file that it leaves.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode

import pytest

from tests.documentation.pages import FOLDER, ROOT, blocks_in, each_block
from tests.support.processes import environment, free_port, run

BLOCKS = blocks_in("python")
TESTS = [block for block in BLOCKS if block.file.startswith("test_")]
SCRIPTS = [block for block in BLOCKS if not block.file]
PROGRAMS = [block for block in BLOCKS if block.file and block not in TESTS]
ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{FOLDER}",
    # The plugin is named below, so that an installation without its entry point passes as well.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
#: What code in a docstring needs, and what is done with it: ``{}`` is the code.
AROUND = {
    "twisted_registry/app/embedding.py": """
from tempfile import TemporaryDirectory
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted_registry import make_resource
root, folder = Resource(), TemporaryDirectory()
path = folder.name
{}
assert sorted(root.children) == [b"images", b"v2"]
reactor.callWhenRunning(reactor.stop)
reactor.run()
folder.cleanup()
""",
    "twisted_registry/testing/hooks.py": """
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from twisted_registry.testing import Registry
{}
with Registry() as registry:
    registry.hooks.append(refuse_pushes)
    assert urlopen(f"{{registry.url}}/v2/").read() == b"{{}}"
    try:
        urlopen(Request(f"{{registry.url}}/v2/app/manifests/1", method="PUT"))
    except HTTPError as error:
        error.close()
        assert error.code == 503
""",
    "twisted_registry/testing/mixins.py": """
import unittest
from twisted_registry.testing import RegistryMixin
pushed = []
def push(url, auth):
    pushed.append(auth)
{}
ended = unittest.defaultTestLoader.loadTestsFromTestCase(PushTests).run(unittest.TestResult())
assert ended.wasSuccessful() and pushed == [("ada", "secret")]
""",
    "twisted_registry/testing/profiles.py": """
from twisted_registry.testing import Registry, profiles
{}
""",
    "twisted_registry/testing/storage_contract.py": """
import pytest
import pytest_twisted
from twisted_registry.testing.storage_contract import STORAGE_CONTRACT, check_contract
{}
(mark,) = test_storage_contract.pytestmark
assert mark.args == ("test", STORAGE_CONTRACT)
""",
}
#: Requests to programs that do not answer 200 to everybody: a name and a password, the status.
ANSWERS = {
    "readers_app.py": [("POST", "/v2/a/blobs/uploads/", "", 403), ("GET", "/v2/", "", 200)],
    "users_app.py": [("GET", "/v2/", "", 401), ("GET", "/v2/", "ada:secret", 200)],
}


#: Runs scripts one after the other, each in its own namespace: a start is slow.
RUN = """
import json, sys
for place, text in json.loads(sys.argv[1]):
    exec(compile(text, place, "exec"), {"__name__": "__main__"})
"""


@pytest.mark.parametrize("folder", sorted({block.page.partition("/")[0] for block in SCRIPTS}))
def test_scripts_end_without_an_error(folder, tmp_path):
    texts = [
        (block.place, AROUND.get(block.page, "{}").format(block.text))
        for block in SCRIPTS
        if block.page.startswith(folder)
    ]
    command = (sys.executable, "-W", "error", "-c", RUN, json.dumps(texts))
    assert run(*command, cwd=tmp_path, **ENVIRONMENT) == (0, "", [])
    assert list(tmp_path.iterdir()) == []


def how_to_run(block):
    """Return the arguments of ``python -m`` that run a module of tests."""
    if "twisted.trial" in block.text:
        return ["twisted.trial", block.file.removesuffix(".py")]
    # A module that has its own fixture shows that the plugin is not needed.
    plugin = "twisted_registry.pytest_plugin"
    plugins = ["pytest_twisted"] if "pytest_twisted" in block.text else []
    plugins += [] if "@pytest.fixture" in block.text else [plugin]
    return ["pytest", *(word for name in plugins for word in ("-p", name)), block.file]


@each_block(TESTS)
def test_a_module_of_tests_passes(block, tmp_path):
    (tmp_path / block.file).write_text(block.text)
    command = [sys.executable, "-m", *how_to_run(block)]
    status, out, errors = run(*command, cwd=tmp_path, timeout_s=100, **ENVIRONMENT)
    assert status == 0, (out, errors)
    assert re.search(r"\d passed|PASSED", out), out


def ask(method, url, login):
    """Return status and content of the answer to a request."""
    request = urllib.request.Request(url, method=method)
    if login:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def wait_until_it_answers(url, program):
    for _ in range(600):
        assert program.poll() is None, program.communicate()
        try:
            return ask("GET", url, "")
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


@each_block(PROGRAMS)
def test_a_program_serves(block, tmp_path):
    if "klein" in block.file:
        pytest.importorskip("klein", reason="install the extra test")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    text = block.text.replace("/srv/images", str(tmp_path / "images")).replace("5000", str(port))
    (tmp_path / block.file).write_text(text)
    program = subprocess.Popen(
        [sys.executable, block.file],
        cwd=tmp_path,
        env=environment(**ENVIRONMENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        first = wait_until_it_answers(f"{url}/v2/", program)
        if block.file not in ANSWERS:
            assert first == (200, b"{}")
        for method, path, login, status in ANSWERS.get(block.file, ()):
            assert ask(method, url + path, login)[0] == status, (method, path, login)
        program.send_signal(signal.SIGTERM)
        out, _ = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    assert "Traceback" not in out, out
    assert program.returncode in {0, -signal.SIGTERM}


def test_no_program_is_tested_that_is_not_shown():
    assert ANSWERS.keys() <= {block.file for block in PROGRAMS}
    assert AROUND.keys() <= {block.page for block in SCRIPTS}
