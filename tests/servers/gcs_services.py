"""The part of Google's gRPC services for storage that gcsfs calls, about the buckets of the JSON API.

What a bucket is, and the folders that it has; for zonal buckets also streams that read and append.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import google_crc32c
import grpc
from google.cloud import _storage_v2 as storage
from google.cloud import storage_control_v2 as control
from google.protobuf import empty_pb2

from tests.servers.gcs_objects import Bucket, StoredObject

Context = grpc.aio.ServicerContext

# The largest that the real service sends; a client of gRPC takes messages of up to 4 MiB.
_CHUNK_BYTES = 2**21
_BUCKETS = "projects/_/buckets/"


class StorageServices:
    """Answers calls; those that are not here end with UNIMPLEMENTED."""

    def __init__(self, buckets: dict[str, Bucket]) -> None:
        self._buckets = buckets

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server must be given."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        control_methods = {
            "GetStorageLayout": _method(unary, self.layout, control.GetStorageLayoutRequest, control.StorageLayout),
            "GetFolder": _method(unary, self.folder, control.GetFolderRequest, control.Folder),
            "DeleteFolder": grpc.unary_unary_rpc_method_handler(
                self.delete_folder,
                request_deserializer=control.DeleteFolderRequest.deserialize,
                response_serializer=empty_pb2.Empty.SerializeToString,
            ),
            "ListFolders": _method(unary, self.folders, control.ListFoldersRequest, control.ListFoldersResponse),
        }
        storage_methods = {
            "BidiReadObject": _method(stream, self.read, storage.BidiReadObjectRequest, storage.BidiReadObjectResponse),
            "BidiWriteObject": _method(
                stream, self.write, storage.BidiWriteObjectRequest, storage.BidiWriteObjectResponse
            ),
        }
        return [
            grpc.method_handlers_generic_handler("google.storage.control.v2.StorageControl", control_methods),
            grpc.method_handlers_generic_handler("google.storage.v2.Storage", storage_methods),
        ]

    async def layout(self, request: Any, context: Context) -> Any:
        bucket = await self._bucket(request.name.removesuffix("/storageLayout"), context)
        return control.StorageLayout(
            name=request.name,
            location="US",
            location_type=bucket.location_type,
            hierarchical_namespace={"enabled": bucket.hierarchical},
        )

    async def folder(self, request: Any, context: Context) -> Any:
        parent, _, name = request.name.partition("/folders/")
        bucket = await self._bucket(parent, context)
        if f"{name.rstrip('/')}/" not in bucket.folders():
            await _fail(context, grpc.StatusCode.NOT_FOUND, "The folder does not exist.")
        return control.Folder(name=request.name, metageneration=1)

    async def delete_folder(self, request: Any, context: Context) -> Any:
        """Succeed for what holds nothing: Google's folders outlast their last object, while these are gone by then."""
        parent, _, name = request.name.partition("/folders/")
        if f"{name.rstrip('/')}/" in (await self._bucket(parent, context)).folders():
            await _fail(context, grpc.StatusCode.FAILED_PRECONDITION, "The folder is not empty.")
        return empty_pb2.Empty()

    async def folders(self, request: Any, context: Context) -> Any:
        bucket = await self._bucket(request.parent, context)
        names = [name for name in bucket.folders() if name.startswith(request.prefix)]
        folders = [control.Folder(name=f"{request.parent}/folders/{name}", metageneration=1) for name in names]
        return control.ListFoldersResponse(folders=folders)

    async def read(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        stored: StoredObject | None = None
        async for request in requests:
            if "read_object_spec" in request:
                stored = await self._object(request.read_object_spec, context)
                yield storage.BidiReadObjectResponse(metadata=_resource(stored), read_handle={"handle": b"handle"})
            if stored is None:
                await _fail(context, grpc.StatusCode.INVALID_ARGUMENT, "The first message names no object.")
            for wanted in request.read_ranges:
                if not 0 <= wanted.read_offset <= len(stored.data):
                    await _fail(context, grpc.StatusCode.OUT_OF_RANGE, "The range begins outside of the object.")
                for part in _parts(stored.data, wanted):
                    yield storage.BidiReadObjectResponse(object_data_ranges=[part])

    async def write(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        stored: StoredObject | None = None
        content = bytearray()
        async for request in requests:
            if stored is None:
                stored = await self._object_to_write(request, context)
                content += stored.data
                yield storage.BidiWriteObjectResponse(resource=_resource(stored))
            if "checksummed_data" in request:
                data = request.checksummed_data
                if request.write_offset != len(content):
                    await _fail(context, grpc.StatusCode.OUT_OF_RANGE, "Data must be appended.")
                if google_crc32c.value(data.content) != data.crc32c:
                    await _fail(context, grpc.StatusCode.DATA_LOSS, "The checksum is not that of the data.")
                content += data.content
            if request.finish_write or request.flush:
                stored = self._persist(stored, content, finalized=request.finish_write)
            if request.finish_write:
                yield storage.BidiWriteObjectResponse(resource=_resource(stored))
            elif request.state_lookup:
                yield storage.BidiWriteObjectResponse(persisted_size=len(stored.data))
        if stored is not None:
            self._persist(stored, content, finalized=stored.finalized)

    def _persist(self, stored: StoredObject, content: bytearray, *, finalized: bool) -> StoredObject:
        return self._buckets[stored.bucket].change_content(stored, bytes(content), finalized=finalized)

    async def _object_to_write(self, request: Any, context: Context) -> StoredObject:
        if "append_object_spec" in request:
            stored = await self._object(request.append_object_spec, context)
            if stored.finalized:
                await _fail(context, grpc.StatusCode.FAILED_PRECONDITION, "The object is finalized.")
            return stored
        spec = request.write_object_spec
        bucket = await self._bucket(spec.resource.bucket, context)
        current = bucket.get(spec.resource.name)
        if "if_generation_match" in spec and spec.if_generation_match != (current.generation if current else 0):
            await _fail(context, grpc.StatusCode.FAILED_PRECONDITION, "A precondition did not hold.")
        return bucket.put(spec.resource.name, b"", {}, finalized=False)

    async def _bucket(self, name: str, context: Context) -> Bucket:
        bucket = self._buckets.get(name.removeprefix(_BUCKETS))
        if bucket is None:
            await _fail(context, grpc.StatusCode.NOT_FOUND, "The specified bucket does not exist.")
        return bucket

    async def _object(self, spec: Any, context: Context) -> StoredObject:
        stored = (await self._bucket(spec.bucket, context)).get(spec.object_)
        if stored is None or (spec.generation and spec.generation != stored.generation):
            await _fail(context, grpc.StatusCode.NOT_FOUND, f"No such object: {spec.object_}")
        return stored


def _method(kind: Any, function: Any, request: Any, response: Any) -> grpc.RpcMethodHandler:
    return kind(function, request_deserializer=request.deserialize, response_serializer=response.serialize)


async def _fail(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort always raises")


def _resource(stored: StoredObject) -> Any:
    """The object as the service describes it."""
    return storage.Object(
        name=stored.name,
        bucket=_BUCKETS + stored.bucket,
        generation=stored.generation,
        metageneration=stored.metageneration,
        size=len(stored.data),
        checksums={"crc32c": google_crc32c.value(stored.data)},
        create_time=datetime.datetime.fromisoformat(stored.created),
        finalize_time=datetime.datetime.fromisoformat(stored.updated) if stored.finalized else None,
    )


def _parts(data: bytes, wanted: Any) -> Iterator[Any]:
    """The range in messages of its own; a length of 0 means up to the end."""
    stop = min(len(data), wanted.read_offset + wanted.read_length) if wanted.read_length else len(data)
    # Also an empty range has one part, which says that it has ended.
    for start in range(wanted.read_offset, max(stop, wanted.read_offset + 1), _CHUNK_BYTES):
        content = data[start : min(stop, start + _CHUNK_BYTES)]
        yield storage.ObjectRangeData(
            checksummed_data={"content": content, "crc32c": google_crc32c.value(content)},
            read_range={"read_offset": start, "read_length": len(content), "read_id": wanted.read_id},
            range_end=start + len(content) >= stop,
        )
