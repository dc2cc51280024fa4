"""Server URLs: what they mean, what they must not hold, where a token may go."""

from __future__ import annotations

import pickle

import pytest

from memory_core.errors import ConfigurationError
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.server.hrana.endpoint import Token, is_server_url, parse_endpoint
from memory_storage_turso.server.hrana.http import HttpTransport, WireStats
from memory_storage_turso.server.hrana.stored_sql import SharedSql


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("turso+http://db.example:8080", "http://db.example:8080"),
        ("turso+https://db.example/path/", "https://db.example/path"),
        ("turso+ws://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("turso+wss://db.example", "wss://db.example"),
        ("libsql://db-org.turso.io", "https://db-org.turso.io"),
        ("libsql://db.example:8080?tls=0", "http://db.example:8080"),
        ("libsql://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("libsql://localhost:8080?tls=1", "https://localhost:8080"),
        ("turso+http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_url_names_a_server(url: str, expected: str) -> None:
    assert is_server_url(url)
    assert parse_endpoint(url, environ={}).base_url == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://db.example", "valid: turso"),
        ("turso+http:///path", "names no host"),
        ("turso+http://db.example:port", "wrong port"),
        ("turso+https://db.example?databse=x", "valid: database, tls"),
        ("turso+https://db.example?tls=0", "contradicts"),
        ("libsql://db.example?tls=yes", "expected 0 or 1"),
    ],
)
def test_wrong_url_is_explained(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_endpoint(url, environ={})


@pytest.mark.parametrize(
    "url",
    [
        "libsql://db.example?authToken=s3cret",
        "libsql://user:s3cret@db.example",
        "libsql://s3cret@db.example",
    ],
)
def test_a_secret_in_the_url_is_rejected_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_endpoint(url, environ={})
    assert "s3cret" not in str(caught.value)


def test_token_comes_from_the_argument_or_the_environment() -> None:
    url = "libsql://db.example"
    both = {"MEMORY_TURSO_AUTH_TOKEN": "ours", "TURSO_AUTH_TOKEN": "theirs"}
    assert parse_endpoint(url, token="given", environ=both).token == Token("given")
    assert parse_endpoint(url, environ=both).token == Token("ours")
    assert parse_endpoint(url, environ={"TURSO_AUTH_TOKEN": "theirs"}).token == Token("theirs")
    assert parse_endpoint(url, environ={"TURSO_AUTH_TOKEN": ""}).token is None


@pytest.mark.parametrize(
    "url", ["turso+http://db.example", "turso+ws://10.0.0.1:80", "libsql://db.example?tls=0"]
)
def test_token_is_not_sent_in_the_clear_to_another_machine(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in the clear"):
        parse_endpoint(url, token="s3cret", environ={})
    parse_endpoint(url, environ={})


@pytest.mark.parametrize(
    "url", ["turso+http://127.0.0.1", "turso+ws://localhost", "turso+http://a.localhost"]
)
def test_loopback_is_this_machine(url: str) -> None:
    assert parse_endpoint(url, token="t", environ={}).token is not None


@pytest.mark.parametrize("token", ["abc\ns3cret", "töken€s3cret", "a s3cret", "\x00s3cret"])
def test_a_malformed_token_is_rejected_when_it_is_read(token: str) -> None:
    for options in ({"token": token, "environ": {}}, {"environ": {"TURSO_AUTH_TOKEN": token}}):
        with pytest.raises(ConfigurationError, match="ASCII") as caught:
            parse_endpoint("libsql://db.example", **options)
        assert "s3cret" not in str(caught.value)
    assert parse_endpoint("libsql://h", token=" abc\n", environ={}).token == Token("abc")


def test_transport_does_not_keep_the_token() -> None:
    endpoint = parse_endpoint("libsql://db.example", token="s3cret", environ={})
    transport = HttpTransport(endpoint, TursoConfig(), SharedSql(), WireStats())
    assert "s3cret" not in repr(vars(transport))


def test_token_does_not_show_itself() -> None:
    endpoint = parse_endpoint("libsql://db.example", token="s3cret", environ={})
    assert "s3cret" not in f"{endpoint!r}{endpoint}{endpoint.token!r}{endpoint.token}"
    assert endpoint.token is not None
    assert endpoint.token.reveal() == "s3cret"
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint
