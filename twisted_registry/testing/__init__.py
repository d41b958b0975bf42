"""Registries for the tests of other programs, and the contract of storage drivers.

:class:`Registry` is for blocking code, :class:`AsyncRegistry` for code on a reactor; both have the
same options. :func:`build_image` and :func:`build_index` make images to push. :func:`serve` serves
parts that a program has made itself.
"""

from twisted_registry.testing.async_registry import AsyncRegistry
from twisted_registry.testing.background_reactor import ReactorStopped, WouldDeadlock
from twisted_registry.testing.blobs import Blob
from twisted_registry.testing.contents import Contents, StoredManifest
from twisted_registry.testing.faults import Fault, Faults
from twisted_registry.testing.hooks import Proceed, RequestHook
from twisted_registry.testing.images import Image, Index, build_image, build_index
from twisted_registry.testing.journal import Journal, RecordedRequest
from twisted_registry.testing.layers import File, Folder, Symlink
from twisted_registry.testing.layouts import LayoutInvalid, read_layout, write_layout
from twisted_registry.testing.mixins import RegistryMixin
from twisted_registry.testing.profiles import Behaviour, Profile
from twisted_registry.testing.registry import Registry
from twisted_registry.testing.server import RunningServer, serve
from twisted_registry.testing.snapshots import Snapshot

__all__ = [
    "AsyncRegistry",
    "Behaviour",
    "Blob",
    "Contents",
    "Fault",
    "Faults",
    "File",
    "Folder",
    "Image",
    "Index",
    "Journal",
    "LayoutInvalid",
    "Proceed",
    "Profile",
    "ReactorStopped",
    "RecordedRequest",
    "Registry",
    "RegistryMixin",
    "RequestHook",
    "RunningServer",
    "Snapshot",
    "StoredManifest",
    "Symlink",
    "WouldDeadlock",
    "build_image",
    "build_index",
    "read_layout",
    "serve",
    "write_layout",
]
