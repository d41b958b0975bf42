"""The state that travels in an upload's URL, signed, in Distribution's form.

``_state`` is base64url(HMAC-SHA256 || JSON), so that an upload that Distribution began with the
same secret goes on here. It guards against a client that goes on from an old URL; the truth is
what is stored.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

from attrs import frozen


_MAC_BYTES = hashlib.sha256().digest_size


class StateInvalid(ValueError):
    """Not a state that somebody with our secret made for this upload."""


@frozen
class UploadState:
    """Where an upload was when its URL was given out.

    :ivar offset: bytes stored then.
    :ivar owner: the name of who began it, or None if anybody may go on. Distribution has none.
    """

    name: str
    id: str
    offset: int
    owner: str | None = None

    def pack(self, secret: bytes) -> str:
        """Sign the state."""
        values: dict[str, object] = {
            "Name": self.name,
            "UUID": self.id,
            "Offset": self.offset,
            "StartedAt": "0001-01-01T00:00:00Z",
        }
        if self.owner is not None:
            values["Owner"] = self.owner
        document = json.dumps(values, separators=(",", ":")).encode()
        mac = hmac.new(secret, document, hashlib.sha256).digest()
        return urlsafe_b64encode(mac + document).decode("ascii")

    @classmethod
    def unpack(cls, text: str, secret: bytes, name: str, upload_id: str) -> UploadState:
        """Read a state that belongs to this upload.

        :raises StateInvalid: if it does not, or is not signed by ``secret``.
        """
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
            mac, document = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, hmac.new(secret, document, hashlib.sha256).digest()):
                raise StateInvalid("not signed by this registry")
            values = json.loads(document)
            state = cls(values["Name"], values["UUID"], values["Offset"], values.get("Owner"))
        except (
            binascii.Error,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise StateInvalid(str(error)) from error
        if type(state.offset) is not int:
            raise StateInvalid("the offset is not a number")
        if (state.name, state.id) != (name, upload_id):
            raise StateInvalid("made for another upload")
        return state
