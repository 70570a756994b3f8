"""Archives, such as zip and tar, hold an archive object over a file that was opened for them."""

from __future__ import annotations

from managed_store._closers._blocking import BlockingCloser

__all__ = ["ArchiveCloser"]


class ArchiveCloser(BlockingCloser):
    """Closes the archive, which writes the table of contents of one that was written to.

    The file beneath is closed by who opened it.
    """

    def let_go(self) -> None:
        for name in ("zip", "tar"):
            archive = getattr(self.filesystem, name, None)  # missing while the constructor fails
            if archive is not None:
                archive.close()
