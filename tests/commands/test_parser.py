"""The parser, as completion and manual page read it."""

from __future__ import annotations

import pytest

from twisted_registry.cli import main
from twisted_registry.commands.parser import (
    COMMANDS,
    PATH_METAVARS,
    describe,
    make_parser,
    takes_value,
)

#: The metavars of values that a shell cannot complete. Those of paths are ``PATH_METAVARS``.
OTHER_METAVARS = {
    *("AFTER", "DIGEST", "DURATION", "ID", "NAME", "REPO", "REPO:TAG", "REPOSITORIES:ACTIONS"),
    *("NUMBER", "PATTERN", "TASK", "TIME", "WHAT"),
}
PARSERS = dict(make_parser().walk())


def test_all_commands_and_actions_are_found():
    assert {"", *COMMANDS, "help", "user add", "trash restore", "token create"} <= set(PARSERS)
    assert PARSERS["user"].commands.keys() == {"add", "passwd", "remove", "list"}


def test_only_the_arguments_of_the_named_commands_are_added():
    parsers = dict(make_parser(["check"]).walk())
    names = {each.option_strings[0] for each in parsers["check"].options}
    assert "--bucket" in names
    assert parsers["serve"].positional == []
    assert "user add" not in parsers


@pytest.mark.parametrize("path", PARSERS)
def test_each_command_and_argument_has_a_text(path):
    parser = PARSERS[path]
    assert parser.description.endswith(".")
    assert f"{parser.summary[0].upper()}{parser.summary[1:]}." == parser.description
    for argument in parser.arguments:
        assert describe(argument), argument
        assert not describe(argument).endswith("."), argument


@pytest.mark.parametrize("path", PARSERS)
def test_it_is_known_how_each_value_is_completed(path):
    parser = PARSERS[path]
    for argument in (*parser.positional, *filter(takes_value, parser.options)):
        known = argument.choices or argument.metavar in PATH_METAVARS | OTHER_METAVARS
        assert known, f"{path}: enter {argument.metavar} in PATH_METAVARS or in OTHER_METAVARS"


#: A word for each positional argument, so that the parser gets to the word that is wrong.
WORDS = {
    "create": ["ci", "--allow=**:pull"],
    "completion": ["bash"],
    "help": [],
    "copy-store": "ab",
}
WITHOUT_ACTIONS = [path for path, parser in PARSERS.items() if not parser.commands]


def words_of(path):
    """The command line of a command, with what it requires."""
    last = path.rpartition(" ")[2]
    required = [each for each in PARSERS[path].positional if each.nargs != "?"]
    return [*path.split(), *WORDS.get(last, ["a"] * len(required))]


@pytest.mark.parametrize("path", WITHOUT_ACTIONS)
def test_wrong_usage_of_each_command_has_status_2(path, capsys):
    for wrong in (["--no-such-option"], ["a", "b", "c"]):
        with pytest.raises(SystemExit) as stopped:
            main([*words_of(path), *wrong])
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err


@pytest.mark.parametrize("path", WITHOUT_ACTIONS)
def test_a_similar_option_of_each_command_is_suggested(path, capsys):
    for option in PARSERS[path].options:
        name = option.option_strings[-1]
        with pytest.raises(SystemExit) as stopped:
            main([*words_of(path), f"{name}x"])
        assert stopped.value.code == 2
        assert f"unknown option '{name}x'; did you mean {name}?\n" in capsys.readouterr().err


@pytest.mark.parametrize("path", [path for path, parser in PARSERS.items() if parser.commands])
def test_a_similar_command_is_suggested(path, capsys):
    for name in PARSERS[path].commands:
        with pytest.raises(SystemExit) as stopped:
            main([*path.split(), f"{name}x"])
        assert stopped.value.code == 2
        assert f"unknown command '{name}x'; did you mean {name}?\n" in capsys.readouterr().err
