"""A store in a bucket, by a server that speaks S3 on loopback."""

from __future__ import annotations

import logging

import pytest
from helpers.live_server import DEMO_STORE
from helpers.remote_server import NUM_TOKENS, PROMPT, SMALL

import edgemoe
from edgemoe.errors import NotAStoreError, StoreError
from edgemoe.store import open_store

moto = pytest.importorskip("moto.server")
BUCKET = "models"


@pytest.fixture(scope="module")
def endpoint():
    """The server's address; the bucket holds the demo's store."""
    import boto3

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="a-key",
        aws_secret_access_key="a-secret",
    )
    client.create_bucket(Bucket=BUCKET)
    for path in DEMO_STORE.iterdir():
        client.put_object(Bucket=BUCKET, Key=f"deep/demo.store/{path.name}", Body=path.read_bytes())
    yield address
    server.stop()


@pytest.fixture(autouse=True)
def credentials(endpoint, monkeypatch):
    """What S3's clients are told by their usual environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_store_in_a_bucket_gives_the_tokens_of_the_local_one(local_tokens):
    url = f"s3://{BUCKET}/deep/demo.store"
    for _ in range(2):
        with edgemoe.load(url, **SMALL, tier="1GiB") as model:
            found = model.generate(PROMPT, max_tokens=NUM_TOKENS)
        assert found.token_ids == local_tokens
    assert found.tier_bytes > found.far_bytes


def test_missing_buckets_and_stores_are_said():
    with pytest.raises(NotAStoreError, match=r"s3://absent/store: not a store.*there is no such bucket"):
        open_store("s3://absent/store")
    with pytest.raises(NotAStoreError, match=r"s3://models/none: not a store.*not there \(404\)"):
        open_store(f"s3://{BUCKET}/none")


def test_without_credentials_it_says_which_are_missing(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"demo\.store: cannot be read: no credentials; set"):
        open_store(f"s3://{BUCKET}/deep/demo.store")
