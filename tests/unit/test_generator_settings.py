"""What the generator takes from flags and from the environment."""

import pytest

from generator.settings import ENDLESS_RATE, GeneratorSettings
from hotpath.errors import ConfigError
from hotpath.settings import load


def loaded(*arguments: str) -> GeneratorSettings:
    return load(GeneratorSettings, list(arguments), "generator")


def test_its_own_settings_have_names_of_their_own(monkeypatch):
    monkeypatch.setenv("HOTPATH_RATE", "5")
    monkeypatch.setenv("HOTPATH_GENERATOR_USERS", "12")
    settings = loaded()
    assert (settings.rate, settings.users) == (0, 12)


def test_it_shares_the_settings_of_the_pipeline_and_may_override_them(monkeypatch):
    monkeypatch.setenv("HOTPATH_TOPIC", "shared")
    monkeypatch.setenv("HOTPATH_LATE_MAX_S", "60")
    assert (loaded().topic, loaded().late_max_s) == ("shared", 60)
    monkeypatch.setenv("HOTPATH_GENERATOR_TOPIC", "own")
    assert loaded().topic == "own"
    assert loaded("--topic", "flag").topic == "flag"


@pytest.mark.parametrize(
    ("arguments", "rate", "events"),
    [
        ((), ENDLESS_RATE, 0),
        (("--rate", "100"), 100, 0),
        (("--events", "5000"), 0, 5_000),
        (("--seconds", "3"), 0, 0),
        (("--rate", "100", "--seconds", "3"), 100, 300),
        (("--rate", "100", "--seconds", "3", "--events", "50"), 100, 50),
    ],
)
def test_rate_and_end_follow_from_what_is_given(arguments, rate, events):
    settings = loaded(*arguments)
    assert (settings.asked_rate, settings.events_max) == (rate, events)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--rate", "fast"), "HOTPATH_GENERATOR_RATE"),
        (("--bots", "0.5", "--late", "0.2"), "--bots, --malformed and --late"),
        (("--start-time", "2024-01-01T00:00:00"), "must have a zone"),
        (("--users", "0"), "--users"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        loaded(*arguments)


def test_no_error_shows_a_password(monkeypatch):
    monkeypatch.setenv("HOTPATH_KAFKA_OPTIONS", '{"sasl.password": "secret"}')
    with pytest.raises(ConfigError) as caught:
        loaded("--bots", "0.5", "--late", "0.2")
    assert "secret" not in str(caught.value)
