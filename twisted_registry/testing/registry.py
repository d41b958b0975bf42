"""A registry for tests in plain synchronous code.

::

    with Registry() as registry:
        response = requests.get(f"{registry.url}/v2/")

It runs on the thread of a reactor that it starts and stops itself, so that it needs neither Docker
nor an event loop, and works inside asyncio, trial, pytest-twisted, unittest and threads.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from twisted_registry.testing.async_registry import AsyncRegistry
from twisted_registry.testing.background_reactor import (
    BackgroundReactor,
    ReactorStopped,
    ReactorThread,
    WouldDeadlock,
)
from twisted_registry.testing.clients import ClientAttributes, ClientSettings
from twisted_registry.testing.faults import Faults
from twisted_registry.testing.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from twisted.internet.defer import Deferred

    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.repository.interfaces import IRegistryListener
    from twisted_registry.testing.contents import StoredManifest
    from twisted_registry.testing.hooks import RequestHook
    from twisted_registry.testing.images import AnyImage
    from twisted_registry.testing.options import Auth, Config, Storage
    from twisted_registry.testing.profiles import Profile
    from twisted_registry.testing.snapshots import Snapshot

_T = TypeVar("_T")


class Registry(ClientAttributes):
    """A registry on a free port of 127.0.0.1, for blocking code.

    It serves inside ``with``, or from :meth:`start` to :meth:`stop`. Then its thread, its socket
    and its store in memory are gone. It can be started again, on another port. Any number can run
    at the same time, and methods may be called on any thread except that of its reactor.

    :ivar hooks: the functions through which each request passes, see
        :mod:`twisted_registry.testing.hooks`, after journal and faults. It may be changed at any
        time, on any thread.
    :ivar journal: the requests that were received, also before the last start.
    :ivar faults: makes faults; they stay when the registry is started again.
    """

    def __init__(
        self,
        *,
        auth: Auth = None,
        tls: bool = False,
        token_auth: bool = False,
        readonly: bool = False,
        delete: bool = True,
        storage: Storage = None,
        config: Config = None,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        access: IAccessController | None = None,
        listener: IRegistryListener | None = None,
        profile: Profile | None = None,
        reactor: Any = None,
    ) -> None:
        """Prepare a registry; nothing is opened yet.

        :param auth: users, who may do everything, and without whom nothing may be done: ``(name,
            password)``, or passwords by name, or True for a user that :attr:`auth` names. None to
            permit everything to everyone.
        :param tls: use TLS, with a certificate for 127.0.0.1, ::1 and localhost from an authority
            that is made at the start.
        :param token_auth: let clients fetch tokens with their passwords, as Docker Hub does, in
            place of sending the passwords with each request.
        :param readonly: refuse everything that changes the store.
        :param delete: allow deletes.
        :param storage: where the images are: None for in memory, a folder, a function that takes
            the reactor and returns an ``IStorageDriver``, or a section ``storage`` of a
            configuration.
        :param config: a configuration of Twisted Registry or of Distribution, as a mapping, as YAML
            or as the Path of a file. The other options are entered in it; addresses and
            ``http.workers`` are always replaced.
        :param port: the port; 0 for a free one.
        :param environ: ``REGISTRY_*`` variables, which override keys of ``config``.
        :param access: an access controller, in place of ``auth`` and ``token_auth``.
        :param listener: receives an event for each push, pull, mount and delete, on the thread of
            the reactor.
        :param profile: refuse and lack what another registry does, see
            :mod:`twisted_registry.testing.profiles`.
        :param reactor: a reactor that runs on another thread; None for a new one.
        """
        self.hooks: list[RequestHook] = []
        self.journal = Journal()
        self.faults = Faults(profile)
        self._make_server: Callable[[Any], AsyncRegistry] = lambda reactor: AsyncRegistry(
            reactor,
            auth=auth,
            tls=tls,
            token_auth=token_auth,
            readonly=readonly,
            delete=delete,
            storage=storage,
            config=config,
            port=port,
            environ=environ,
            access=access,
            listener=listener,
            hooks=self.hooks,
            journal=self.journal,
            faults=self.faults,
        )
        self._reactor = reactor
        self._thread: ReactorThread | None = None
        self._server: AsyncRegistry | None = None
        self._finalizer: weakref.finalize[..., Registry] | None = None

    # Running

    def start(self) -> Self:
        """Serve; the registry accepts connections when this returns.

        :raises ConfigurationError: if the options are not a valid configuration.
        :raises StartError: if it cannot be served, for example because the port is in use.
        :raises WouldDeadlock: on the thread of the reactor that was passed.
        """
        if self._server is not None:
            raise RuntimeError("the registry runs already")
        if self._reactor is None:
            background = BackgroundReactor("registry")
            # For a registry that is not stopped.
            self._finalizer = weakref.finalize(self, background.stop_soon)
            self._thread = background
        else:
            self._thread = ReactorThread(self._reactor)
        server = self._make_server(self._thread.reactor)
        try:
            self._thread.call(server.startService)
        except BaseException:
            self._stop_thread()
            raise
        self._server = server
        return self

    def stop(self) -> None:
        """Abort all requests, close the store, and wait for the thread; does nothing if stopped.

        :raises WouldDeadlock: on the thread of the reactor; the registry continues to serve.
        """
        if self._server is None:
            return
        try:
            self.run(self._server.stopService)
        except WouldDeadlock:
            raise
        except BaseException:
            self._forget()
            raise
        self._forget()

    def _forget(self) -> None:
        self._server = None
        self._stop_thread()

    def _stop_thread(self) -> None:
        thread, self._thread = self._thread, None
        if isinstance(thread, BackgroundReactor):
            thread.stop()
        if self._finalizer is not None:
            self._finalizer.detach()

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def server(self) -> AsyncRegistry:
        """The registry that runs on the reactor's thread; to be used with :meth:`run`.

        :raises RuntimeError: if the registry does not run.
        """
        if self._server is None:
            raise RuntimeError(
                "the registry does not run: use it inside 'with Registry() as registry:', or call"
                " start() first"
            )
        return self._server

    @overload
    def run(
        self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any, **keywords: Any
    ) -> _T: ...
    @overload
    def run(
        self, function: Callable[..., Deferred[_T]], *arguments: Any, **keywords: Any
    ) -> _T: ...
    @overload
    def run(self, function: Callable[..., _T], *arguments: Any, **keywords: Any) -> _T: ...

    def run(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a function on the reactor's thread, and return its result.

        :param function: a result that is a coroutine or a Deferred is awaited there.
        :raises WouldDeadlock: on the thread of the reactor.
        :raises ReactorStopped: if the registry does not run.
        :raises Exception: what the function raised.
        """
        if self._thread is None:
            raise ReactorStopped(
                "the registry does not run: use it inside 'with Registry() as registry:', or call"
                " start() first"
            )
        return self._thread.call(function, *arguments, **keywords)

    # For clients

    @property
    def client_settings(self) -> ClientSettings:
        """All attributes for clients in one object.

        :raises RuntimeError: if the registry does not run.
        """
        return self.server.client_settings

    # What clients did

    def pushed(self, reference: str) -> bool:
        """Return whether a client has pushed a manifest under a tag or digest.

        :param reference: such as ``app:1``.
        """
        return self.journal.pushed(reference)

    def pulled(self, reference: str) -> bool:
        """Return whether a client has pulled a manifest by a tag or digest.

        :param reference: such as ``app:1``.
        """
        return self.journal.pulled(reference)

    # Contents, without HTTP: access control, faults and journal do not apply

    def push_image(self, reference: str, image: AnyImage) -> str:
        """Store an image or an index with all that it refers to, and return its digest.

        :param reference: the name, such as ``app:1``; with a digest, no tag is set.
        :raises ValueError: for a malformed reference, or a digest that is not that of the image.
        """
        return self.run(self.server.contents.push_image, reference, image)

    def pull_image(self, reference: str) -> AnyImage:
        """Return an image or an index with all that it refers to, as far as it is stored.

        :raises RegistryError: MANIFEST_UNKNOWN.
        """
        return self.run(self.server.contents.pull_image, reference)

    def load_layout(self, path: str | Path, repository: str | None = None) -> list[str]:
        """Push all images of an OCI image layout or of an archive of ``docker save``.

        :param path: a folder, or a tar archive, which may be compressed with gzip.
        :param repository: where to push them; None if the layout has full names, such as ``app:1``.
        :returns: their references.
        :raises LayoutInvalid: if it is not a layout, or content is missing.
        """
        return self.run(self.server.contents.load_layout, path, repository)

    def save_layout(self, path: str | Path, *references: str) -> None:
        """Write images to an OCI image layout.

        :param path: a name that ends with ``.tar`` makes an archive, which ``docker load`` reads as
            well, another one a folder.
        :param references: the images, such as ``app:1``; all tags if there are none.
        """
        self.run(self.server.contents.save_layout, path, *references)

    def repositories(self) -> list[str]:
        """Return the names of all repositories, sorted."""
        return self.run(self.server.contents.repositories)

    def tags(self, repository: str) -> list[str]:
        """Return all tags of a repository, sorted; none if there is no such repository."""
        return self.run(self.server.contents.tags, repository)

    def manifest(self, reference: str) -> StoredManifest:
        """Return a manifest: its ``digest``, ``media_type``, ``content`` and ``document``.

        :raises RegistryError: MANIFEST_UNKNOWN.
        """
        return self.run(self.server.contents.manifest, reference)

    def blob(self, repository: str, digest: str) -> bytes:
        """Return the content of a blob.

        :raises RegistryError: BLOB_UNKNOWN.
        """
        return self.run(self.server.contents.blob, repository, digest)

    def snapshot(self) -> Snapshot:
        """Return a copy of all repositories, for :meth:`restore`, while no request changes them."""
        return self.run(self.server.contents.snapshot)

    def restore(self, snapshot: Snapshot) -> None:
        """Make all repositories as they were when the snapshot was taken, while none is used."""
        self.run(self.server.contents.restore, snapshot)
