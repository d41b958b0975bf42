"""Paths of the driver and keys of the bucket."""

from __future__ import annotations

from attrs import field, frozen


def _with_slash(root: str) -> str:
    root = root.strip("/")
    return f"{root}/" if root else ""


@frozen
class KeyMapping:
    """Translates between the two.

    :ivar root: the prefix of all keys, with or without slashes around it.
    """

    root: str = field(converter=_with_slash)

    def object_key(self, path: str) -> str:
        """The key of a file."""
        return self.root + path

    def below(self, path: str) -> str:
        """What the keys of all files in a folder begin with; the root is a folder too."""
        return f"{self.root}{path}/" if path else self.root

    def path(self, key: str) -> str:
        """The path of a key below the root."""
        return key[len(self.root) :]

    def pieces(self, path: str) -> str:
        """What the keys of an unfinished file's pieces begin with: a name of the driver's own.

        It lies beside the file, so that whoever removes the folder removes the pieces.
        """
        above, slash, name = path.rpartition("/")
        return f"{self.root}{above}{slash}.{name}/"


def is_driver_internal(path: str) -> bool:
    """Whether a path holds a name of the drivers' own, which begins with a dot."""
    return path.startswith(".") or "/." in path
