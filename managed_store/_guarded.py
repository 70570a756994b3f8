"""Every operation of a zarr store, as a request of the running loop's session that closing can wait for or cut off."""

from __future__ import annotations

from asyncio import current_task, get_running_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer

from managed_store._lifecycle import State
from managed_store._owners import SessionOwner
from managed_store._sessions import Session
from managed_store._wrapped import WrappedFsspecStore, can_delete
from managed_store.errors import StoreClosedError

if TYPE_CHECKING:
    from zarr.core.buffer import BufferPrototype

    from managed_store._leases import Lease

__all__ = ["GuardedStore"]

T = TypeVar("T")


class GuardedStore(Store):
    """Reads and writes through the sessions of an owner. Not for use by itself: `ManagedFSSpecStore` makes it."""

    _sessions: SessionOwner | Lease
    _allowed_exceptions: tuple[type[Exception], ...]
    _is_closed: bool

    @property
    def closed(self) -> bool:
        """Whether this handle, or the store that it was derived from, is closed or closing."""
        return self._is_closed or self._sessions.ended

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise self._sessions.recipe.closed_error()

    async def _session(self) -> Session:
        """The open session of the running loop."""
        owner = self._sessions
        if self._is_closed or owner.ended:
            raise owner.recipe.closed_error()
        session = owner.session_of(get_running_loop())
        return session if session is not None and session.state is State.OPEN else await owner.open_session()

    async def _run(
        self, operation: Callable[[WrappedFsspecStore], Coroutine[Any, Any, T]], *, writes: bool = False
    ) -> T:
        """Run one request over the session of the running loop, so that closing can wait for it or cut it off.

        Raises
        ------
        StoreClosedError
            The store is closed, or was before the answer came.
        """
        session, owner, task = await self._session(), self._sessions, current_task()
        in_flight = session.requests
        waiting = in_flight.writes if writes else in_flight.reads
        try:
            waiting[task] = owner.recipe
            if task is not None and task.cancelling():
                in_flight.begun_by_cancelled(task)
            return await operation(session.wrapped_at(owner.path, self._allowed_exceptions))
        except BaseException as error:
            if task in in_flight.cancelled:
                in_flight.failed(task, owner.recipe, error)
            raise
        finally:
            waiting.pop(task, None)
            if not waiting or in_flight.cancelled:
                in_flight.ended(task)
            del task  # which keeps the error that it ends with, and that this frame

    # Reading

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        # docstring inherited
        # As `_run`, but all in one piece. This is on the way of every chunk: each call of a function, and each object
        # that is made, is about a half of a percent of what reading a small one takes.
        owner, task = self._sessions, current_task()
        session = None if self._is_closed or owner.ended else owner.session_of(get_running_loop())
        if session is None or session.state is not State.OPEN:
            session = await self._session()
        in_flight = session.requests
        try:
            in_flight.reads[task] = owner.recipe
            if task is not None and task.cancelling():
                in_flight.begun_by_cancelled(task)
            wrapped = session.wrapped.get((owner.path, self._allowed_exceptions))
            if wrapped is None:
                wrapped = session.wrapped_at(owner.path, self._allowed_exceptions)
            return await wrapped.get(key, prototype, byte_range)
        except BaseException as error:
            if task in in_flight.cancelled:
                in_flight.failed(task, owner.recipe, error)
            raise
        finally:
            in_flight.reads.pop(task, None)
            if not in_flight.reads or in_flight.cancelled:
                in_flight.ended(task)
            del task

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        # docstring inherited
        return await self._run(lambda wrapped: wrapped.get_partial_values(prototype, key_ranges))

    async def exists(self, key: str) -> bool:
        # docstring inherited
        return await self._run(lambda wrapped: wrapped.exists(key))

    async def getsize(self, key: str) -> int:
        # docstring inherited
        return await self._run(lambda wrapped: wrapped.getsize(key))

    async def getsize_prefix(self, prefix: str) -> int:
        # docstring inherited
        sizes = await self._list(lambda wrapped: wrapped.sizes(prefix))
        if None not in sizes.values():
            return sum(size for size in sizes.values() if size is not None)
        folder = prefix.strip("/")  # an HTTP index tells no sizes: ask for each, as many at a time as zarr allows
        return await super().getsize_prefix(f"{folder}/" if folder else "")

    async def is_empty(self, prefix: str) -> bool:
        # docstring inherited
        folder = prefix.rstrip("/")
        return not await self._list(lambda wrapped: wrapped.keys(f"{folder}/" if folder else ""))

    async def list(self) -> AsyncIterator[str]:
        # docstring inherited
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        # docstring inherited
        for key in await self._list(lambda wrapped: wrapped.keys(prefix)):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        # docstring inherited
        for name in await self._list(lambda wrapped: wrapped.children(prefix)):
            yield name

    if hasattr(Store, "get_ranges"):  # not in zarr 3.1

        async def get_ranges(
            self,
            key: str,
            byte_ranges: Sequence[ByteRequest | None],
            *,
            prototype: BufferPrototype,
            max_concurrency: int = 10,
            max_gap_bytes: int = 1 << 20,
            max_coalesced_bytes: int = 16 << 20,
        ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
            self._refuse_if_closed()  # as itself, and not in the group of exceptions that zarr makes of a failure
            try:
                async for group in super().get_ranges(
                    key,
                    byte_ranges,
                    prototype=prototype,
                    max_concurrency=max_concurrency,
                    max_gap_bytes=max_gap_bytes,
                    max_coalesced_bytes=max_coalesced_bytes,
                ):
                    yield group
            except BaseExceptionGroup as failures:
                if failures.subgroup(StoreClosedError) is None:
                    raise
                raise self._sessions.recipe.closed_error(" while these ranges were read") from failures

    async def _list(self, operation: Callable[[WrappedFsspecStore], Coroutine[Any, Any, T]]) -> T:
        await self._session()
        writes_before = self._sessions.writes
        try:
            return await self._run(operation)
        finally:
            self._sessions.listed(writes_before=writes_before)

    # Writing

    @property
    def supports_writes(self) -> bool:
        """Always True, as for zarr's own store. Where a filesystem cannot (``zip``, ``reference``), writing raises."""
        return True

    @property
    def supports_deletes(self) -> bool:
        """Whether the filesystem can delete: over HTTP it cannot."""
        return can_delete(self._sessions.recipe.protocols)

    @property
    def supports_partial_writes(self) -> Literal[False]:
        """Always False: no zarr store writes a part of a value."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Whether keys can be listed. Over HTTP that takes a server that sends an index page for each folder."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        # docstring inherited
        if not isinstance(value, Buffer):
            raise TypeError(f"ManagedStore.set(): `value` must be a Buffer instance. Got an instance of {type(value)}.")
        await self._write(lambda wrapped: wrapped.set(key, value), [key])

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._refuse_if_closed()
        self._check_writable()  # also where the key exists, and nothing would be written
        await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        # docstring inherited
        await self._write(lambda wrapped: wrapped.delete(key), [key])

    async def delete_dir(self, prefix: str) -> None:
        # docstring inherited
        await self._write(lambda wrapped: wrapped.delete_dir(prefix), await self._cached_keys(prefix))

    async def clear(self) -> None:
        # docstring inherited
        await self._write(lambda wrapped: wrapped.clear(), await self._cached_keys(""))

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, bytes]]) -> None:
        """Raise NotImplementedError: no zarr store writes a part of a value. Abstract in zarr 3.1.0, gone since."""
        raise NotImplementedError("a part of a value cannot be written; write the whole value with set().")

    async def _write(
        self, operation: Callable[[WrappedFsspecStore], Coroutine[Any, Any, None]], keys: Sequence[str]
    ) -> None:
        self._refuse_if_closed()
        self._check_writable()
        try:
            await self._run(operation, writes=True)
        finally:
            self._sessions.wrote(keys)  # also after a failure: nobody knows how far it came

    async def _cached_keys(self, prefix: str) -> Sequence[str]:
        """The keys below `prefix` that a local cache may hold copies of."""
        self._refuse_if_closed()
        self._check_writable()
        if not self._sessions.recipe.caches_files:
            return ()
        folder = prefix.strip("/")
        return [key async for key in self.list_prefix(f"{folder}/" if folder else "")]
