"""Which backend is meant, where files lie, and what is a name."""

import pytest

from helpers import config, folders


def test_backend_is_local_unless_asked(monkeypatch):
    monkeypatch.delenv("TUTORIAL_BACKEND", raising=False)
    assert config.backend() == "local"
    monkeypatch.setenv("TUTORIAL_BACKEND", "snowflake")
    assert config.backend() == "snowflake"
    assert config.backend("local") == "local"


def test_backend_names_what_it_does_not_know():
    with pytest.raises(ValueError, match="backend is 'cloud'"):
        config.backend("cloud")


@pytest.mark.parametrize("name", ["CLOTHING", "clothing_test", "_a$1"])
def test_identifier_is_upper_case(name):
    assert config.identifier(name) == name.upper()


@pytest.mark.parametrize("name", ["", "1a", "a b", "a;drop table b", 'a"', "a.b", "ä"])
def test_identifier_refuses_what_could_be_more_than_a_name(name):
    with pytest.raises(ValueError, match="not a plain Snowflake identifier"):
        config.identifier(name)


def test_what_can_be_made_again_may_lie_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "cache"))
    assert config.cache_folder() == tmp_path / "cache"


def test_home_moves_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_HOME", str(tmp_path))
    monkeypatch.delenv("TUTORIAL_CACHE", raising=False)
    assert config.runs_folder().is_relative_to(tmp_path)
    assert config.cache_folder().is_relative_to(tmp_path)
    assert config.trained_model().is_relative_to(tmp_path)
    assert folders.images_folder().is_relative_to(tmp_path)
    assert folders.images_folder(str(tmp_path / "x")) == tmp_path / "x"
