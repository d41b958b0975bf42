"""Small files of YAML that would become very large, or never end."""

from __future__ import annotations

import pytest

from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load_text

HEAD = "version: 0.1\nstorage: inmemory\n"
WIDTH = 9
LEVELS = range(1, 10)


def lists():
    """Nested lists: the last alias stands for a billion values."""
    first = f"x0: &x0 [{', '.join(['lol'] * WIDTH)}]\n"
    return first + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * WIDTH)}]\n" for n in LEVELS)


def mappings():
    """The same with mappings."""

    def items(level):
        return ", ".join(f"k{i}: *x{level - 1}" for i in range(WIDTH))

    return "x0: &x0 {a: lol}\n" + "".join(f"x{n}: &x{n} {{{items(n)}}}\n" for n in LEVELS)


def merges():
    """Mappings that merge the one before several times."""
    return "x0: &x0 {a: 1}\n" + "".join(
        f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * WIDTH)}]}}\n" for n in LEVELS
    )


BOMBS = {
    "lists in a section": (lists() + "log: {fields: {a: *x9}}\n", "too many values"),
    "lists in headers": (lists() + "http: {headers: {A: *x9}}\n", "too many values"),
    "mappings in a section": (mappings() + "log: {fields: *x9}\n", "too many values"),
    "mappings that are not used": (mappings(), "too many values"),
    "merges": (merges() + "http: {<<: *x9}\n", "too many values"),
    "a list in itself": ("log: {fields: &x {a: [*x]}}\n", "nested too deeply"),
    "a section in itself": ("http: &x {headers: *x}\n", "nested too deeply"),
    "deep lists": (f"log: {'[' * 100_000}{']' * 100_000}\n", "nesting depth"),
    "deep mappings": (f"log: {'{a: ' * 800}{'}' * 800}\n", "nested too deeply"),
    "digits": (f"catalog: {{maxentries: {'9' * 100_000}}}\n", "catalog.maxentries"),
    "base 60": (f"catalog: {{maxentries: 1{':59' * 50_000}}}\n", "catalog.maxentries"),
    "an exponent": ("catalog: {maxentries: 1e999999999}\n", "catalog.maxentries"),
    "a duration": (f"http: {{draintimeout: {'9' * 100_000}h}}\n", "http.draintimeout"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_one_line(name):
    text, reason = BOMBS[name]
    with pytest.raises(ConfigurationError) as error:
        load_text(HEAD + text, {})
    (line,) = error.value.lines()
    assert reason in line
    assert len(line) < 500


@pytest.mark.timeout(20)
def test_a_key_many_times_is_a_warning_each():
    assert len(load_text(HEAD + "log: {}\n" * 2000, {}).warnings) == 1999
