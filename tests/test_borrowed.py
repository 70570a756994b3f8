"""What the user handed in stays theirs: it is not closed, not replaced, and works after the store is closed."""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiobotocore.session
import aiohttp
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StoreOpenError
from tests.every_backend import CONTENTS, Everything, Place, backends, everything
from tests.servers import AzureServer
from tests.servers.azure import ACCOUNT, ACCOUNT_KEY

__all__ = ["everything"]  # the fixture

PROTOTYPE = default_buffer_prototype()
KEY = "folder/small"


async def aread(store: Any) -> bytes:
    """A value of the tree, on the running loop."""
    value = await store.get(KEY, PROTOTYPE)
    assert value is not None
    return bytes(value.to_bytes())


def read(store: Any) -> bytes:
    """The same on zarr's loop."""
    return sync(aread(store))


@pytest.fixture
async def connector() -> AsyncIterator[aiohttp.TCPConnector]:
    """A connector of the user's own."""
    connector = aiohttp.TCPConnector()
    yield connector
    await connector.close()


async def works(connector: aiohttp.BaseConnector, url: str) -> bool:
    """Whether the user can still make requests by way of their connector."""
    async with aiohttp.ClientSession(connector=connector, connector_owner=False) as theirs:
        async with theirs.get(url) as response:
            return response.status < 500


def with_sessions(place: Place, backend: str, options: Mapping[str, Any]) -> Place:
    """The place with options for its sessions, by the backend's name for them."""
    return Place(place.url, {**place.options, {"http": "client_kwargs", "gs": "session_kwargs"}[backend]: options})


@backends("http", "gs")
@pytest.mark.parametrize("how", ["aclose", "close elsewhere", "close on the loop", "exception"])
async def test_a_connector_is_borrowed(
    backend: str, how: str, everything: Everything, connector: aiohttp.TCPConnector
) -> None:
    """However the store ends, the user's connector is open afterwards, and serves other sessions."""
    options = {"connector": connector}
    place = with_sessions(everything.filled(backend), backend, options)
    store = place.store()
    assert await aread(store) == CONTENTS[KEY]
    session = store.fs._session
    assert session.connector is connector
    match how:
        case "aclose":
            await store.aclose()
        case "close elsewhere":
            await asyncio.to_thread(store.close)
        case "close on the loop":
            store.close()
            await asyncio.sleep(0.05)
        case "exception":
            with pytest.raises(ZeroDivisionError):
                async with store:
                    _ = 1 / 0
    assert session.closed
    assert not connector.closed
    assert options == {"connector": connector}
    assert await works(connector, everything.server(backend).url)
    with pytest.raises(StoreClosedError):
        await aread(store)


@backends("http", "gs")
async def test_one_connector_for_several_stores(
    backend: str, everything: Everything, connector: aiohttp.TCPConnector
) -> None:
    """Closing one of the stores leaves the others working."""
    place = with_sessions(everything.filled(backend), backend, {"connector": connector})
    async with place.store() as first:
        async with place.store() as second:
            assert await aread(first) == await aread(second) == CONTENTS[KEY]
        assert await aread(first) == CONTENTS[KEY]
    assert not connector.closed


@backends("http", "gs")
async def test_a_connector_on_another_loop(
    backend: str, everything: Everything, connector: aiohttp.TCPConnector
) -> None:
    """It belongs to one loop: on another the error says so, and on its own it goes on working."""
    place = with_sessions(everything.filled(backend), backend, {"connector": connector})
    async with place.store() as store:
        with pytest.raises(
            StoreOpenError, match=r"'connector'\] is a TCPConnector that belongs to the event loop"
        ) as e:
            await asyncio.to_thread(read, store)
        message = str(e.value)
        assert "can be used on that loop alone" in message
        assert "Use it there" in message
        assert "leave the option out" in message
        assert await aread(store) == CONTENTS[KEY]
        with pytest.raises(StoreOpenError, match="belongs to the event loop"):
            await asyncio.to_thread(asyncio.run, aread(store))
        assert await aread(store) == CONTENTS[KEY]
    assert not connector.closed


async def test_a_connector_in_a_chain_on_fsspecs_loop(everything: Everything, connector: aiohttp.TCPConnector) -> None:
    """Below a synchronous filesystem, requests are made on fsspec's loop: a connector of another cannot serve there."""
    place = everything.filled("simplecache::http")
    options = {"http": {"client_kwargs": {"connector": connector}}}
    async with ManagedStore(place.url, storage_options=options) as store:
        with pytest.raises(StoreOpenError, match=r"\['http'\].*TCPConnector that belongs to the event loop"):
            await aread(store)
    assert not connector.closed


async def test_a_connector_in_any_mapping_is_borrowed(everything: Everything, connector: aiohttp.TCPConnector) -> None:
    """The options of a session need not be a dict."""
    place = everything.filled("http")
    async with with_sessions(place, "http", ChainMap({"connector": connector})).store() as store:
        assert await aread(store) == CONTENTS[KEY]
    assert not connector.closed


async def test_a_factorys_session_is_closed_and_its_connector_is_not(
    everything: Everything, connector: aiohttp.TCPConnector
) -> None:
    """What `get_client` makes belongs to the filesystem; what it made it from belongs to the user."""
    made: list[aiohttp.ClientSession] = []

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        made.append(aiohttp.ClientSession(connector=connector, connector_owner=False))
        return made[-1]

    place = everything.filled("http")
    async with Place(place.url, {**place.options, "get_client": get_client}).store() as store:
        assert await aread(store) == CONTENTS[KEY]
    assert [session.closed for session in made] == [True]
    assert not connector.closed
    assert await works(connector, place.url)


class ClientAround:
    """What is laid around a session and speaks as it does, as the client of aiohttp_retry."""

    def __init__(self, **options: Any) -> None:
        self.session = aiohttp.ClientSession(**options)
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("connector"):  # theirs has none
            raise AttributeError(name)
        return getattr(self.session, name)

    async def close(self) -> None:
        await self.session.close()
        self.closed = True


async def test_a_factorys_client_around_a_session_is_closed(everything: Everything) -> None:
    """It is closed itself, for it may complain otherwise, and so is the session in it."""
    made: list[ClientAround] = []

    async def get_client(**options: Any) -> ClientAround:
        made.append(ClientAround(**options))
        return made[-1]

    place = everything.filled("http")
    async with Place(place.url, {**place.options, "get_client": get_client}).store() as store:
        assert await aread(store) == CONTENTS[KEY]
    assert [(client.closed, client.session.closed) for client in made] == [(True, True)]


@pytest.mark.parametrize("chained", [False, True])
def test_a_factory_makes_a_session_for_each_loop(chained: bool, everything: Everything) -> None:
    """Each is closed, on the loop that it was made on."""
    made: list[tuple[aiohttp.ClientSession, asyncio.AbstractEventLoop]] = []

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        made.append((aiohttp.ClientSession(**options), asyncio.get_running_loop()))
        return made[-1][0]

    place = everything.filled("simplecache::http" if chained else "http")
    options = {"http": {"get_client": get_client}} if chained else {"get_client": get_client}
    with ManagedStore(place.url, storage_options=options) as store:
        assert read(store) == CONTENTS[KEY]
        assert asyncio.run(aread(store)) == CONTENTS[KEY]
    assert len(made) == 2
    assert all(session.closed for session, _ in made)
    assert len({id(loop) for _, loop in made}) == (1 if chained else 2)


@pytest.mark.parametrize("backend", ["s3", "simplecache::s3"])
def test_an_aiobotocore_session_is_borrowed(backend: str, everything: Everything) -> None:
    """The store's clients are made by the user's session, which makes more after they are closed."""
    theirs = aiobotocore.session.AioSession()
    theirs.user_agent_name = "theirs"
    place = everything.filled(backend)
    s3 = {**everything.filled("s3").options, "session": theirs}
    options = s3 if backend == "s3" else {"s3": s3}
    with ManagedStore(place.url, storage_options=options) as store:
        assert read(store) == CONTENTS[KEY]
        inner: Any = store.fs if backend == "s3" else store.fs.sync_fs  # type: ignore[attr-defined]
        assert inner.session is theirs
        assert asyncio.run(aread(store)) == CONTENTS[KEY]

    async def use() -> list[str]:
        async with theirs.create_client(
            "s3", region_name="us-east-1", endpoint_url=everything.server("s3").url,
            aws_access_key_id="testing", aws_secret_access_key="testing",
        ) as client:  # fmt: skip
            return [bucket["Name"] for bucket in (await client.list_buckets())["Buckets"]]

    assert "bucket" in asyncio.run(use())


class Credential:
    """An asynchronous credential of Azure's kind, which notes that it was closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.entered = 0

    async def get_token(self, *scopes: str, **kwargs: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 2**33)

    async def close(self) -> None:
        self.closed += 1

    async def __aenter__(self) -> Credential:
        self.entered += 1
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.close()


@backends("az")
@pytest.mark.parametrize("how", ["aclose", "close on the loop", "never used"])
async def test_an_azure_credential_is_borrowed(backend: str, how: str, everything: Everything) -> None:
    """The service client is closed, and the credential that the user handed in is not."""
    server: AzureServer = everything.server(backend)
    credential = Credential()
    options = {"account_name": ACCOUNT, "credential": credential, "account_host": f"127.0.0.1:{server.port}"}
    store = ManagedStore("az://bucket/tree", storage_options=options)
    if how != "never used":
        filesystem: Any = store.fs
        assert filesystem.credential is credential
    store.close() if how == "close on the loop" else await store.aclose()
    await asyncio.sleep(0.05)
    assert credential.closed == 0


@backends("az")
async def test_a_named_key_credential_works_on(backend: str, everything: Everything) -> None:
    """The same with requests that succeed: a key in an object of the user's."""
    from azure.core.credentials import AzureNamedKeyCredential

    credential = AzureNamedKeyCredential(ACCOUNT, ACCOUNT_KEY)
    assert everything.filled(backend)
    for _ in range(2):
        options = {**everything.server(backend).storage_options, "credential": credential}
        async with ManagedStore("az://bucket/tree", storage_options=options) as store:
            assert await aread(store) == CONTENTS[KEY]


class BoundCredential(Credential):
    """A credential that holds a session of aiohttp's, as those of azure-identity do after their first use."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        super().__init__()
        self._pipeline = {"transport": [session]}


@backends("az")
async def test_a_credential_with_a_session_is_bound_to_its_loop(backend: str, everything: Everything) -> None:
    """On another loop the error names the option, and the loop; the session stays open."""
    async with aiohttp.ClientSession() as session:
        credential = BoundCredential(session)
        options = {"account_name": ACCOUNT, "credential": credential}
        async with ManagedStore("az://bucket/tree", storage_options=options) as store:
            with pytest.raises(
                StoreOpenError, match=r"\['credential'\] is a BoundCredential that belongs to the event"
            ):
                await asyncio.to_thread(read, store)
            _ = store.fs
        assert not session.closed
        assert credential.closed == 0
