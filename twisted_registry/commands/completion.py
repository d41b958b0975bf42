"""``twisted-registry completion``: print a script that makes a shell complete the command line.

The script has all commands, options and kinds of values of the parser in it, so that a shell starts
no process to complete a word.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

from twisted_registry.commands.parser import PATH_METAVARS, describe, make_parser, takes_value

if TYPE_CHECKING:
    from argparse import Action, ArgumentParser, Namespace
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from twisted_registry.commands.parser import CommandParser


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = (
        "For this shell only: source <(twisted-registry completion bash), or the same with zsh, or"
        " twisted-registry completion fish | source."
    )
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SCRIPTS), help="the shell")


def run(options: Namespace) -> int:
    """Print the script.

    :returns: 0.
    """
    sys.stdout.write(_SCRIPTS[options.shell](make_parser()))
    return 0


def _is_path(argument: Action) -> bool:
    return argument.metavar in PATH_METAVARS


def _brief(argument: Action) -> str:
    """Return the beginning of the help of an argument, which fits on a line beside it."""
    return re.split(r" \(|[:;]", describe(argument))[0]


def _slots(parser: CommandParser) -> Iterator[tuple[str, Action]]:
    """Yield what is completed with a value: names of options, numbers of positional arguments."""
    for option in parser.options:
        if takes_value(option):
            yield from ((name, option) for name in option.option_strings)
    for number, argument in enumerate(parser.positional, 1):
        yield str(number), argument


def _fill(template: str, **parts: Iterable[str]) -> str:
    """Replace the names of *parts*, as ``@NAME@``, by their lines with the same indentation."""

    def lines(match: re.Match[str]) -> str:
        return f"\n{match[1]}".join(parts[match[2]])

    return re.sub(r"(?<=\n)( *)@(\w+)@", lambda match: match[1] + lines(match), template)


# In bash and fish, the words before the cursor lead to a path of commands, as "user add", and to a
# slot: the option that waits for a value, or the number of an argument.


def _quoted(path: str, names: Iterable[str]) -> list[str]:
    return [f"'{path}/{name}'" for name in names]


_BASH = """\
# bash completion of twisted-registry, printed by "twisted-registry completion bash".

_twisted_registry() {
    local word=${COMP_WORDS[COMP_CWORD]} path= option= number=1 words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        # bash makes separate words of such characters in the middle of a word.
        if [[ ${COMP_WORDS[i]} == [=:@]* ]]; then
            ((++i == COMP_CWORD)) || option=
            continue
        elif [[ $option ]]; then
            option=
            continue
        fi
        case "$path/${COMP_WORDS[i]}" in
            @commands@) path="${path:+$path }${COMP_WORDS[i]}" ;;
            @valued@) option=${COMP_WORDS[i]} ;;
            */-*) ;;
            *) ((number++)) ;;
        esac
    done
    [[ $word != = ]] || word=
    if [[ $word == -* && ! $option ]]; then
        number=options
    fi
    case "$path/${option:-$number}" in
        @words@
        @files@) compopt -o default ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _twisted_registry twisted-registry registry
"""


def _make_bash(parser: CommandParser) -> str:
    commands, valued, words, files = [], [], [], []
    for path, below in parser.walk():
        slots = dict(_slots(below))
        choices = {slot: argument.choices for slot, argument in slots.items() if argument.choices}
        choices["options"] = [name for option in below.options for name in option.option_strings]
        if below.commands:
            choices["1"] = below.commands
        words += [f"'{path}/{slot}') words='{' '.join(each)}' ;;" for slot, each in choices.items()]
        commands += _quoted(path, below.commands)
        valued += _quoted(path, (slot for slot in slots if slot.startswith("-")))
        files += _quoted(path, (slot for slot, argument in slots.items() if _is_path(argument)))
    return _fill(
        _BASH,
        commands=_alternatives(commands),
        valued=_alternatives(valued),
        words=words,
        files=_alternatives(files),
    )


def _alternatives(patterns: list[str]) -> list[str]:
    return [*(f"{pattern} | \\" for pattern in patterns[:-1]), patterns[-1]]


_FISH = """\
# fish completion of twisted-registry, printed by "twisted-registry completion fish".

# Whether the words before the cursor lead to a path of commands, and to an argument of this number.
function __twisted_registry_at --argument-names path number
    set -l at
    set -l option
    set -l count 1
    for word in (commandline --tokenize --current-process --cut-at-cursor)[2..]
        if test -n "$option"
            set option
            continue
        end
        switch "$at/$word"
            @commands@
                set at (string trim "$at $word")
            @valued@
                set option $word
            case '*/-*'
            case '*'
                set count (math $count + 1)
        end
    end
    test "$at" = "$path"; and test -z "$number" -o "$count" = "$number"
end

complete -c twisted-registry --no-files
complete -c registry --wraps twisted-registry
@rules@
"""


def _make_fish(parser: CommandParser) -> str:
    commands, valued, rules = [], [], []
    for path, below in parser.walk():
        commands += _quoted(path, below.commands)
        valued += _quoted(path, (slot for slot, _ in _slots(below) if slot.startswith("-")))
        for name, command in below.commands.items():
            rules.append(f"{_fish_rule(path, '1')} -a {name} -d {_quote_fish(command.summary)}")
        for option in below.options:
            flags = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.option_strings
            )
            value = f" -r{_fish_values(option)}" if takes_value(option) else ""
            rules.append(f"{_fish_rule(path)} {flags} -d {_quote_fish(_brief(option))}{value}")
        for number, argument in enumerate(below.positional, 1):
            if values := _fish_values(argument):
                rules.append(f"{_fish_rule(path, str(number))}{values}")
    return _fill(
        _FISH,
        commands=["case \\", *_continued(commands)],
        valued=["case \\", *_continued(valued)],
        rules=rules,
    )


def _fish_rule(path: str, number: str = "") -> str:
    condition = f'__twisted_registry_at "{path}" {number}'.rstrip()
    return f"complete -c twisted-registry -n '{condition}'"


def _fish_values(argument: Action) -> str:
    if argument.choices:
        return f" -a '{' '.join(argument.choices)}'"
    return " -F" if _is_path(argument) else ""


def _quote_fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _continued(words: list[str], indent: int = 4) -> list[str]:
    """Return indented lines of one command: each but the last ends with a backslash."""
    return [f"{' ' * indent}{word} \\" for word in words[:-1]] + [f"{' ' * indent}{words[-1]}"]


_ZSH = """\
#compdef twisted-registry registry
# zsh completion of twisted-registry, printed by "twisted-registry completion zsh".

@functions@
# The first is true in a file of $fpath, which runs when a word is completed for the first time.
if [[ $funcstack[1] == _twisted-registry ]]; then
    _twisted-registry "$@"
else
    compdef _twisted-registry twisted-registry registry
fi
"""


def _make_zsh(parser: CommandParser) -> str:
    functions: list[str] = []
    for path, below in parser.walk():
        specs = [_zsh_option(option) for option in below.options]
        functions.append(f"{_zsh_function(path)}() {{")
        if below.commands:
            functions += [*_zsh_commands(path, below, specs), "}", ""]
            continue
        for number, argument in enumerate(below.positional, 1):
            optional = ":" if argument.nargs == "?" else ""
            specs.append(shlex.quote(f"{number}:{optional}{_zsh_values(argument)}"))
        functions += ["    _arguments -s \\", *_continued(specs, 8), "}", ""]
    return _fill(_ZSH, functions=functions)


def _zsh_commands(path: str, parser: CommandParser, specs: list[str]) -> Iterator[str]:
    """Yield the body of the function of a parser that has commands."""
    yield "    local context state line"
    yield "    local -A opt_args"
    yield "    local -a commands=("
    for name, below in parser.commands.items():
        yield f"        {shlex.quote(f'{name}:{below.summary}')}"
    yield "    )"
    yield "    _arguments -s -C \\"
    yield from _continued([*specs, "'1: :->command'", "'*:: :->argument'"], 8)
    yield "    case $state in"
    yield "        command) _describe command commands ;;"
    yield "        argument)"
    yield "            case $words[1] in"
    for name in parser.commands:
        yield f"                {name}) {_zsh_function(f'{path} {name}'.lstrip())} ;;"
    yield "            esac ;;"
    yield "    esac"


def _zsh_function(path: str) -> str:
    return f"_twisted-registry {path}".rstrip().replace(" ", "_")


def _zsh_option(option: Action) -> str:
    text = re.sub(r"([\[\]\\])", r"\\\1", _brief(option))
    names = option.option_strings
    after = f"[{text}]"
    if takes_value(option):
        names = [f"{name}=" if name.startswith("--") else name for name in names]
        after += f":{_zsh_values(option)}"
        # It may be given again.
        return " ".join(shlex.quote(f"*{name}{after}") for name in names)
    if len(names) == 1:
        return shlex.quote(f"{names[0]}{after}")
    return f"'({' '.join(names)})'{{{','.join(names)}}}{shlex.quote(after)}"


def _zsh_values(argument: Action) -> str:
    name = str(argument.metavar or argument.dest).replace(":", "\\:")
    if argument.choices:
        return f"{name}:({' '.join(argument.choices)})"
    # The name is shown unless an option is typed, which it would keep from being completed.
    return f"{name}:" + ("_files" if _is_path(argument) else f'_guard "^-*" {name}')


_SCRIPTS: Mapping[str, Callable[[CommandParser], str]] = {
    "bash": _make_bash,
    "fish": _make_fish,
    "zsh": _make_zsh,
}
