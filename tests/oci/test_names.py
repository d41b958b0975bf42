"""Names, tags, references and upload ids, against recognisers written another way."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.names import (
    MAX_NAME_COMPONENTS,
    MAX_NAME_LENGTH,
    MAX_TAG_LENGTH,
    NameInvalid,
    TagInvalid,
    check_name,
    check_new_name,
    check_tag,
    is_upload_id,
    parse_reference,
)

LOWER = set("abcdefghijklmnopqrstuvwxyz0123456789")
WORD = LOWER | set("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def is_name(text):
    """The grammar of names as a machine with one character of input at a time."""
    if len(text) > 255:
        return False
    run = "/"  # the separators since the last letter; a name begins as if after a slash
    for character in text:
        if character in LOWER:
            run = ""
        elif character == "/":
            if run:
                return False
            run = "/"
        elif character in "._-":
            run += character
            if run not in {".", "_", "__"} and set(run) != {"-"}:
                return False
        else:
            return False
    return run == ""


def is_tag(text):
    return 1 <= len(text) <= 128 and text[0] in WORD and not set(text[1:]) - WORD - set(".-")


NEAR_NAME = st.one_of(
    st.text(),
    st.text("ab0._-/"),
    st.text("ab0._-/A\n\u0663 "),
    st.lists(st.text("a0", min_size=1, max_size=3), min_size=1).flatmap(
        lambda parts: st.builds(
            lambda separators: "".join(
                part + separator for part, separator in zip(parts, separators, strict=True)
            ).rstrip("._-/"),
            st.lists(
                st.sampled_from([".", "_", "__", "-", "---", "/", "___", "..", "._", "//"]),
                min_size=len(parts),
                max_size=len(parts),
            ),
        )
    ),
    st.integers(250, 260).map(lambda length: "a" * length),
    st.integers(120, 130).map(lambda length: "a/" * length + "a"),
)


@given(NEAR_NAME)
@example("")
@example("a\n")
@example("a" * 255)
@example("a" * 256)
@example("\u0130")
def test_names_match_the_grammar_of_the_specification(text):
    if is_name(text):
        assert check_name(text) == text
    else:
        with pytest.raises(NameInvalid) as caught:
            check_name(text)
        assert str(caught.value)


@pytest.mark.parametrize(
    "name", ["a", "0", "a.b", "a_b", "a__b", "a-b", "a----b", "a/b/c", "a-b/0"]
)
def test_valid_names(name):
    assert is_name(name)
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *["", "/", "a/", "/a", "a//b", "a..b", "a___b", "a._b", "a-_b", "-a", "a-", ".a", "_a"],
        *["A", "a b", "a\x00", "a\n", "..", "a/../b", "a/_layers", "_catalog", "a\u00e9", "a%2fb"],
    ],
)
def test_invalid_names(name):
    assert not is_name(name)
    with pytest.raises(NameInvalid):
        check_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "a" + "-" * 2_000_000,
        "a-" * 1_000_000 + "!",
        "a" * 2_000_000 + "/",
        "a__" * 700_000,
        "a/" * 1_000_000 + "/",
        # As long as a name may be, so that the pattern itself is searched.
        "a" + "-" * 253 + "!",
        "a-" * 127 + "!",
        "a" * 254 + "!",
        "a/" * 127 + "!",
        "a--" * 84 + "!",
    ],
)
def test_long_input_is_refused_in_linear_time(text):
    # The suite's time limit is the alarm: a search that backtracks would not end.
    with pytest.raises(NameInvalid):
        check_name(text)
    with pytest.raises(TagInvalid):
        check_tag(text)


def test_a_too_long_name_has_its_own_error():
    with pytest.raises(NameInvalid, match=str(MAX_NAME_LENGTH)):
        check_name("a" * (MAX_NAME_LENGTH + 1))


@given(st.one_of(st.text(), st.text("aZ0_.-:/\n"), st.text("aZ0_.-", min_size=120, max_size=135)))
@example("a" * 128)
@example("a" * 129)
@example("a\n")
@example(".a")
@example("-a")
@example("\u0661")
def test_tags_match_the_grammar_of_the_specification(text):
    if is_tag(text):
        assert check_tag(text) == text
    else:
        with pytest.raises(TagInvalid) as caught:
            check_tag(text)
        assert str(MAX_TAG_LENGTH - 1) in str(caught.value)


@given(st.one_of(st.text(), st.text("a:0.-"), st.builds(str, st.builds(Digest.of, st.binary()))))
def test_a_reference_with_a_colon_is_a_digest_and_any_other_a_tag(text):
    try:
        reference = parse_reference(text)
    except DigestInvalid:
        assert ":" in text
    except TagInvalid:
        assert ":" not in text
        assert not is_tag(text)
    else:
        assert str(reference) == text
        assert isinstance(reference, Digest) == (":" in text)


@given(st.uuids())
def test_a_uuid_is_an_upload_id(value):
    assert is_upload_id(str(value))
    assert not is_upload_id(value.hex)
    assert not is_upload_id(f"{{{value}}}")
    assert not is_upload_id(f"{value}\n")
    assert not is_upload_id(f"../{value}")


@given(st.one_of(st.text(), st.text("0123456789abcdef-", min_size=36, max_size=36)))
def test_an_upload_id_is_a_uuid(text):
    if is_upload_id(text):
        assert str(uuid.UUID(text)) == text
    else:
        assert (
            re.sub("[0-9a-f]", "x", text, flags=re.ASCII) != "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
        )


@pytest.mark.parametrize("text", ["", ".", "..", "0" * 36, "6B4479EE-79C9-48E5-ACE5-0E23C8383F7AA"])
def test_other_text_is_not_an_upload_id(text):
    assert not is_upload_id(text)


def test_a_new_name_has_a_limited_number_of_components():
    check_new_name("/".join("a" * MAX_NAME_COMPONENTS))
    with pytest.raises(NameInvalid, match="more than 32 components"):
        check_new_name("/".join("a" * (MAX_NAME_COMPONENTS + 1)))
