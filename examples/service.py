"""A web service that serves slices of remote arrays, with one pool of sessions for as long as it runs.

``python examples/service.py [NAME=URL …] [--port 8000]``; without a URL it serves data of its own as ``demo``. Then:

- ``/`` lists the datasets, and what the pool holds,
- ``/demo/temperature?index=0,:8,::16`` gives values as JSON,
- ``/demo/temperature?index=0:24&format=bytes`` gives them as bytes, in C order, chunk after chunk as they come.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any

import aiohttp
import numpy as np
import uvicorn
import zarr.api.asynchronous
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from managed_store import StoreClosedError, StoreOpenError, StorePool

MOST_VALUES_AS_JSON = 1_000_000
# Nothing that a URL or a path gives a meaning to, such as "..", "::" or "?".
NAME_OF_AN_ARRAY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def application(datasets: Mapping[str, str]) -> Starlette:
    """Make the service of some datasets: the URL of a zarr group for each name."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        # Requests run on this very loop, and so do the sessions. What the service has opened is closed when it ends.
        async with StorePool() as pool:
            yield {"pool": pool, "stores": {name: pool.store(url, read_only=True) for name, url in datasets.items()}}

    return Starlette(routes=ROUTES, exception_handlers=EXCEPTIONS, lifespan=lifespan)


async def overview(request: Request) -> Response:
    return JSONResponse({"datasets": list(request.state.stores), "pool": asdict(request.state.pool.statistics())})


async def read(request: Request) -> Response:
    array = await opened(request.state.stores, request.path_params["dataset"], request.path_params["array"])
    slices, shape = parsed(request.query_params.get("index", ""), array.shape)
    headers = {"X-Shape": ",".join(map(str, shape)), "X-Dtype": array.dtype.str}
    match request.query_params.get("format", "json"):
        case "bytes":
            if array.dtype.hasobject:
                raise HTTPException(406, f"values of type {array.dtype} have no bytes: ask for JSON")
            parts = read_in_parts(array, slices)
            start = await anext(parts, b"")  # what goes wrong now is still told by the status
            headers["Content-Length"] = str(int(np.prod(shape, dtype="i8")) * array.dtype.itemsize)
            return StreamingResponse(chained(start, parts), media_type="application/octet-stream", headers=headers)
        case "json":
            if array.dtype.kind not in "biufUTSO":
                raise HTTPException(406, f"values of type {array.dtype} have no JSON: ask for format=bytes")
            if np.prod(shape, dtype="i8") > MOST_VALUES_AS_JSON:
                raise HTTPException(413, f"more than {MOST_VALUES_AS_JSON} values: ask for less, or for format=bytes")
            values = np.asarray(await array.getitem(slices)).reshape(shape)
            return JSONResponse({"shape": shape, "dtype": array.dtype.str, "values": jsonable(values)}, headers=headers)
        case other:
            raise HTTPException(400, f"format must be json or bytes; got {other!r}")


async def opened(stores: Mapping[str, Any], dataset: str, name: str) -> Any:
    """The array, or 404."""
    if dataset not in stores or not NAME_OF_AN_ARRAY.fullmatch(name):
        raise HTTPException(404, "there is no such array")
    try:
        return await zarr.api.asynchronous.open_array(store=stores[dataset], path=name, mode="r")
    except (FileNotFoundError, zarr.errors.NodeTypeValidationError):  # the latter for a group
        raise HTTPException(404, "there is no such array") from None


def parsed(index: str, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], list[int]]:
    """The slices that `index` stands for, one for each dimension, and the shape of what they select; or 400."""
    parts = index.split(",") if index else []
    if len(parts) > len(shape):
        raise HTTPException(400, f"index has {len(parts)} parts, the array {len(shape)} dimensions")
    slices, selected = [], []
    for part, size in zip(parts + [":"] * (len(shape) - len(parts)), shape, strict=True):
        if not re.fullmatch(r"\s*-?\d{1,18}\s*|\s*(-?\d{1,18})?\s*:\s*(-?\d{1,18})?\s*(:\s*\d{0,18}\s*)?", part, re.A):
            raise HTTPException(400, f"index is made of whole numbers and slices with positive steps; got {part!r}")
        numbers = [int(number) if number.strip() else None for number in part.split(":")]
        if len(numbers) == 1:
            [number] = numbers
            if not -size <= number < size:
                raise HTTPException(400, f"index {number} is out of bounds for a dimension of size {size}")
            slices.append(slice(number % size, number % size + 1, 1))
        elif numbers[2:] == [0]:
            raise HTTPException(400, "a slice needs a step of 1 or more")
        else:
            start, stop, step = slice(*numbers).indices(size)
            slices.append(slice(start, max(start, stop), step))
            selected.append(len(range(start, stop, step)))
    return tuple(slices), selected


async def read_in_parts(array: Any, slices: tuple[slice, ...]) -> AsyncIterator[bytes]:
    """Read what `slices` select, as many steps of the first dimension at once as a chunk has."""
    if not slices:
        yield np.asarray(await array.getitem(())).tobytes()
        return
    first, *others = slices
    begin = first.start
    while begin < first.stop:
        # Up to the end of the chunk, so that no chunk is read twice.
        end = min(first.stop, (begin // array.chunks[0] + 1) * array.chunks[0])
        yield np.asarray(await array.getitem((slice(begin, end, first.step), *others))).tobytes()
        begin += len(range(begin, end, first.step)) * first.step


async def chained(start: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for part in parts:
        yield part


def jsonable(values: np.ndarray[Any, Any]) -> Any:
    """Nested lists; JSON knows no NaN and no infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        values = np.where(np.isfinite(values), values.astype(object), None)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return values.tolist()


def refusing(status: int, text: str) -> Callable[[Request, Exception], Response]:
    """What answers a request that has ended with an exception. What the exception says stays in the house."""
    return lambda _request, _error: JSONResponse({"detail": text}, status, {"Retry-After": "1"})


async def told(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


ROUTES = [Route("/", overview), Route("/{dataset}/{array:path}", read)]
EXCEPTIONS: dict[Any, Any] = {
    HTTPException: told,
    StoreClosedError: refusing(503, "the service is shutting down"),
    StoreOpenError: refusing(502, "the data cannot be opened"),
    aiohttp.ClientError: refusing(502, "the data cannot be reached"),
    OSError: refusing(502, "the data cannot be reached"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", metavar="NAME=URL", help="a zarr group, and what to call it")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    for dataset in arguments.datasets:
        if not re.match(r"\w+=.", dataset):
            parser.error(f"datasets are given as NAME=URL; got {dataset.partition('=')[0]!r}")
    # uvicorn shuts down gracefully at SIGTERM, and then sends it again: by default that would end Python as it is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        datasets = dict(dataset.split("=", 1) for dataset in arguments.datasets)
        if not datasets:
            from _demo_data import demo_group

            datasets = {"demo": stack.enter_context(demo_group())}
        uvicorn.run(application(datasets), host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
