"""The commands of the documentation, run by ``sh`` beside a registry that serves.

``SUBSTITUTIONS`` replaces the names, addresses and paths that a reader has to replace as well. The
search path has the programs of this module only: a block that uses another one fails with "not
found". Such a program is entered in ``REAL`` if it may run in a test, in ``CLIENTS`` if it needs an
installation, or in ``STAND_INS`` with the reason why something else runs in its place.

A ``console`` block has a prompt before each command. If lines follow a command, it prints exactly
these; ``...`` stands for any text, and on a line of its own for any lines.
"""

from __future__ import annotations

import grp
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime

from attrs import define, field, frozen

from tests.documentation.pages import ROOT, blocks_in
from tests.notifications.events import record
from tests.support.processes import environment
from tests.support.self_signed import self_signed
from twisted_registry.notifications.queue import EventQueue
from twisted_registry.repository import layout
from twisted_registry.testing import Registry, build_image, write_layout

#: What is replaced in a block, in this order. Names in braces are attributes of ``Scene``.
SUBSTITUTIONS = {
    "docker pull alpine\n": "docker load --input {folder}/alpine.tar\n",
    "docker://alpine ": "oci-archive:{folder}/alpine.tar ",
    "https://registry.example.com": "{url}",
    "registry.example.com": "{host}",
    "127.0.0.1:5000": "{host}",
    "/etc/": "{folder}/etc/",
    "/srv/": "{folder}/srv/",
    "/opt/": "{folder}/opt/",
    "/usr/local/": "{folder}/usr/local/",
    " -g twisted-registry ": " -g {group} ",
    "sha256:...": "{digest}",
    "2026-01-31T12:00:00Z": "{between}",
    "0123456789abcdef": '"$(twisted-registry token list registry.yml | cut -d " " -f 1)"',
    ".venv/bin/python ": "python ",
    ".ci/": "test -x {root}/.ci/",
}
#: Pages whose commands are one session, with the module that runs it.
SESSIONS = {
    "docs/container.rst": "tests/integration/test_image.py",
    "docs/tutorial.rst": "tests/integration/test_tutorial.py",
}
#: Programs that run as they are.
REAL = ("cp", "cut", "install", "mkdir", "mv")
#: Programs that run as they are in the tests with real programs, which require them.
CLIENTS = ("curl", "docker", "oras", "podman", "promtool", "skopeo")

_PYTHON = shlex.quote(sys.executable)
#: What runs in place of a program, and why.
STAND_INS = {
    "twisted-registry": (
        f"""case "$1" in
        serve) exec {_PYTHON} -m tests.documentation.serve_once "$@";;
        *) exec {_PYTHON} -m twisted_registry "$@";;
        esac""",
        "serve is stopped when it listens; everything else is the command",
    ),
    "twistd": (
        f'exec {_PYTHON} -m tests.documentation.serve_once twistd "$@"',
        "is stopped when it listens",
    ),
    "python": (f'exec {_PYTHON} "$@"', "the interpreter of the tests"),
    "make": (
        f"""PATH=/usr/bin:/bin make -n -C {shlex.quote(str(ROOT))} "$@" >make.log
        case "$1" in bench) exec {_PYTHON} -m tests.bench ${{2#ARGS=}} --list;; esac""",
        "targets take minutes: it shows what they would run, and the benchmark lists its cases",
    ),
    "git": ('test "$1" = clone; mkdir "$3"', "the tests may run outside a git repository"),
    "pip": ('test "$1" = install', "tests/test_packaging.py installs the package"),
    "python3": (
        """test "$1 $2" = "-m venv"
        mkdir -p "$3/bin"
        cp -P bin/pip bin/twistd bin/twisted-registry "$3"/bin""",
        "tests/test_packaging.py installs the package in a virtual environment",
    ),
    "scp": ('test "${2%%:*}" = appliance', "there is no other machine"),
    "ssh": ('test "$1" = appliance; shift; exec "$@"', "there is no other machine"),
    "systemd-sysusers": (
        "test -f etc/sysusers.d/twisted-registry.conf",
        "would change this machine; tests/integration/test_deb.py makes the user",
    ),
    "apt": (
        'test "$1" = install',
        "would change this machine; tests/integration/test_deb.py installs the package",
    ),
    "chown": ('test "$1" = -R', "this machine does not have the users"),
    "systemctl": (
        """case "$1" in
        enable) test -f "etc/systemd/system/$3.service" || test -f "etc/systemd/system/$3";;
        edit) test "$2" = twisted-registry;;
        *) test "$1" = restart;;
        esac""",
        "would change this machine; tests/integration/test_systemd.py runs the service",
    ),
    "pwgen": ("echo eech4wooPhaiQu8Ahghi", "any password will do"),
}

CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {folder}/store}}
  delete: {{enabled: true}}
  maintenance:
    trash: {{keep: 168h}}
    gc: {{grace: 0s}}
    retention:
      enabled: true
      rules: [{{repositories: ['ci/**'], newest: 1}}]
http: {{addr: '127.0.0.1:0'}}
"""
#: What the commands of a page need beyond that.
MORE = {
    "docs/access.rst": """\
auth: {{htpasswd: {{realm: Registry, path: {folder}/etc/twisted-registry/users}}}}
access: {{authenticated: [pull, push], tokens: {{}}}}
""",
}
_END = "<end of the output of a command>"


@frozen
class Command:
    """A command of a block, and the output that the block shows below it."""

    text: str
    output: str = ""


def read_commands(block):
    """Return the commands of a block; one of ``sh`` is a single script."""
    if block.language == "sh":
        return [Command(block.text)]
    found = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif found and line.startswith("> ") and not found[-1].output:
            found[-1] = Command(found[-1].text + line[2:])
        else:
            assert found, f"{block.place}: begin each command of a console block with '$ '"
            found[-1] = Command(found[-1].text, found[-1].output + line)
    return found


def programs_of(block):
    """Return the names of the programs that a block runs."""
    text = "".join(command.text for command in read_commands(block)).replace("\\\n", " ")
    found = set()
    for line in text.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        is_first = True
        for word in words:
            if is_first:
                found.add(word.rpartition("/")[2])
            is_first = word in {";", "&", "&&", "|", "||"}
    return found


def blocks_with_clients(wanted):
    """Return the blocks that run programs of ``CLIENTS``, or those that do not."""
    blocks = [each for each in blocks_in("console", "sh") if each.page not in SESSIONS]
    return [each for each in blocks if bool(programs_of(each) & set(CLIENTS)) is wanted]


@define
class Scene:
    """What commands find: a registry that serves, its configuration, images, and programs."""

    folder: str
    registry: Registry = field(repr=False)
    digest: str = ""
    between: str = ""
    root: str = str(ROOT)
    group: str = grp.getgrgid(os.getgid()).gr_name

    @property
    def url(self):
        return self.registry.url

    @property
    def host(self):
        return self.registry.host

    def substitute(self, text):
        for name, value in SUBSTITUTIONS.items():
            text = text.replace(name, value.format_map(_Attributes(self)))
        return text


class _Attributes(dict):
    def __init__(self, scene):
        self.scene = scene

    def __missing__(self, name):
        return getattr(self.scene, name)


def write_files(folder, page):
    """Write what the commands of a page read: configurations, certificates, images, the unit."""
    configuration = (CONFIGURATION + MORE.get(page, "")).format(folder=folder)
    (folder / "registry.yml").write_text(configuration)
    (folder / "config.yml").write_text(configuration)
    (folder / "disk.yml").write_text(configuration)
    (folder / "bucket.yml").write_text(configuration.replace(f"{folder}/store", f"{folder}/bucket"))
    pair = self_signed("127.0.0.1")
    (folder / "chain.pem").write_bytes(pair.certificate_pem)
    (folder / "key.pem").write_bytes(pair.key_pem)
    (folder / "notes.txt").write_text("some notes\n")
    write_layout(folder / "alpine.tar", {"alpine:latest": build_image(files={"name": "alpine"})})
    (folder / ".curlrc").write_text("fail-with-body\nno-progress-meter\n")
    (folder / "docs").mkdir()
    for path in ("twisted-registry", "systemd/system", "sysusers.d", "logrotate.d"):
        (folder / "etc" / path).mkdir(parents=True)
    (folder / "usr/local/bin").mkdir(parents=True)
    (folder / "etc/twisted-registry/registry.yml").write_text(configuration)
    (folder / "twisted-registry.new").write_text("a new version\n")
    (folder / "etc/twisted-registry/users").touch()
    shutil.copytree(ROOT / "conf", folder / "conf")
    served = folder / "conf/registry.yml"
    served.write_text(served.read_text().replace("addr: 127.0.0.1:5000", "addr: 127.0.0.1:0"))
    if page == "docs/notifications.rst":
        write_refused_events(folder / "store" / layout.EVENT_QUEUE)


def write_refused_events(path):
    """Write a queue whose last two events, 17 and 18, were refused."""
    with closing(EventQueue(str(path), 100)) as queue:
        queue.add([("hook", record())] * 18)
        for number in (17, 18):
            queue.refuse(number, "status 400")


def write_programs(folder):
    """Write the only programs on the search path."""
    folder.mkdir()
    for name in (*REAL, *CLIENTS):
        path = shutil.which(name)
        if path is not None:
            (folder / name).symlink_to(path)
    for name, (script, _) in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/sh -e\n{script}\n")
        (folder / name).chmod(0o755)


def push_images(scene, registry):
    """Push the images that commands name."""
    old, new = (build_image(files={"version": version}) for version in "12")
    registry.push_image("team/app:latest", old)
    time.sleep(0.01)
    scene.between = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    registry.push_image("team/app:latest", new)
    registry.push_image("team/old:1", old)
    for tag in "12":
        registry.push_image(f"ci/app:{tag}", new)
    scene.digest = old.digest


def run_block(block, folder, **environ):
    """Run the commands of a block in a new scene, and compare what they print."""
    write_files(folder, block.page)
    write_programs(folder / "bin")
    with Registry(config=folder / "registry.yml") as registry:
        scene = Scene(str(folder), registry)
        push_images(scene, registry)
        commands = read_commands(block)
        script = f"echo '{_END}'\n".join(scene.substitute(each.text) for each in commands)
        expected = [scene.substitute(command.output) for command in commands]
        foreign = re.findall(r"(?<![\w.}}])/(?:etc|opt|srv|usr|var)/", script)
        assert not foreign, f"{block.place}: enter the path in SUBSTITUTIONS ({__name__})"
        (folder / "block.sh").write_text(script)
        done = subprocess.run(
            ["/bin/sh", "-eu", "block.sh"],
            input="a password\n",
            cwd=folder,
            env={
                **environment(HOME=str(folder)),
                **environ,
                "PATH": str(folder / "bin"),
                "CURL_HOME": str(folder),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=100,
        )
    hint = f" (enter the program in a table of {__name__})" if done.returncode == 127 else ""
    assert done.returncode == 0, (
        f"{block.place}: exit {done.returncode}{hint}\n{script}\n{done.stdout}"
    )
    outputs = done.stdout.split(f"{_END}\n")
    for command, shown, printed in zip(commands, expected, outputs, strict=True):
        assert not shown or matches(shown, printed), (
            f"{block.place} shows\n{shown}\nbut {command.text!r} prints\n{printed}"
        )
    return scene


def matches(shown, printed):
    """Return whether a program printed what is shown, where ``...`` stands for anything."""
    lines = [
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in shown.splitlines()
    ]
    # curl ends no line.
    return re.fullmatch("".join(lines), printed.rstrip("\n") + "\n") is not None
