"""The read API's settings, beside those of every process."""

from pydantic import Field

from hotpath.settings import Settings


class ApiSettings(Settings):
    api_host: str = Field("127.0.0.1", description="where the read API is served")
    api_port: int = Field(8000, ge=0, le=65_535, description="its port; 0 takes any free one")
    api_redis_timeout_s: float = Field(0.5, gt=0, description="longest the API waits for a reply of Redis")
    api_redis_connections_max: int = Field(16, ge=1, description="connections of one API process to Redis")
    api_refresh_ms: int = Field(
        250, ge=1, le=60_000, description="age up to which numbers are shared between requests"
    )
    api_drain_deadline_s: int = Field(5, ge=0, description="time for open requests after SIGTERM")
