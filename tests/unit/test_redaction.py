"""Secrets belong into the environment or into arguments, and nothing shows them."""

from __future__ import annotations

import pytest

from memory_core import ConfigurationError, load_settings, open_memory
from memory_core.config import StorageURL, build_options
from memory_core.config.redaction import is_secret
from memory_storage_turso.config import TursoConfig

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "option",
    [
        "auth_token",
        "authToken",
        "AUTHTOKEN",
        "jwt",
        "token",
        "password",
        "admin.password",
        "api-key",
        "encryption_key",
        "tenancy.secret",
    ],
)
async def test_a_url_that_holds_a_secret_is_refused_without_showing_it(option: str) -> None:
    url = f"turso+http://127.0.0.1:9?readers=3&{option}={SECRET}"
    with pytest.raises(ConfigurationError, match="secret") as parsing:
        StorageURL.parse(url)
    with pytest.raises(ConfigurationError, match="secret") as opening:
        await open_memory(url)
    for caught in (parsing, opening):
        assert option in str(caught.value)
        assert SECRET not in f"{caught.value!r}{caught.value}"


@pytest.mark.parametrize("inner", ["http://h?token={}", "libsql://user:{}@h", "http://{}@h"])
def test_a_url_within_a_url_is_no_hiding_place(inner: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StorageURL.parse(f"turso+http://127.0.0.1:9?replicas={inner.format(SECRET)}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "key", "durability", "passwordless"])
def test_other_options_are_no_secrets(name: str) -> None:
    assert not is_secret(name)
    assert StorageURL.parse(f"lmdb:y?{name}=1").options == {name: "1"}


def test_settings_do_not_show_the_secrets_of_their_options(tmp_path) -> None:
    file = tmp_path / "memory.toml"
    file.write_text(
        'url = "libsql://h"\n[options]\n'
        f'auth_token = "{SECRET}"\ndatabase = "shown"\nplugin.password = "{SECRET}"\n'
    )
    settings = load_settings(config_file=file, environment={})
    assert settings.options["auth_token"] == SECRET
    assert SECRET not in repr(settings)
    assert "auth_token" in repr(settings)
    assert "shown" in repr(settings)
    with_url = load_settings(url=f"libsql://h?auth_token={SECRET}", environment={})
    assert SECRET not in repr(with_url)


@pytest.mark.parametrize("wrong", [SECRET.encode(), [SECRET], 1234567])
def test_a_secret_of_the_wrong_type_is_not_shown(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="auth_token") as caught:
        build_options(TursoConfig, {"auth_token": wrong}, where="here")
    assert str(wrong) not in str(caught.value)


def test_an_option_that_is_no_url_is_said_without_its_value():
    with pytest.raises(
        ConfigurationError, match=r"option 'cache' in the URL has no valid host"
    ) as caught:
        StorageURL.parse("lmdb:./mem?cache=redis://ana:hunter2@[")
    assert "hunter2" not in str(caught.value)
