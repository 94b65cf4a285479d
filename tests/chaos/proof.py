"""That the pipeline holds what the log says, at a moment when nothing is under way."""

from tests.chaos.world import World
from tests.support.pipeline import wait_until


class NotProven(AssertionError):
    """The message is what the judge has found."""


def settle(world: World, timeout_s: float = 120) -> None:
    """Wait until Postgres and Redis have all that the topic holds. The load must have been stopped."""

    def settled() -> bool:
        world.tend()
        status = world.status()
        if status is None or world.lag() != 0:
            return False
        logs = [log for worker in status["workers"] for log in worker["logs"]]
        return len(logs) == world.topic.partitions and all(log["applied"] == log["committed"] for log in logs)

    wait_until(settled, "everything is in Postgres and in Redis", timeout_s)


def prove(world: World) -> str:
    """Have everything compared; what the judge said. Raises NotProven."""
    settle(world)
    done = world.command("hotpath.verify")
    if done.returncode:
        raise NotProven(f"{done.stdout}\n{done.stderr}")
    return done.stdout
