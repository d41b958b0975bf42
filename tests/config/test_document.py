"""YAML documents: values, origins, and errors that quote nothing of the text."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from twisted_registry.config.document import DocumentError, Node, Report
from twisted_registry.config.kinds import to_plain_data
from twisted_registry.config.parsing import parse

#: PyYAML's loaders: in Python, and that of libyaml if it is available.
LOADERS = [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)]


def read(text: str, **options: Any) -> tuple[object, list[str]]:
    """The plain data of *text*, and the faults."""
    report = Report()
    root = parse(text, "f.yml", report, **options)
    return to_plain_data(root), [str(fault) for fault in report.faults]


@pytest.mark.parametrize("loader", LOADERS)
def test_both_loaders_read_the_same_values(loader: type):
    text = "a: 1\nb: [1.5, yes, ~, 'x', 0x10]\n2: 2020-01-01\nc: &c {d: e}\nf: {<<: *c, g: h}\n"
    assert read(text, loader=loader) == (
        {
            "a": 1,
            "b": [1.5, True, None, "x", 16],
            "2": "2020-01-01",
            "c": {"d": "e"},
            "f": {"d": "e", "g": "h"},
        },
        [],
    )


def test_keys_of_a_mapping_take_precedence_over_merged_ones():
    assert read("<<: [{a: 1, b: 1}, {b: 2, c: 2}]\nc: 3\n")[0] == {"a": 1, "b": 1, "c": 3}
    assert read("<<: a\n")[1] == [
        "configuration: << merges a mapping or a list of mappings (f.yml line 1)"
    ]


def test_lines_and_spelling_are_kept():
    root = parse("a:\n  b: 007\n", "f.yml", Report())
    assert isinstance(root.value, dict)
    inner = root.value["a"]
    assert isinstance(inner.value, dict)
    assert (inner.value["b"].text, inner.value["b"].origin) == ("007", "f.yml line 2")


@pytest.mark.parametrize(
    ("text", "data", "warnings"),
    [
        (
            "a:\n  b: 1\n  b: 2\n",
            {"a": {"b": 2}},
            ["a.b: @; the last applies (f.yml line 3)"],
        ),
        ("a: {b: 1}\na:\n", {"a": None}, ["a: @; the last applies (f.yml line 2)"]),
        ("a: [1]\na: [2]\n", {"a": [2]}, ["a: @; the last applies (f.yml line 2)"]),
        (
            "a: {b: 1, c: 2, d: {e: 3}}\n\na: {c: 4, d: {f: 5}}\n",
            {"a": {"b": 1, "c": 4, "d": {"e": 3, "f": 5}}},
            [
                "a: @; the two sections are joined (f.yml line 3)",
                "a.c: @; the last applies (f.yml line 3)",
                "a.d: @; the two sections are joined (f.yml line 3)",
            ],
        ),
        (
            "a: 1\na: 2\na: 3\n",
            {"a": 3},
            ["a: @; the last applies (f.yml line 2)", "a: @; the last applies (f.yml line 3)"],
        ),
    ],
)
def test_of_duplicate_keys_the_last_applies_with_a_warning(text, data, warnings):
    report = Report()
    assert to_plain_data(parse(text, "f.yml", report)) == data
    assert report.warnings == [warning.replace("@", "duplicate key") for warning in warnings]
    assert report.faults == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "http:\n  addr: x\n net: y\n",
            (
                "at line 3, column 2: while parsing a block mapping at line 1, column 1; expected"
                " <block end>, but found '<block mapping start>'"
            ),
        ),
        (
            "a: [1, 2}\n",
            (
                "at line 1, column 9: while parsing a flow sequence at line 1, column 4;"
                " expected ',' or ']', but got '}'"
            ),
        ),
        ("a: b: c\n", "at line 1, column 5: mapping values are not allowed here"),
        ("a: *hunter2\n", "at line 1, column 4: found undefined alias '******'"),
        (
            "@a\n",
            (
                "at line 1, column 1: while scanning for the next token;"
                " found character '@' that cannot start any token"
            ),
        ),
        ("a: 1\nb: c\x00\n", "at line 2, column 5: special characters are not allowed"),
    ],
)
def test_the_error_of_invalid_yaml_has_the_words_of_pyyaml_with_line_and_column(text, message):
    with pytest.raises(DocumentError) as caught:
        parse(text, "f.yml", Report(), loader=yaml.SafeLoader)
    assert str(caught.value) == f"not YAML {message}"


@pytest.mark.parametrize("text", ["a: !x hunter2", "a: !!int hunter2", "a: !!bool hunter2",
                                  "a: !!float ''", "a: 0x_", "a: !hunter2 x"])  # fmt: skip
def test_a_value_must_match_its_tag(text: str):
    assert read(text) == ({"a": None}, ["a: the value does not match its YAML tag (f.yml line 1)"])


def test_a_key_must_be_a_single_value():
    assert read("? [a]\n: b\n")[1] == ["configuration: a key must be a single value (f.yml line 1)"]


def test_a_huge_integer_is_read_as_text():
    digits = "0x" + "f" * 5000
    assert read(f"a: {digits}")[0] == {"a": digits}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "text",
    [
        "a: *hunter2", "[hunter2", "a: 'hunter2", 'a: "\\hunter2"', "a: b: hunter2", "%hunter2",
        "@hunter2", "a: \x00", "a: \udc80", "[" * 500, "[" * 20000, "&a [*a]", "&a {b: *a}",
        "a: 1\n---\nb: 2\n", "- " * 100 + "x", "a: |1hunter2", "&hunter2 &b c",
        ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"),
    ],
)  # fmt: skip
def test_the_error_of_invalid_yaml_is_one_line_and_quotes_nothing(text: str, loader: type):
    with pytest.raises(DocumentError) as caught:
        parse(text, "f.yml", Report(), loader=loader)
    message = str(caught.value)
    assert message.isprintable()
    assert "hunter2" not in message


NAMED = "has a no-break space (U+00A0), which YAML takes for text"


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\n\u00a0\u00a0b: 2\nc: d: e\n", "line 2, column 1"),
        ("a:\u00a0b\nc: d\n", "line 1, column 3"),
        ("a: 'x\u00a0' #\u00a0\nb: [1,\u00a0\n", "line 2, column 7"),
    ],
)
def test_space_that_yaml_takes_for_text_is_named_with_the_error(
    text: str, place: str, loader: type
):
    with pytest.raises(DocumentError, match=f"; {place} {re.escape(NAMED)}$"):
        parse(text, "f.yml", Report(), loader=loader)


def test_space_that_yaml_takes_for_text_is_named_in_a_value_without_lines():
    with pytest.raises(DocumentError, match=f"^not YAML: .*; column 4 {re.escape(NAMED)}$"):
        parse("[1,\u00a0", "VARIABLE", Report(), with_lines=False)


def test_error_of_yaml_without_such_a_space_names_none():
    with pytest.raises(DocumentError, match=r"^not YAML at line 2, column 5: [^;]*$"):
        parse("a: '\u00a0' # \u00a0\nb: c: d\n", "f.yml", Report())


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("a:\n\u00a0 b: c\n", "'\\xa0 b': column 1 @ (f.yml line 2)"),
        ("a:\n  b\u00a0: c\n", "'a.b\\xa0': column 4 @ (f.yml line 2)"),
        ("a: \u00a0b\n", "a: column 4 @ (f.yml line 1)"),
        ("a: [b, hunter2\u00a0]\n", "a[1]: column 15 @ (f.yml line 1)"),
        ("a: hunter2\u00a0# c\n", "a: column 11 @ (f.yml line 1)"),
        ("- a:\u00a0b\n", "[0]: column 5 @ (f.yml line 1)"),
        ("a: hunter2\n  b\u00a0\n", "a: the value @ (f.yml line 1)"),
    ],
)
def test_space_that_yaml_takes_for_text_is_a_warning(text: str, warning: str, loader: type):
    report = Report()
    parse(text, "f.yml", report, loader=loader)
    expected = f"{NAMED}; write a space, or put the text into quotes"
    assert report.warnings == [warning.replace("@", expected)]


@pytest.mark.parametrize("text", ["a: '\u00a0b'", 'a: "b\u00a0"', "a: b\u00a0c", "a: b # \u00a0"])
def test_space_inside_of_text_is_no_mistake(text: str):
    report = Report()
    parse(text, "f.yml", report)
    assert report.warnings == []


def test_other_characters_that_look_like_a_space_are_named():
    report = Report()
    parse("a: \u3000b\nc: d\u200b\n", "f.yml", report)
    assert [line.partition(",")[0] for line in report.warnings] == [
        "a: column 4 has an ideographic space (U+3000)",
        "c: column 5 has a zero width space (U+200B)",
    ]


def test_the_repr_of_a_node_shows_no_value():
    assert "hunter2" not in repr(parse("password: hunter2", "f.yml", Report()))
    assert Node([]).type_name == "a list"


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("a.b[1]", "f.yml line 3"),
        ("a.b[2]", "f.yml line 2"),
        ("a.c.d", "f.yml line 2"),
        ("x", ""),
        ("", ""),
    ],
)
def test_the_origin_of_a_path_is_that_of_its_deepest_node(path: str, origin: str):
    root = parse("a:\n  b: [1,\n  2]\n", "f.yml", Report())
    assert root.find_origin(path) == origin
