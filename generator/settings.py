"""The generator's settings: the pipeline's own, and what to generate.

Its own are read from HOTPATH_GENERATOR_* (HOTPATH_RATE would be a name without an owner); the ones it shares
with the pipeline from HOTPATH_* as everywhere, or, for the generator alone, from HOTPATH_GENERATOR_* too.
"""

from datetime import datetime
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from hotpath.settings import Settings

SHARE_OF_ALL_MAX = 0.6
"""Bots, malformed and late events together: beyond it too few people are left to hide them among."""
ENDLESS_RATE = 1_000.0
"""Events a second when neither a rate nor an end is given: enough to see, too few to fill a disk."""


class GeneratorSettings(Settings):
    """What `python -m generator` takes, as flags or as HOTPATH_GENERATOR_*."""

    model_config = SettingsConfigDict(env_prefix="HOTPATH_GENERATOR_")

    rate: float = Field(
        0,
        ge=0,
        le=10_000_000,
        description=f"events a second; 0 is as fast as possible ({ENDLESS_RATE:,.0f} if nothing ends it)",
    )
    seconds: float = Field(0, ge=0, description="how long to send; 0 is without end")
    events: int = Field(0, ge=0, description="how many events to send; 0 is without end")
    seed: int = Field(1, ge=0, description="the same seed gives the same people, pages and faults")
    users: int = Field(
        50_000,
        ge=1,
        le=10_000_000,
        description="people; each views one page a second at most, so at higher rates more events are clicks",
    )
    pages: int = Field(1_000, ge=1, le=1_000_000, description="pages, visited by Zipf's law")
    bots: float = Field(0.02, ge=0, le=SHARE_OF_ALL_MAX, description="share of events that are bots'")
    malformed: float = Field(0.01, ge=0, le=SHARE_OF_ALL_MAX, description="share of events to be refused")
    late: float = Field(0.005, ge=0, le=SHARE_OF_ALL_MAX, description="share of events that come late")
    start_time: datetime | None = Field(
        None,
        description="stamp events from this time on instead of now, at the given rate: the same bytes every "
        "time; use a fresh topic",
    )
    summary: str = Field("", description="file for the ground truth, JSON; - is standard output")
    delivery_timeout_s: float = Field(
        30, gt=0, le=900, description="how long Kafka may take to acknowledge an event before it is failed"
    )

    @field_validator("start_time")
    @classmethod
    def _with_a_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("must have a zone, such as 2026-01-31T12:00:00Z")
        return value

    @model_validator(mode="after")
    def _shares_leave_people(self) -> "GeneratorSettings":
        if self.bots + self.malformed + self.late > SHARE_OF_ALL_MAX:
            raise ValueError(f"--bots, --malformed and --late must be at most {SHARE_OF_ALL_MAX} in sum")
        return self

    @property
    def asked_rate(self) -> float:
        """Events a second to hold; 0 is no limit."""
        return self.rate or (0 if self.events or self.seconds else ENDLESS_RATE)

    @property
    def events_max(self) -> int:
        """Events after which to stop; 0 is never."""
        by_time = round(self.asked_rate * self.seconds)
        return min(self.events, by_time) if self.events and by_time else self.events or by_time

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over HOTPATH_GENERATOR_* over HOTPATH_*."""
        return init_settings, env_settings, _SharedEnvironment(settings_cls, env_prefix="HOTPATH_")


class AppSettings(GeneratorSettings):
    """What `python -m generator.app` takes beside that; the rate is then the one to begin with."""

    rate: float = Field(
        ENDLESS_RATE, ge=0, le=10_000_000, description="events a second to begin with; 0 begins stopped"
    )
    rate_max: float = Field(
        20_000, gt=0, le=100_000, description="events a second that the generator's page may ask for at most"
    )
    host: str = Field("127.0.0.1", description="where the generator's page is served")
    port: int = Field(4000, ge=0, le=65_535, description="its port; 0 takes any free one")
    page_folder: str = Field(
        "dashboard/dist", description="folder of the built pages, relative to the program's"
    )

    @model_validator(mode="after")
    def _begins_within_its_limit(self) -> "AppSettings":
        if self.rate > self.rate_max:
            raise ValueError(f"--rate must be at most --rate-max, {self.rate_max:,.0f}")
        return self


class _SharedEnvironment(EnvSettingsSource):
    """HOTPATH_* for the settings shared with the pipeline, and for no others."""

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name in Settings.model_fields}
