"""How far a log's views reach, and what of them may be let go. Pure arithmetic; times in microseconds since 1970."""

from hotpath.settings import PipelineSettings
from hotpath.views import keys
from hotpath.views.store import LogState


def complete_until_us(state: LogState, ended_at_us: int, ended_offset: int, now_us: int) -> int:
    """Until when all events of a log are in its views.

    Either until it was seen at its end (at `ended_at_us` it held nothing at or after `ended_offset`; 0: never), if all
    up to there is applied, or until its watermark: events are taken to come in order but for the late ones.
    """
    behind_us = min(state.watermark_s * 1_000_000, now_us)
    if ended_at_us and state.applied >= ended_offset:
        return max(min(ended_at_us, now_us), behind_us)
    return behind_us


def borders(settings: PipelineSettings, state: LogState, as_of_us: int | None) -> tuple[int, int]:
    """base_step and seen_step as they should be; they never fall.

    What as_of has left behind goes; and also, so that memory stays bounded while some other log holds as_of back, what
    lies `view_lag_max_s` beyond the windows of this log's own watermark.
    """
    reach_us = max(as_of_us or 0, (state.watermark_s - settings.view_lag_max_s) * 1_000_000)
    seen_window_s = max(settings.active_users_window_s, settings.sessions_window_s)
    base_step = keys.window_start(reach_us, settings.top_pages_window_s)
    seen_step = keys.window_start(reach_us, seen_window_s)
    return max(base_step, state.base_step), max(seen_step, state.seen_step)
