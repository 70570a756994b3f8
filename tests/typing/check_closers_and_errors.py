"""What type checkers see of closers, and of errors as what their handlers catch them for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, assert_type

from fsspec.asyn import AsyncFileSystem
from typing_extensions import override

from managed_store import (
    ArgumentError,
    ArgumentTypeError,
    Closer,
    ManagedStoreError,
    MissingPackageError,
    StoreClosedError,
    StoreCloseError,
    StoreOpenError,
    UnknownProtocolError,
    register_closer,
)


class ServiceFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """One that this package does not know."""


class ServiceCloser(Closer):
    @override
    async def open(self) -> None: ...

    @override
    def seal(self, refuse: Callable[..., NoReturn]) -> None: ...

    @override
    async def close(self) -> None: ...

    @override
    def force(self) -> None: ...

    @override
    def still_open(self) -> list[str]:
        return []


register_closer("service", ServiceCloser)
register_closer(ServiceFileSystem, ServiceCloser)

errors: list[type[ManagedStoreError]] = [
    ArgumentError, ArgumentTypeError, MissingPackageError, StoreClosedError, StoreCloseError, StoreOpenError,
    UnknownProtocolError,
]  # fmt: skip
as_values: list[type[ValueError]] = [ArgumentError, UnknownProtocolError]
as_types: type[TypeError] = ArgumentTypeError
as_imports: type[ImportError] = MissingPackageError
at_run_time: list[type[RuntimeError]] = [StoreClosedError, StoreCloseError, StoreOpenError]


def left_open(error: StoreCloseError) -> None:
    names: tuple[str, ...] = tuple(error.left_open)
    assert_type(names, tuple[str, ...])


def refused() -> None:
    register_closer("service", "ServiceCloser")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
