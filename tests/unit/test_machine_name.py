"""The name of a machine in the group."""

import socket

import pytest

from hotpath.errors import ConfigError
from hotpath.settings import PipelineSettings, environment, load


def test_a_machine_is_called_like_its_host_unless_told():
    assert PipelineSettings().machine == socket.gethostname()
    assert PipelineSettings(machine="blue-2").machine == "blue-2"


def test_workers_get_the_name_that_their_supervisor_found(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "red.example.net")
    handed_down = environment(PipelineSettings())
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    for name, value in handed_down.items():
        monkeypatch.setenv(name, value)
    assert load(PipelineSettings, [], "worker").machine == "red.example.net"


@pytest.mark.parametrize("name", ["a b", "../x", ".", "ü", "x" * 201])
def test_a_name_that_kafka_would_refuse_is_refused_at_once(name):
    with pytest.raises(ConfigError, match="--machine"):
        load(PipelineSettings, ["--machine", name], "supervisor")
