r"""Names of repositories, tags and references, by the grammar of the specification.

OCI distribution specification, "Pulling manifests"::

    name      ::= [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
    tag       ::= [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
    reference ::= tag | digest

Many clients limit host and name together to 255 characters; a name alone may not exceed it.
"""

from __future__ import annotations

import re

from twisted_registry.oci.digest import Digest

MAX_NAME_LENGTH = 255
MAX_TAG_LENGTH = 128

# The separators can not match what a run of letters matches, so the search never backtracks
# over more than one component.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME_RE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG_RE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_COMPONENT_RE = re.compile(_COMPONENT, re.ASCII)
_UPLOAD_ID_RE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class NameInvalid(ValueError):
    """The text is not the name of a repository."""


class TagInvalid(ValueError):
    """The text is not a tag."""


def check_name(text: str) -> str:
    """Return ``text`` if it names a repository.

    :raises NameInvalid: with a sentence that says what is wrong.
    """
    if len(text) > MAX_NAME_LENGTH:
        raise NameInvalid(f"longer than {MAX_NAME_LENGTH} characters")
    if not is_name(text):
        raise NameInvalid("lower-case letters and digits, separated by . _ __ - or /")
    return text


def is_name(text: str) -> bool:
    """Whether ``text`` names a repository."""
    return len(text) <= MAX_NAME_LENGTH and _NAME_RE.fullmatch(text) is not None


def check_tag(text: str) -> str:
    """Return ``text`` if it is a tag.

    :raises TagInvalid: with a sentence that says what is wrong.
    """
    if not _TAG_RE.fullmatch(text):
        raise TagInvalid(
            f"a letter, digit or _, then up to {MAX_TAG_LENGTH - 1} letters, digits, '.', '_' and '-'"
        )
    return text


def is_component(text: str) -> bool:
    """Whether ``text`` can stand between two slashes of a repository's name."""
    return _COMPONENT_RE.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether ``text`` is a tag."""
    return _TAG_RE.fullmatch(text) is not None


def parse_reference(text: str) -> Digest | str:
    """Read what stands behind ``manifests/``: a digest if it holds a colon, else a tag.

    :raises DigestInvalid: for a colon and no digest.
    :raises TagInvalid: for anything else that is no tag.
    """
    return Digest.parse(text) if ":" in text else check_tag(text)


def is_upload_id(text: str) -> bool:
    """Whether ``text`` has the form of an upload's id: a lower-case UUID."""
    return _UPLOAD_ID_RE.fullmatch(text) is not None
