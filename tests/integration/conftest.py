"""Fixtures of several integration tests."""

from collections.abc import Callable, Iterator

import pytest

from hotpath import verify
from hotpath.settings import PipelineSettings, environment
from tests.support.live_views import World


@pytest.fixture
def verify_command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """`hotpath verify` with settings in the environment; its exit code and what it printed."""

    def run(settings: PipelineSettings, *arguments: str) -> tuple[int, str, str]:
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["verify", *arguments])
        code = verify.main()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def new_world(database: str, redis_url: str) -> Iterator[Callable[..., World]]:
    """Makes worlds, and ends them."""
    worlds: list[World] = []

    def make(**options: object) -> World:
        worlds.append(World(database, redis_url, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
