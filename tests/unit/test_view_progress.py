"""How far a log's views reach, and what of them may go."""

from dataclasses import replace

from hotpath.settings import PipelineSettings
from hotpath.views.progress import borders, complete_until_us
from hotpath.views.store import LogState

SECOND_US = 1_000_000
NOON_S = 1_710_504_000
NOON_US = NOON_S * SECOND_US
STATE = LogState(
    generation=1, applied=100, base_step=0, seen_step=0, watermark_s=NOON_S, complete_until_us=0, log_end=100
)


def test_a_log_seen_at_its_end_is_complete_until_then():
    assert complete_until_us(STATE, NOON_US + 50, 100, NOON_US + 90) == NOON_US + 50


def test_an_end_that_is_not_applied_yet_promises_nothing():
    assert complete_until_us(STATE, NOON_US + 50, 101, NOON_US + 90) == NOON_US


def test_a_log_behind_is_complete_until_its_watermark():
    assert complete_until_us(STATE, 0, 0, NOON_US + 90 * SECOND_US) == NOON_US


def test_no_log_is_complete_beyond_now():
    now_us = NOON_US - 30 * SECOND_US
    assert complete_until_us(STATE, 0, 0, now_us) == now_us
    assert complete_until_us(STATE, NOON_US, 100, now_us) == now_us


def test_windows_begin_where_as_of_says():
    base_step, seen_step = borders(PipelineSettings(), STATE, NOON_US)
    assert (base_step, seen_step) == (NOON_S // 10 - 90, NOON_S // 10 - 30)


def test_the_longer_window_of_users_and_sessions_is_kept():
    settings = PipelineSettings(sessions_window_s=600)
    assert borders(settings, STATE, NOON_US)[1] == NOON_S // 10 - 60


def test_borders_never_move_back():
    far = replace(STATE, base_step=NOON_S, seen_step=NOON_S)
    assert borders(PipelineSettings(), far, NOON_US) == (NOON_S, NOON_S)


def test_a_log_does_not_grow_for_ever_while_another_holds_as_of_back():
    settings = PipelineSettings(view_lag_max_s=1_000)
    base_step, seen_step = borders(settings, STATE, NOON_US - 86_400 * SECOND_US)
    assert (base_step, seen_step) == (NOON_S // 10 - 100 - 90, NOON_S // 10 - 100 - 30)
    assert borders(settings, STATE, None) == (base_step, seen_step)
