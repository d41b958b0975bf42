r"""The grammar of repository names, tags, references and upload ids.

OCI distribution specification, "Pulling manifests"::

    name      ::= [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
    tag       ::= [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
    reference ::= tag | digest

Many clients limit host and name together to 255 characters, so that is the limit for a name. A new
repository has at most :data:`MAX_NAME_COMPONENTS` components; those that exist may have more.
"""

from __future__ import annotations

import re

from twisted_registry.oci.digest import Digest

MAX_NAME_LENGTH = 255
#: Components of the name of a new repository: each is a folder that lists of repositories walk.
MAX_NAME_COMPONENTS = 32
MAX_TAG_LENGTH = 128

# A separator never matches letters or digits, so the search never backtracks over more than one
# component.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME_RE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG_RE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_COMPONENT_RE = re.compile(_COMPONENT, re.ASCII)
_UPLOAD_ID_RE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class NameInvalid(ValueError):
    """The text is not a repository name."""


class TagInvalid(ValueError):
    """The text is not a tag."""


def check_name(text: str) -> str:
    """Return ``text`` if it is a repository name.

    :raises NameInvalid: with the reason.
    """
    if len(text) > MAX_NAME_LENGTH:
        raise NameInvalid(f"longer than {MAX_NAME_LENGTH} characters")
    if not is_name(text):
        raise NameInvalid("lower-case letters and digits, separated by . _ __ - or /")
    return text


def is_name(text: str) -> bool:
    """Whether ``text`` is a repository name."""
    return len(text) <= MAX_NAME_LENGTH and _NAME_RE.fullmatch(text) is not None


def check_new_name(name: str) -> None:
    """Check that a repository of a valid name may be created.

    :raises NameInvalid: with the reason.
    """
    if name.count("/") >= MAX_NAME_COMPONENTS:
        raise NameInvalid(f"more than {MAX_NAME_COMPONENTS} components")


def check_tag(text: str) -> str:
    """Return ``text`` if it is a tag.

    :raises TagInvalid: with the expected form.
    """
    if not _TAG_RE.fullmatch(text):
        raise TagInvalid(
            f"a letter, digit or _, then up to {MAX_TAG_LENGTH - 1} letters, digits, '.', '_'"
            " and '-'"
        )
    return text


def is_component(text: str) -> bool:
    """Whether ``text`` is one component of a repository name."""
    return _COMPONENT_RE.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether ``text`` is a tag."""
    return _TAG_RE.fullmatch(text) is not None


def parse_reference(text: str) -> Digest | str:
    """Parse a reference: a digest if it contains a colon, otherwise a tag.

    :raises DigestInvalid: for text with a colon that is not a digest.
    :raises TagInvalid: for text without a colon that is not a tag.
    """
    return Digest.parse(text) if ":" in text else check_tag(text)


def is_upload_id(text: str) -> bool:
    """Whether ``text`` has the form of an upload id: a lower-case UUID."""
    return _UPLOAD_ID_RE.fullmatch(text) is not None
