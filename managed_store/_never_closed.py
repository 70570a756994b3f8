"""The warning that something was never closed."""

from __future__ import annotations

import warnings

__all__ = ["NeverClosed"]


class NeverClosed:
    """Warns, once, of what was never closed, where the user has made it.

    Parameters
    ----------
    made_at : str or None
        File and line where that was; None for what nobody made by hand, which is not warned of.
    """

    def __init__(self, made_at: str | None) -> None:
        self._made_at = [] if made_at is None else [made_at]

    def warn(self, what: str, source: object) -> None:
        """Warn of `what`; `source` is the object whose allocation tracemalloc shows."""
        try:
            made_at = self._made_at.pop()
        except IndexError:
            return
        warnings.warn_explicit(
            f"{what} was never closed; it was made at {made_at}. Use it in a `with` or `async with` block, or call "
            f"close().",
            category=ResourceWarning,
            filename=made_at.rpartition(":")[0],
            lineno=int(made_at.rpartition(":")[2]),
            source=source,
        )
