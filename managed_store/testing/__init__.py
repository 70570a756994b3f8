"""For test suites, and for whoever looks for a leak: `leak_check`, and a contract for closers.

Nothing is imported before it is asked for, and neither zarr nor any backend by this package itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from managed_store.errors import LeakError as LeakError
    from managed_store.errors import LeakWarning as LeakWarning
    from managed_store.testing._closer_contract import CloserContract as CloserContract
    from managed_store.testing._closer_steps import SealedError as SealedError
    from managed_store.testing._leak_check import leak_check as leak_check
    from managed_store.testing._report import Frame as Frame
    from managed_store.testing._report import Leak as Leak
    from managed_store.testing._report import LeakReport as LeakReport

_EXPORTS = {
    "CloserContract": "managed_store.testing._closer_contract",
    "Frame": "managed_store.testing._report",
    "Leak": "managed_store.testing._report",
    "LeakError": "managed_store.errors",
    "LeakReport": "managed_store.testing._report",
    "LeakWarning": "managed_store.errors",
    "SealedError": "managed_store.testing._closer_steps",
    "leak_check": "managed_store.testing._leak_check",
}

__all__ = [*_EXPORTS]


if not TYPE_CHECKING:  # a type checker would take it that there is every name

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
