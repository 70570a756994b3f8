"""The backends of the leak matrix: where each has the small hierarchy, and what it needs."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.hierarchy import hierarchy
from tests.places import Place, Places, write_folder
from tests.servers import azurite_available

__all__ = ["VARIANTS", "WRITABLE", "missing", "place_of_variant"]

_EXTENDED = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in contents.items():
            archive.writestr(key, content)
    return stream.getvalue()


def _tarred(contents: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(mode="w", fileobj=stream) as archive:
        for key, content in contents.items():
            member = tarfile.TarInfo(key)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _http(places: Places, server: str = "http") -> Place:
    handle = places.server(server)
    environment = {} if handle.ca_file is None else {"SSL_CERT_FILE": str(handle.ca_file)}
    return Place(f"{handle.url}/data.zarr", environment=environment)


def _gcs(places: Places, server: str, bucket: str, extended: str) -> Place:
    handle = places.server(server)
    environment = {**getattr(handle, "environment", {}), _EXTENDED: extended}
    return Place(f"gs://{bucket}/data.zarr", handle.storage_options, environment)


def _s3(places: Places) -> Place:
    return Place("s3://bucket/data.zarr", places.server("s3").storage_options)


def _s3_with_regions(places: Places) -> Place:
    options = dict(places.server("s3").storage_options)
    endpoint = options.pop("endpoint_url")  # s3fs caches no regions where the options name one
    return Place("s3://bucket/data.zarr", {**options, "cache_regions": True}, {"AWS_ENDPOINT_URL": endpoint})


def _azure(places: Places) -> Place:
    return Place("az://bucket/data.zarr", places.server("az").storage_options)


def _account(name: str) -> Callable[[Places], Place]:
    def place(places: Places) -> Place:
        server = places.server(name)
        url = "webdav://data.zarr" if name == "webdav" else f"{server.url}/data.zarr"
        return Place(url, server.storage_options)

    return place


def _layered(prefix: str, inner: Callable[[Places], Place]) -> Callable[[Places], Place]:
    def place(places: Places) -> Place:
        target = inner(places)
        options = {target.url.partition("://")[0]: target.options} if target.options else {}
        return Place(f"{prefix}::{target.url}", options, target.environment)

    return place


def _folder_of(inner: Callable[[Places], Place]) -> Callable[[Places], Place]:
    def place(places: Places) -> Place:
        target = inner(places)
        root, _, name = target.url.rpartition("/")
        options = {target.url.partition("://")[0]: target.options} if target.options else {}
        return Place(f"dir://{name}::{root}", options)

    return place


def _archive(prefix: str, pack: Callable[[Mapping[str, bytes]], bytes]) -> Callable[[Places], Place]:
    def place(places: Places) -> Place:
        return Place(f"{prefix}::{places.served(f'data.{prefix[:3]}', pack(places.contents))}")

    return place


def _table(places: Places, *, chunks: str) -> bytes:
    """References: metadata inline, chunks as whole files below the URL `chunks`, but one on the HTTP server."""
    http = _http(places).url
    references: dict[str, Any] = {
        key: content.decode() if key.endswith(".json") else [f"{chunks}/{key}"]
        for key, content in places.contents.items()
    }
    references["numbers/c/0/0"] = [f"{http}/numbers/c/0/0"]
    return json.dumps({"version": 1, "refs": references}).encode()


def _reference_local(places: Places) -> Place:
    table = places.file("references.json", _table(places, chunks=_http(places).url))
    return Place("reference://", {"fo": str(table), "remote_protocol": "http"})


def _reference_http(places: Places) -> Place:
    url = places.served("references.json", _table(places, chunks=_http(places).url))
    return Place("reference://", {"fo": url, "remote_protocol": "http"})


def _reference_protocols(places: Places) -> Place:
    s3 = _s3(places)
    table = places.file("references-of-two.json", _table(places, chunks=s3.url))
    return Place("reference://", {"fo": str(table), "fs": {"http": {}, "s3": s3.options}})


def _reference_parquet(places: Places) -> Place:
    """As `LazyReferenceMapper.create` writes it, for which it would need kerchunk; of zarr's format 2, as all such."""
    folder = places.folder("references.parq")
    if not folder.exists():
        import pandas as pd

        contents = hierarchy(zarr_format=2)
        root = places.server("http").root
        write_folder(root / "data-2.zarr", contents)
        metadata = {key: json.loads(content) for key, content in contents.items() if "/.z" in f"/{key}"}
        paths = [f"{places.server('http').url}/data-2.zarr/{key}" for key in sorted(contents.keys() - metadata.keys())]
        (folder / "numbers").mkdir(parents=True)
        (folder / ".zmetadata").write_text(json.dumps({"metadata": metadata, "record_size": len(paths)}))
        table = pd.DataFrame({"path": paths, "offset": 0, "size": 0, "raw": [None] * len(paths)})
        table.to_parquet(folder / "numbers/refs.0.parq", index=False)
    return Place("reference://", {"fo": str(folder), "remote_protocol": "http"})


def _memory(places: Places) -> Place:
    return Place(
        "memory://data.zarr", memory={f"/data.zarr/{key}": content for key, content in places.contents.items()}
    )


VARIANTS: dict[str, Callable[[Places], Place]] = {
    "http": _http,
    "https": lambda places: _http(places, "https"),
    "gs": lambda places: _gcs(places, "gs", "bucket", "true"),
    "gs, plain class": lambda places: _gcs(places, "gs", "bucket", "false"),
    "gs, gRPC, flat": lambda places: _gcs(places, "gs with gRPC", "bucket", "true"),
    "gs, gRPC, zonal": lambda places: _gcs(places, "gs with gRPC", "zonal", "true"),
    "s3": _s3,
    "s3, cache_regions": _s3_with_regions,
    "az": _azure,
    "reference, JSON": _reference_local,
    "reference, JSON over http": _reference_http,
    "reference, to http and s3": _reference_protocols,
    "reference, parquet": _reference_parquet,
    "dir::http": _folder_of(_http),
    "dir::s3": _folder_of(_s3),
    "simplecache::http": _layered("simplecache", _http),
    "filecache::http": _layered("filecache", _http),
    "blockcache::http": _layered("blockcache", _http),
    "simplecache::s3": _layered("simplecache", _s3),
    "zip::http": _archive("zip", _zipped),
    "zip::simplecache::http": _archive("zip::simplecache", _zipped),
    "tar::http": _archive("tar", _tarred),
    "ftp": _account("ftp"),
    "sftp": _account("sftp"),
    "webdav": _account("webdav"),
    "webhdfs": _account("webhdfs"),
    "smb": _account("smb"),
    "memory": _memory,
    "file": lambda places: Place(f"file://{places.folder('data.zarr')}"),
}

_gcsfs = getattr(find_spec("gcsfs"), "submodule_search_locations", None) or []
if not any(Path(folder, "extended_gcsfs.py").exists() for folder in _gcsfs):
    for each in ("gs, gRPC, flat", "gs, gRPC, zonal"):  # the lowest version that is supported speaks no gRPC
        del VARIANTS[each]

# The packages that a variant needs, of those that not everybody has.
_NEEDS = {
    "s3": ["s3fs", "moto"],
    "az": ["adlfs"],
    "parquet": ["pandas", "pyarrow"],
    "ftp": ["pyftpdlib"],
    "sftp": ["asyncssh", "paramiko"],
    "webdav": ["wsgidav", "cheroot", "webdav4"],
    "webhdfs": ["requests"],
    "smb": ["impacket", "smbprotocol"],
}


def missing(variant: str) -> list[str]:
    """What a variant needs and this machine lacks."""
    words = {word.strip(",") for part in variant.split("::") for word in part.split()}
    found = [name for word in sorted(words & _NEEDS.keys()) for name in _NEEDS[word] if find_spec(name) is None]
    return [*found, *(["Azurite"] if variant == "az" and not azurite_available() else [])]


# Where the exception of a missing key is kept by its own frames: in s3fs and adlfs, in google-api-core (a call over
# gRPC that failed), and in `fsspec.asyn.sync`, by which the caches call the filesystem beneath.
_IN_CYCLES = frozenset(
    {"gs", "gs, gRPC, zonal", "s3", "s3, cache_regions", "az", "dir::s3", "simplecache::http", "filecache::http",
     "blockcache::http", "simplecache::s3"}
)  # fmt: skip

# Where the hierarchy can be written, too.
WRITABLE = frozenset(
    {"gs", "gs, plain class", "gs, gRPC, flat", "gs, gRPC, zonal", "s3", "s3, cache_regions", "az", "dir::s3", "ftp",
     "sftp", "webdav", "webhdfs", "memory", "file"}
)  # fmt: skip


def place_of_variant(variant: str, places: Places, *, by_name: bool = False) -> Place:
    """The hierarchy on a variant, its server reached by address or by the name ``localhost``."""
    place = replace(VARIANTS[variant](places), in_cycles=variant in _IN_CYCLES)
    if not by_name:
        return place
    options = dict(place.options)  # in which the address stands at most in this one
    if "endpoint_url" in options:
        options["endpoint_url"] = options["endpoint_url"].replace("127.0.0.1", "localhost")
    return replace(place, url=place.url.replace("127.0.0.1", "localhost"), options=options)
