"""The fields of the JSON that commands print are those of docs/operations.rst."""

from __future__ import annotations

import io
import json
import re
import sys
from contextlib import redirect_stdout

import pytest

from tests.documentation.pages import ROOT
from tests.notifications.events import record
from tests.support.processes import run, write_configuration
from twisted_registry.cli import main
from twisted_registry.commands.parser import make_parser
from twisted_registry.notifications.queue import EventQueue
from twisted_registry.testing import Registry, build_image

SECTION = re.compile(r"^JSON of the commands\n=+\n(.*?)\n\n\S[^\n]*\n===", re.DOTALL | re.MULTILINE)
ENTRY = re.compile(r"^\* ``([a-z -]+)``: (.*?)\.(?=\n\*|\n\n)", re.DOTALL | re.MULTILINE)
#: Formatted twice.
CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{{{rootdirectory: {{root}}}}}}
  delete: {{{{enabled: true}}}}
  maintenance:
    trash: {{{{keep: 24h}}}}
    gc: {{{{grace: 2h}}}}
    retention: {{{{rules: [{{{{repositories: [a], newest: 1}}}}]}}}}
auth: {{{{htpasswd: {{{{realm: r, path: {users}}}}}}}}}
access: {{{{tokens: {{{{}}}}}}}}
notifications: {{{{endpoints: [{{{{name: hook, url: "http://127.0.0.1:1/"}}}}]}}}}
"""
IMAGE = build_image({"/a": "a"}, [b"a layer of its own"])
PARSERS = dict(make_parser().walk())


def words_of(text):
    return set(re.findall(r"``([a-z_]+)``", text))


def documented():
    """Return for each command its fields, and those of the items of its lists, by their names."""
    (section,) = SECTION.findall((ROOT / "docs/operations.rst").read_text())
    found = {}
    for command, text in ENTRY.findall(section):
        fields, *lists = re.split(r"\bEach\s+of\s+", text)
        parts = [each.partition(":") for each in lists]
        found[command] = (
            words_of(fields),
            {words_of(name).pop(): words_of(items.partition(";")[0]) for name, _, items in parts},
        )
    return found


DOCUMENTED = documented()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a configuration, and a store with images and a refused event."""
    folder = tmp_path_factory.mktemp("commands")
    write_configuration(folder, CONFIGURATION.format(users=folder / "users"))
    with Registry(storage=folder / "store") as registry:
        registry.push_image("a:v1", IMAGE)
        registry.push_image("a:v2", build_image({"/b": "b"}))
        registry.push_image("b:v1", build_image({"/c": "c"}))
    queue = EventQueue(str(folder / "store/twisted-registry/notifications/events.sqlite"), 10)
    queue.add([("hook", record("1"))])
    queue.refuse(1, "status 400")
    queue.close()
    (folder / "users").write_text("")
    return folder


@pytest.fixture(scope="module")
def printed(folder):
    """What each command prints, by the command."""
    path = str(folder / "registry.yml")
    found = {}

    def command(words, *more, files=(path,), status=0, name=None):
        """Run a command in a process: it needs a reactor of its own."""
        command_line = (sys.executable, "-m", "twisted_registry", *words.split(), *more, "--json")
        done, out, err = run(*command_line, *files, cwd=folder)
        assert done == status, err
        found[name or words] = json.loads(out)
        return found[name or words]

    def call(words, *more):
        """Run a command that needs no reactor."""
        with redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\n")))
            assert main([*words.split(), *more, "--json", path]) == 0
        found[words] = json.loads(out.getvalue())

    for action in ("add", "passwd"):
        call(f"user {action}", "ada")
    call("user list")
    call("user remove", "ada")
    call("events list")
    call("events replay", "--event=1")
    call("events discard", "--all")
    token = command("token create", "robot", "--allow=**:pull")
    command("token list")
    command("token revoke", token["id"])
    command("token rotate-keys")
    command("stats")
    (folder / "target").mkdir()
    target = CONFIGURATION.format(users="users").partition("notifications")[0]
    command("copy-store", files=(path, write_configuration(folder / "target", target)))
    explain = "garbage-collect --explain"
    command("garbage-collect", f"--explain={IMAGE.layers[0].digest}", name=explain)
    command("garbage-collect")
    command("retention", "--dry-run", "--all")
    command("delete", "b")
    command("trash list")
    command("trash history", "b:v1")
    command("trash restore", "b:v1")
    command("trash empty")
    command("maintenance run", "uploadpurging")
    command("maintenance status")
    hexadecimal = IMAGE.layers[0].digest.partition(":")[2]
    blob = folder / "store/docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal
    (blob / "data").write_bytes(b"damaged")
    command("fsck", status=3)
    # Nothing listens for the events, and the users are gone.
    (folder / "users").unlink()
    command("doctor", status=1)
    return found


def test_every_command_with_json_is_in_the_documentation():
    with_json = {
        path
        for path, parser in PARSERS.items()
        if any("--json" in option.option_strings for option in parser.options)
    }
    assert DOCUMENTED.keys() - {"garbage-collect --explain"} == with_json


@pytest.mark.parametrize("command", DOCUMENTED)
def test_the_fields_are_those_of_the_documentation(command, printed):
    fields, lists = DOCUMENTED[command]
    document = printed[command]
    assert document.keys() == fields
    for name, item_fields in lists.items():
        assert document[name], f"the test makes no item of {name}"
        assert document[name][0].keys() - {"before", "now"} == item_fields - {"before", "now"}


def test_listings_print_their_one_list_as_lines():
    for path, parser in PARSERS.items():
        if any("--json-lines" in option.option_strings for option in parser.options):
            assert len(DOCUMENTED[path][1]) == 1, path
