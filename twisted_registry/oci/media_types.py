"""Media types of manifests: their grammar, and those that no manifest may have.

A client chooses the media type of a manifest, and the registry serves it as the Content-Type. So a
type that a browser would run as a page or script is refused, and what is already stored with one is
served as :data:`UNKNOWN`.
"""

from __future__ import annotations

import re
from typing import TypeGuard

#: The type of content that is served without the type that it was stored with.
UNKNOWN = "application/octet-stream"

#: RFC 6838 section 4.2: a letter or digit, then up to 126 characters.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE_RE = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)

#: What browsers run: pages, scripts, XML (which may contain a page or a style sheet), parts with
#: types of their own, and Flash.
_ACTIVE_RE = re.compile(
    r"(?:text|multipart|message)/.*"
    r"|.*/html|.*/.*(?:xhtml|javascript|ecmascript|shockwave).*|.*[/+]xml"
    # Its name has +xml since RFC 7303; some browsers do not look at the suffix.
    r"|image/svg.*",
    re.IGNORECASE | re.ASCII,
)


def is_media_type(value: object) -> TypeGuard[str]:
    """Whether ``value`` is a media type without parameters (RFC 6838)."""
    return isinstance(value, str) and _MEDIA_TYPE_RE.fullmatch(value) is not None


def is_active(media_type: str) -> bool:
    """Whether a browser may run content of this type."""
    return _ACTIVE_RE.fullmatch(media_type) is not None


def safe_media_type(media_type: str) -> str:
    """Return the type to serve stored content with."""
    return UNKNOWN if is_active(media_type) else media_type
