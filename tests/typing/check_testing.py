"""What type checkers see of what test suites use."""

from __future__ import annotations

from typing import Any, assert_type

from fsspec.spec import AbstractFileSystem

from managed_store.errors import LeakError, LeakWarning
from managed_store.testing import CloserContract, Leak, LeakReport, leak_check


def is_known(leak: Leak) -> bool:
    return leak.kind == "socket"


def synchronously() -> None:
    with leak_check(on_leak="report", ignore=[is_known], grace=1) as check:
        assert_type(check, leak_check)
    assert_type(check.report, LeakReport)
    assert_type(check.so_far().without(is_known), LeakReport)
    for leak in check.report:
        assert_type(leak, Leak)
    assert_type(check.report.as_dict(), dict[str, Any])


async def asynchronously() -> None:
    async with leak_check() as check:
        assert_type(check, leak_check)


class TestServiceCloser(CloserContract):
    def make_filesystem(self) -> AbstractFileSystem:
        return AbstractFileSystem(skip_instance_cache=True)

    async def use(self, filesystem: AbstractFileSystem) -> None: ...


failures: type[AssertionError] = LeakError
warnings: type[UserWarning] = LeakWarning


def refused() -> None:
    leak_check(on_leak="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
