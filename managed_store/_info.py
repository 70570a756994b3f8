"""A summary of any zarr hierarchy: its members, shapes, dtypes and chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["info"]


def info(url: str, storage_options: Mapping[str, Any]) -> list[str]:
    """Open `url` read-only and tell the number of its members and their tree.

    Parameters
    ----------
    url : str
        What to open.
    storage_options : mapping
        Options of the filesystem.

    Returns
    -------
    list of str
        The lines to print.

    Raises
    ------
    ManagedStoreError
        There is no group or array.
    """
    import zarr

    from managed_store import ManagedStore, ManagedStoreError

    with ManagedStore(url, storage_options=dict(storage_options), read_only=True) as store:
        try:
            node = zarr.open(store, mode="r")
        except FileNotFoundError:
            raise ManagedStoreError("There is no zarr group or array here.") from None
        if isinstance(node, zarr.Array):
            return [f"{store}  {_described(node)}"]
        members = dict(node.members(max_depth=None))
        count = f"{len(members)} member{'' if len(members) == 1 else 's'}"
        return [f"{store}  group, zarr format {node.metadata.zarr_format}, {count}", *_tree(members)]


def _tree(members: Mapping[str, Any]) -> Iterator[str]:
    """One line for each member, indented by its depth, parents before children."""
    names = sorted(members, key=lambda name: name.split("/"))
    width = max((_indented(name, members) for name in names), key=len, default="")
    for name in names:
        yield f"{_indented(name, members).ljust(len(width))}  {_described(members[name])}".rstrip()


def _indented(name: str, members: Mapping[str, Any]) -> str:
    *parents, own = name.split("/")
    return f"{'  ' * (len(parents) + 1)}{own}{'' if hasattr(members[name], 'shape') else '/'}"


def _described(node: Any) -> str:
    return f"{node.dtype} {node.shape} in chunks of {node.chunks}" if hasattr(node, "shape") else ""
