"""What a peer's program is told by its environment: where Kafka, Postgres and Redis are, and what is its own there."""

import json
import os

BOOTSTRAP = os.environ["PEER_KAFKA_BOOTSTRAP"]
KAFKA_OPTIONS: dict[str, str] = json.loads(os.environ["PEER_KAFKA_OPTIONS"])
TOPIC = os.environ["PEER_TOPIC"]
GROUP = os.environ["PEER_GROUP"]
POSTGRES: dict[str, str] = json.loads(os.environ["PEER_POSTGRES"])
"""Connection parameters as libpq names them."""
REDIS_URL = os.environ["PEER_REDIS_URL"]
PREFIX = os.environ["PEER_PREFIX"]
"""First part of every key in Redis."""
COLUMNS = "log_id, kafka_offset, ts, user_id, event_type, page_url, session_id"
