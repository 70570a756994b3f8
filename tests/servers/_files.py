"""For the tests of the servers themselves: what each must give to fsspec's synchronous filesystem for it."""

from __future__ import annotations

from typing import Any

import pytest

CONTENT = bytes(range(256)) * 1000


def check_files(filesystem: Any, folder: str) -> None:
    """Write, read, list and delete in `folder`, which is made."""
    filesystem.makedirs(folder, exist_ok=True)
    filesystem.makedirs(f"{folder}/inner", exist_ok=True)
    file, inner = f"{folder}/large", f"{folder}/inner/small"
    for path, content in [(file, b"old"), (file, CONTENT), (inner, b"small")]:
        with filesystem.open(path, "wb") as stream:
            stream.write(content)
    assert filesystem.cat_file(file) == CONTENT
    assert filesystem.cat_file(file, 1000, 1010) == CONTENT[1000:1010]
    assert filesystem.cat_file(file, 255_990) == CONTENT[255_990:]
    assert filesystem.cat_file(file, 255_990, 300_000) == CONTENT[255_990:]
    with filesystem.open(file, "rb") as stream:
        stream.seek(200_000)
        assert stream.read(10) == CONTENT[200_000:200_010]

    assert filesystem.info(file)["size"] == len(CONTENT)
    listed = {entry["name"].strip("/"): entry["type"] for entry in filesystem.ls(folder, detail=True)}
    assert listed == {file.strip("/"): "file", f"{folder}/inner".strip("/"): "directory"}
    assert sorted(path.strip("/") for path in filesystem.find(folder)) == [inner.strip("/"), file.strip("/")]

    filesystem.rm_file(inner)
    filesystem.invalidate_cache()
    assert not filesystem.exists(inner)
    assert filesystem.exists(file)


def check_missing(filesystem: Any, folder: str) -> None:
    """What is not there is FileNotFoundError, however it is asked for."""
    missing = f"{folder}/missing"
    for ask in (filesystem.cat_file, filesystem.info, filesystem.ls, lambda path: filesystem.cat_file(path, 1, 2)):
        with pytest.raises(FileNotFoundError):
            ask(missing)
    assert not filesystem.exists(missing)
