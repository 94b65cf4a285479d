"""The read API's settings, beside those of every process."""

from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from hotpath.settings import Settings

HostName = Annotated[str, StringConstraints(to_lower=True)]


class ApiSettings(Settings):
    api_host: str = Field("127.0.0.1", description="where the read API is served")
    api_port: int = Field(8000, ge=0, le=65_535, description="its port; 0 takes any free one")
    api_hosts: list[HostName] = Field(
        default_factory=list,
        description="host names it answers to, as JSON; unless told: any, but on loopback without a token only "
        "loopback's own",
    )
    api_token: SecretStr = Field(
        SecretStr(""),
        description="if set, requests need `Authorization: Bearer` with it, health pages excepted",
    )
    api_cors_origins: list[str] = Field(
        default_factory=list,
        description='origins whose pages may read the API, as JSON: ["https://board.example.org"]',
    )
    api_page_folder: str = Field(
        "dashboard/dist", description="folder of the built dashboard, relative to the program's"
    )
    api_redis_timeout_s: float = Field(0.5, gt=0, description="longest the API waits for a reply of Redis")
    api_redis_connections_max: int = Field(16, ge=1, description="connections of one API process to Redis")
    api_refresh_ms: int = Field(
        250, ge=1, le=60_000, description="age up to which numbers are shared between requests"
    )
    api_stale_max_s: int = Field(
        300,
        ge=0,
        description="age up to which the last good numbers are served, marked stale, while Redis is away",
    )
    api_streams_max: int = Field(1_000, ge=1, description="open streams of one API process; more get 503")
    api_stream_stall_s: float = Field(
        15, gt=0, description="a stream whose client takes nothing for so long is closed"
    )
    api_postgres_connections_max: int = Field(
        3, ge=1, le=100, description="connections of one API process to Postgres"
    )
    api_postgres_timeout_s: float = Field(
        5,
        gt=0,
        le=600,
        description="longest a question to Postgres may take, waiting for a connection included",
    )
    api_drain_deadline_s: int = Field(5, ge=0, description="time for open requests after SIGTERM")
    status_url: str = Field(
        "http://127.0.0.1:9464", pattern="^https?://", description="where the supervisor serves its status"
    )
