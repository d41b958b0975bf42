from __future__ import annotations

import pytest
import yaml

from twisted_registry.config import document
from twisted_registry.config.document import DocumentError, Node, Report, parse
from twisted_registry.config.kinds import plain


def read(text: str) -> tuple[object, list[str]]:
    report = Report()
    return plain(parse(text, "f.yml", report)), [str(fault) for fault in report.faults]


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_the_values_of_yaml(loader: type, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document, "_LOADER", loader)
    text = "a: 1\nb: [1.5, yes, ~, 'x', 0x10]\n2: 2020-01-01\nc: &c {d: e}\nf: {<<: *c, g: h}\n"
    assert read(text) == (
        {
            "a": 1,
            "b": [1.5, True, None, "x", 16],
            "2": "2020-01-01",
            "c": {"d": "e"},
            "f": {"d": "e", "g": "h"},
        },
        [],
    )


def test_a_merge_takes_a_list_and_yields_to_the_mapping_itself():
    assert read("<<: [{a: 1, b: 1}, {b: 2, c: 2}]\nc: 3\n")[0] == {"a": 1, "b": 1, "c": 3}
    assert read("<<: a\n")[1] == ["configuration: <<: takes mappings (f.yml line 1)"]


def test_lines_and_spelling_are_kept():
    root = parse("a:\n  b: 007\n", "f.yml", Report())
    assert isinstance(root.value, dict)
    inner = root.value["a"]
    assert isinstance(inner.value, dict)
    assert (inner.value["b"].text, inner.value["b"].origin) == ("007", "f.yml line 2")


def test_a_key_that_stands_twice_is_a_fault():
    assert read("a:\n  b: 1\n  b: 2\n")[1] == ["a.b: the key stands here twice (f.yml line 3)"]


@pytest.mark.parametrize("text", ["a: !x hunter2", "a: !!int hunter2", "a: !!bool hunter2",
                                  "a: !!float ''", "a: 0x_", "a: !hunter2 x"])  # fmt: skip
def test_a_value_must_fit_its_tag(text: str):
    assert read(text) == ({"a": None}, ["a: the value does not fit its YAML tag (f.yml line 1)"])


def test_keys_are_single_values():
    assert read("? [a]\n: b\n")[1] == ["configuration: a key must be a single value (f.yml line 1)"]


def test_a_number_beyond_counting_is_text():
    digits = "0x" + "f" * 5000
    assert read(f"a: {digits}")[0] == {"a": digits}


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
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
def test_what_is_no_yaml_gives_one_line_that_shows_none_of_it(
    text: str, loader: type, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(document, "_LOADER", loader)
    with pytest.raises(DocumentError) as caught:
        parse(text, "f.yml", Report())
    said = str(caught.value)
    assert said.isprintable()
    assert "hunter2" not in said


def test_a_node_shows_no_value():
    assert "hunter2" not in repr(parse("password: hunter2", "f.yml", Report()))
    assert Node([]).type_name == "a list"
