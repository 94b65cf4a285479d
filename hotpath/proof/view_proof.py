"""Compares the live views in Redis with what the log says.

Redis does not stand still and has no snapshots. So it is read first, log by log, each between two looks at what is
applied; then comes Postgres's snapshot, and the log is read up to there. Redis never holds what Postgres has not
committed: whatever was read lies below the snapshot's next_offset. What was applied between the two looks may be in
what was read or not, and nothing else may (see views/compare.py). Nothing has to be stopped, and nothing to be tried
again but the reading of a log that was rebuilt meanwhile.

What was read waits in a temporary file, so that memory holds one log at a time.
"""

import pickle
import tempfile
from collections.abc import Sequence

from hotpath.errors import ConfigError
from hotpath.proof.findings import Findings
from hotpath.settings import PipelineSettings
from hotpath.views import keys, link
from hotpath.views.compare import Expected, compare
from hotpath.views.contents import Found, read_log

TIMEOUT_S = 10.0


class ViewProof:
    """`read` comes before the snapshot is taken."""

    def __init__(self, settings: PipelineSettings, findings: Findings) -> None:
        """Raises ConfigError when the URL is none."""
        self._prefix = settings.redis_prefix
        self._findings = findings
        self._file = tempfile.TemporaryFile(prefix="hotpath-verify-")  # noqa: SIM115
        self._places: dict[int, int] = {}
        self._listed: dict[str, str] = {}
        try:
            self._client = link.connect(settings.redis_url, TIMEOUT_S)
        except ValueError as error:
            raise ConfigError(f"HOTPATH_REDIS_URL cannot be used: {error}") from None

    def close(self) -> None:
        self._client.close()
        self._file.close()

    def read(self, logs: Sequence[tuple[int, str]]) -> None:
        """Read the views of these logs: (log_id, topic/partition). Raises redis' errors and Unavailable."""
        self._listed = self._list()
        for log_id, log in logs:
            self._places[log_id] = self._file.tell()
            pickle.dump(read_log(self._client, self._prefix, log_id, log), self._file)

    def of(self, log_id: int) -> Found | None:
        """What was read of a log; None when its views do not count."""
        if log_id not in self._places:
            return None
        self._file.seek(self._places[log_id])
        return pickle.load(self._file)

    def compare(self, found: Found, expected: Expected, partition: int) -> None:
        """Compare what was read of a log with what it must hold."""
        self._findings.check("views", len(found.users) + len(found.sessions) + len(found.page_views))
        for each in compare(found, expected):
            self._findings.differ(
                "views", partition, None, f"{each.view} of {each.key}", each.expected, each.found
            )

    def compare_list(self, open_logs: dict[int, str]) -> None:
        """Compare the list of logs with `open_logs` (log_id -> topic/partition): readers sum up over those listed."""
        wanted = {str(log_id): log for log_id, log in open_logs.items()}
        if self._listed != wanted:
            self._listed = (
                self._list()
            )  # a log that was new between the reading and the snapshot is there by now
        for log_id in sorted(wanted.keys() | self._listed.keys()):
            expected, found = wanted.get(log_id, "none"), self._listed.get(log_id, "none")
            if expected != found:
                self._findings.differ("views", None, None, f"list of logs, log {log_id}", expected, found)

    def _list(self) -> dict[str, str]:
        name = keys.logs(self._prefix)
        if self._client.type(name) != b"hash":
            return {}
        return {log_id.decode(): log.decode() for log_id, log in self._client.hgetall(name).items()}
