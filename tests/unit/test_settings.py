"""Settings are read from variables and flags alike, and what is wrong with them is said without their secrets."""

import json

import pytest

from hotpath.errors import ConfigError
from hotpath.settings import PipelineSettings, environment, load

OPTIONS = [
    ("", {}),
    ("{}", {}),
    ("security.protocol=SASL_SSL", {"security.protocol": "SASL_SSL"}),
    ("a=b,c=d", {"a": "b", "c": "d"}),
    (" a = b , c=d,", {"a": "b", "c": "d"}),
    ("sasl.password=dGVzdA==", {"sasl.password": "dGVzdA=="}),
    ("sasl.jaas.config=user=x password=y,a=", {"sasl.jaas.config": "user=x password=y", "a": ""}),
    ('{"a": "b,c=d", "e": "{}"}', {"a": "b,c=d", "e": "{}"}),
    (' {"a": "b"} ', {"a": "b"}),
    (
        '{"fetch.wait.max.ms": 50, "enable.x": true, "y": 0.5}',
        {"fetch.wait.max.ms": "50", "enable.x": "true", "y": "0.5"},
    ),
]


def loaded(*arguments: str) -> PipelineSettings:
    return load(PipelineSettings, list(arguments), "program")


@pytest.mark.parametrize(("text", "options"), OPTIONS)
def test_kafka_options_come_from_the_environment(text, options, monkeypatch):
    monkeypatch.setenv("HOTPATH_KAFKA_OPTIONS", text)
    assert loaded().kafka_options == options


@pytest.mark.parametrize(("text", "options"), OPTIONS)
def test_kafka_options_come_from_a_flag(text, options):
    assert loaded(f"--kafka-options={text}").kafka_options == options


def test_a_flag_may_be_repeated():
    assert loaded("--kafka-options", "a=b", "--kafka-options", "c=d").kafka_options == {"a": "b", "c": "d"}


@pytest.mark.parametrize(
    "text", ["secret", "a=b,secret", "=secret", '{"a": "secret"', '{"a": ["secret"]}', "[1]", "{a=secret}"]
)
def test_options_that_cannot_be_read_are_named_and_not_shown(text, monkeypatch):
    monkeypatch.setenv("HOTPATH_KAFKA_OPTIONS", text)
    with pytest.raises(ConfigError, match="HOTPATH_KAFKA_OPTIONS") as caught:
        loaded()
    assert "secret" not in str(caught.value)


def test_settings_reach_a_child_as_they_are(monkeypatch):
    settings = loaded("--kafka-options", json.dumps({"a": "b,c=d", "e": '"'}), "--procs", "3")
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert loaded() == settings


def test_what_may_hold_a_password_is_not_in_the_settings_text():
    settings = loaded(
        "--kafka-options", "p=secret", "--redis-url", "redis://:secret@h", "--postgres-dsn", "password=secret"
    )
    assert "secret" not in repr(settings) + str(settings)
