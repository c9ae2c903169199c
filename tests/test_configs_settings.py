"""Server settings: where they come from, who wins, and what a mistake is answered with."""

import dataclasses

import pytest

from compactds.configs.errors import ConfigFileError, InvalidValueError, UnknownKeyError
from compactds.configs.settings import ServeSettings, load_settings
from compactds.datastore.queries import MAX_CANDIDATES, MAX_K
from compactds.server.settings import ServerSettings


def test_defaults_bind_loopback_without_a_key():
    settings = load_settings(None, {})
    assert (settings.host, settings.port, settings.api_key) == ("127.0.0.1", 8080, None)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nmax_k = 1\nmax_batch = 1\nhost = "localhost"\n')
    environment = {"COMPACTDS_SERVE_PORT": "2", "COMPACTDS_SERVE_MAX_K": "2", "COMPACTDS_OTHER": "x"}
    settings = load_settings(file, environment, {"port": 3})
    assert (settings.port, settings.max_k, settings.max_batch, settings.host) == (3, 2, 1, "localhost")


def test_an_empty_variable_counts_as_unset():
    assert load_settings(None, {"COMPACTDS_SERVE_API_KEY": ""}).api_key is None


def test_the_key_is_read_but_never_shown(tmp_path):
    settings = load_settings(None, {"COMPACTDS_SERVE_API_KEY": "hunter2"})
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)
    file = tmp_path / "serve.toml"
    file.write_text("api_key = 123456\n")
    with pytest.raises(InvalidValueError) as caught:
        load_settings(file, {})
    assert "123456" not in str(caught.value)


def test_a_mistake_names_the_place_it_was_made(tmp_path):
    with pytest.raises(
        UnknownKeyError, match=r"environment \(COMPACTDS_SERVE_\*\): unknown key 'prot'"
    ) as caught:
        load_settings(None, {"COMPACTDS_SERVE_PROT": "1"})
    assert caught.value.remedy == "Did you mean 'port'?"
    with pytest.raises(InvalidValueError, match=r"environment .*'port' in the top level is 'many'"):
        load_settings(None, {"COMPACTDS_SERVE_PORT": "many"})
    with pytest.raises(InvalidValueError, match="command line: 'port' in the top level is 70000"):
        load_settings(None, {}, {"port": 70000})
    file = tmp_path / "serve.toml"
    file.write_text("[table]\n")
    with pytest.raises(UnknownKeyError, match=r"serve\.toml: unknown key 'table'"):
        load_settings(file, {})
    with pytest.raises(ConfigFileError, match="absent"):
        load_settings(tmp_path / "absent", {})


@pytest.mark.parametrize(
    "line",
    ["port = true", 'max_k = "7"', "drain_s = 1.0", "host = 1", "max_k = 10001", "max_candidates = 100001"],
)
def test_a_file_gives_the_very_types_and_no_more_than_the_engine_takes(tmp_path, line):
    file = tmp_path / "serve.toml"
    file.write_text(line + "\n")
    with pytest.raises(InvalidValueError, match=line.split()[0]):
        load_settings(file, {})


def test_a_flag_gives_the_very_type_and_a_variable_is_text(tmp_path):
    with pytest.raises(InvalidValueError, match="command line"):
        load_settings(None, {}, {"port": "1"})
    with pytest.raises(InvalidValueError, match="environment"):
        load_settings(None, {"COMPACTDS_SERVE_PORT": "true"})
    file = tmp_path / "serve.toml"
    file.write_text('api_key = "abc"\nmax_k = 10000\nmax_candidates = 100000\n')
    settings = load_settings(file, {"COMPACTDS_SERVE_PORT": "7"}, {"host": "::1"})
    assert (settings.port, settings.max_k, settings.max_candidates) == (7, MAX_K, MAX_CANDIDATES)
    assert settings.api_key is not None


def test_settings_are_those_of_the_server():
    ours = {name: field.default for name, field in ServeSettings.model_fields.items()}
    assert ours == {field.name: field.default for field in dataclasses.fields(ServerSettings)}


def test_every_setting_has_a_description():
    assert [name for name, field in ServeSettings.model_fields.items() if not field.description] == []
