"""The completion scripts in bash, zsh and fish: keys typed at a terminal, and what they run."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import time
from contextlib import redirect_stdout

import pytest

from tests.integration.servers import program
from tests.support.processes import environment, run
from twisted_registry.cli import main

pytestmark = pytest.mark.integration

#: Typed keys (a tab completes), and the arguments of the command line that results.
COMPLETED = [
    ("gar\t", "garbage-collect"),
    ("user ad\t", "user add"),
    ("user add --ht\t x", "user add --htpasswd x"),
    ("garbage-collect --dr\t", "garbage-collect --dry-run"),
    ("completion fi\t", "completion fish"),
    ("serve reg\t", "serve registry.yml"),
    ("serve a\t", "serve a file.yml"),
    ("serve sub\tdeep\t", "serve sub/deeper.yml"),
    ("user add --htpasswd reg\t", "user add --htpasswd registry.yml"),
    ("user add --htpasswd=reg\t", "user add --htpasswd=registry.yml"),
    # Options and their values before an argument do not count as arguments.
    ("garbage-collect --dry-run reg\t", "garbage-collect --dry-run registry.yml"),
    ("garbage-collect --explain sha256:0 reg\t", "garbage-collect --explain sha256:0 registry.yml"),
    ("trash restore team/app:1 reg\t", "trash restore team/app:1 registry.yml"),
    ("trash restore --at=2026-01-31T12:00Z a/b@sha256:0 reg\t",
     "trash restore --at=2026-01-31T12:00Z a/b@sha256:0 registry.yml"),
    ("copy-store registry.yml a\t", "copy-store registry.yml a file.yml"),
    # A name of a repository is no name of a file.
    ("delete reg\t", "delete reg"),
    ("delete reg reg\t", "delete reg registry.yml"),
    ("token create reg\t", "token create reg"),
    ("serve registry.yml reg\t", "serve registry.yml reg"),
]  # fmt: skip

#: Words, what is offered after them, and something that is not.
OFFERED = [
    ("", {"serve", "copy-store", "completion"}, "registry.yml"),
    ("user ", {"add", "passwd", "remove", "list"}, "serve"),
    ("completion ", {"bash", "fish", "zsh"}, "registry.yml"),
    ("token create --", {"--allow", "--expires", "--json", "--help"}, "--htpasswd"),
    ("garbage-collect -", {"--dry-run", "-d", "-m", "--explain"}, "--all"),
    ("trash restore x --", {"--at", "--json"}, "--older-than"),
    ("serve ", {"registry.yml", "sub/"}, "check"),
]

#: The start file of a shell that prints the arguments of the command instead of running it.
BASH = """\
PS1='ready> '
bind 'set bell-style none'
twisted-registry() { printf '{%s}\n' "$*"; }
source HOME/script
"""
ZSH = """\
fpath=(HOME $fpath)
autoload -Uz compinit
compinit -u -D
PS1='ready> '
unsetopt prompt_sp prompt_cr beep
twisted-registry() { print -r -- "{$*}" }
"""


class Terminal:
    """A shell that reads keys."""

    def __init__(self, command, folder, home):
        self._keys, child = pty.openpty()
        self._process = subprocess.Popen(
            (program(command[0]), *command[1:]),
            stdin=child, stdout=child, stderr=child, cwd=folder, start_new_session=True,
            env=environment(HOME=str(home), ZDOTDIR=str(home), TERM="dumb", COLUMNS="200"),
        )  # fmt: skip
        os.close(child)
        self._read_until(["ready> "])

    def _read_until(self, texts):
        """Read until the output has these texts; return it."""
        out, deadline = "", time.monotonic() + 30
        while not all(text in out for text in texts):
            assert time.monotonic() < deadline, out
            if select.select([self._keys], [], [], 1)[0]:
                out += os.read(self._keys, 65536).decode()
        return out

    def _type(self, keys):
        os.write(self._keys, keys.encode())

    def complete(self, keys):
        """Type the arguments of the command; return those that it runs with."""
        self._type(f"twisted-registry {keys}\r")
        return re.search(r"\{(.*)\}", self._read_until(["}"]))[1]

    def offer(self, words, expected):
        """Type the arguments of the command, and tabs, until the expected words are shown.

        Returns all words that are shown.
        """
        self._type(f"twisted-registry {words}\t\t")
        out = self._read_until(expected)
        self._type("\x15twisted-registry end\r")
        return set((out + self._read_until(["{end}"])).split())

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._keys)


class Fish:
    """fish, which prints completions by a command."""

    def __init__(self, folder, home):
        self._folder, self._home = folder, home

    def _candidates(self, words):
        done = subprocess.run(
            (program("fish"), "--no-config", "-c",
             'source $argv[1]; complete --do-complete "$argv[2]"', "--",
             str(self._home / "script"), f"twisted-registry {words}"),
            cwd=self._folder, env=environment(HOME=str(self._home)), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    def complete(self, keys):
        *parts, last = keys.split("\t")
        line = ""
        for part in parts:
            line += part
            candidates = self._candidates(line)
            if len(candidates) == 1:
                line = f"{line[: line.rfind(' ') + 1]}{candidates[0]}"
                line += "" if line.endswith("/") else " "
        return re.sub(" +", " ", f"{line}{last}").strip()

    def offer(self, words, _):
        return set(self._candidates(words))

    def close(self):
        pass


def printed_script(shell):
    """Run ``completion``, and return what it prints."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["completion", shell]) == 0
    return out.getvalue()


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request, tmp_path_factory):
    """A shell in a folder with some files."""
    folder, home = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("home")
    (folder / "sub").mkdir()
    for name in ("registry.yml", "a file.yml", "sub/deeper.yml"):
        (folder / name).touch()
    script = printed_script(request.param)
    for name in ("script", "_twisted-registry"):  # the name of the function of zsh
        (home / name).write_text(script)
    for name, text in ((".bashrc", BASH), (".zshrc", ZSH)):
        (home / name).write_text(text.replace("HOME", str(home)))
    started = (
        Fish(folder, home)
        if request.param == "fish"
        else Terminal(
            {
                "bash": ("bash", "--noprofile", "--rcfile", str(home / ".bashrc"), "-i"),
                "zsh": ("zsh", "-d", "-i"),
            }[request.param],
            folder,
            home,
        )
    )
    yield started
    started.close()


@pytest.mark.parametrize(("keys", "arguments"), COMPLETED)
def test_a_word_is_completed(shell, keys, arguments):
    assert shell.complete(keys) == arguments


@pytest.mark.parametrize(("words", "offered", "other"), OFFERED)
def test_words_are_offered(shell, words, offered, other):
    shown = shell.offer(words, offered)
    assert offered <= shown
    assert other not in shown


def test_zsh_takes_the_script_also_from_a_command(tmp_path):
    (tmp_path / "script").write_text(printed_script("zsh"))
    commands = (
        "autoload -Uz compinit && compinit -u -D && source ./script && "
        "print $_comps[twisted-registry] $_comps[registry]"
    )
    status, out, errors = run(program("zsh"), "-f", "-c", commands, cwd=tmp_path)
    assert (status, out, errors) == (0, "_twisted-registry _twisted-registry\n", [])
