"""The scripts that ``completion`` prints. ``tests/integration/test_shells.py`` runs them."""

from __future__ import annotations

import re

import pytest

from twisted_registry.cli import main
from twisted_registry.commands.parser import make_parser

SHELLS = ("bash", "fish", "zsh")


@pytest.fixture(params=SHELLS)
def shell(request):
    return request.param


def test_every_command_and_option_is_in_the_script(shell, capsys):
    assert main(["completion", shell]) == 0
    # fish writes --all as "-l all", and -a as "-s a".
    script = re.sub(r"-l (?=\w)|-s (?=\w )", lambda m: "--" if m[0] == "-l " else "-",
                    capsys.readouterr().out)  # fmt: skip
    words = set(re.findall(r"(?<![\w-])-{0,2}\w[\w-]*", script))
    for path, parser in make_parser().walk():
        names = [name for option in parser.options for name in option.option_strings]
        assert {*path.split(), *names} <= words, path


def test_the_script_is_the_same_each_time(shell, capsys):
    for _ in range(2):
        main(["completion", shell])
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


@pytest.mark.parametrize("words", [[], ["tcsh"]])
def test_wrong_usage_names_the_shells(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["completion", *words])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("twisted-registry completion: ")
    assert "SHELL" in line
