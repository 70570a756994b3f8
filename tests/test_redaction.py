"""Secrets stay in: no repr, message or warning of this package shows an option's value or a URL's secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managed_store import ManagedStore, StoreClosedError
from managed_store._redaction import redacted

# Long enough not to be part of the rest of a message by chance.
SECRETS = st.text(alphabet="abcXYZ019-_/?#:@=&%+", min_size=8, max_size=24).map(lambda text: f"s3cr3t{text}s3cr3t")
PLAIN_SECRETS = st.text(alphabet="abcXYZ019-_", min_size=4, max_size=24).map(lambda text: f"s3cr3t{text}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a.zarr", "https://host/a.zarr"),
        ("https://user:password@host/a", "https://***@host/a"),
        ("https://user:p@ss/word@host/a", "https://***@host/a"),
        ("https://user:p@ss/w?rd#1@host/a", "https://***"),
        ("https://host/a?GoogleAccessId=me@host&Signature=x", "https://***"),
        ("zip://in::https://host/a?x::y@z", "zip://***"),
        ("https://host/a?signature=x::y", "https://host/a?***"),
        ("https:/user:password@host/a", "***@host/a"),
        ("user:password@host/a", "***@host/a"),
        ("https://host/a?signature=x", "https://host/a?***"),
        ("https://host/a#fragment", "https://host/a#***"),
        ("simplecache::https://u:p@host/a?t=1", "simplecache::https://***@host/a?***"),
        ("zip://inner::s3://key:secret@bucket/a.zip", "zip://inner::s3://***@bucket/a.zip"),
        ("https://user:a::b@host/x", "https://***@host/x"),
        ("/data/a@b?c.zarr", "/data/a@b?c.zarr"),
        ("relative/path.zarr", "relative/path.zarr"),
    ],
)
def test_redacted(url: str, expected: str) -> None:
    """User info, query and fragment of each part go; the rest stays readable."""
    assert redacted(url) == expected


@given(password=SECRETS.filter(lambda secret: "::" not in secret), token=PLAIN_SECRETS, option=SECRETS)
def test_no_message_of_a_store_shows_a_secret(password: str, token: str, option: str) -> None:
    """Neither repr, str, statistics nor the errors of a store show what is secret in its URL and options."""
    store = ManagedStore(
        f"https://user:{password}@host/a.zarr?token={token}",
        storage_options={"headers": {"Authorization": option}, "key": option},
    )
    shown = [repr(store), str(store), repr(store.statistics()), repr(store._sessions.recipe)]
    store.close()
    with pytest.raises(StoreClosedError) as caught:
        store.with_read_only(True)
    shown += [str(caught.value), repr(caught.value), repr(store)]
    for text in shown:
        assert password not in text
        assert token not in text
        assert option not in text
