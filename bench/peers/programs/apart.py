"""Bot and late events told apart, for the peers that do: the definition's rules for what stands in one partition.

The rows of a partition must come in the order of their offsets.
"""

from checks import Row

LATE_MAX_S = 300
PAGE_VIEWS_MAX = 10


class Apart:
    """What the classes of later messages of one partition depend on."""

    def __init__(self) -> None:
        self.watermark_s = 0
        self._views: dict[int, dict[str, int]] = {}  # second -> user_id -> accepted page views

    def class_of(self, row: Row) -> str:
        """accepted, bot or late."""
        time, user_id, event_type, _, _ = row
        second = int(time.timestamp())
        if second > self.watermark_s:
            self.watermark_s = second
            for past in [known for known in self._views if known < second - LATE_MAX_S]:
                del self._views[past]
        elif self.watermark_s - second > LATE_MAX_S:
            return "late"
        if event_type != "page_view":
            return "accepted"
        views = self._views.setdefault(second, {})
        seen = views.get(user_id, 0)
        if seen >= PAGE_VIEWS_MAX:
            return "bot"
        views[user_id] = seen + 1
        return "accepted"
