// The API's replies, as /openapi.json describes them.

/** What every number is given with. */
export interface Conditions {
  as_of: string;
  lag_events: number;
  /** These are the last good numbers: new ones cannot be read. */
  stale: boolean;
  /** If stale, for how long so; else 0. */
  age_s: number;
}

export interface PageViews {
  page_url: string;
  views: number;
}

export interface UserSessions {
  user_id: string;
  active_sessions: number;
}

export interface Summary extends Conditions {
  /** When the numbers were read, by the server's clock. */
  read_at: string;
  active_users: { value: number; window_s: number; line: { at: string; value: number }[] };
  top_pages: { window_s: number; pages: PageViews[] };
  top_users: { window_s: number; users: UserSessions[] };
  events_per_s: number | null;
  accepted_per_s: number | null;
  workers: { up: number; total: number } | null;
}

export interface SessionsOfUser extends Conditions {
  user_id: string;
  window_s: number;
  active_sessions: number;
  sessions: { session_id: string; last_seen: string }[];
}

export interface Trouble {
  error: { code: string; message: string };
}

export interface Step {
  at: string;
  /** Null, as users are, where counting them would take too long. */
  events: number | null;
  accepted: number;
  page_views: number;
  users: number | null;
}

/** What every number of Postgres is given with. */
export interface Committed {
  as_of: string;
  /** Null while not every worker tells. */
  lag_events: number | null;
}

export interface History extends Committed {
  from: string;
  to: string;
  step_s: number;
  steps: Step[];
  top_pages: PageViews[] | null;
}

export interface Worker {
  worker: number;
  state: string;
  restarts: number;
  logs: { partition: number }[];
  pid?: number | null;
  uptime_s?: number | null;
  heartbeat_age_s?: number | null;
  events_per_s?: number | null;
  lag_events?: number | null;
  redis_lag_events?: number | null;
  ring_used?: number | null;
  ring_slots?: number | null;
  redis_away?: boolean | null;
  kafka_down?: boolean | null;
  back_pressure?: number | null;
  postgres_retries?: number | null;
  redis_heals?: number | null;
  flush_mean_s?: number | null;
  flush_last_s?: number | null;
  routing?: { sampled: number; wrong_key: number; wrong_partition: number } | null;
  cpu_s?: number | null;
  rss_bytes?: number | null;
}

export interface Pipeline {
  state: "up" | "away";
  message: string | null;
  at: string;
  events_per_s: number | null;
  accepted_per_s: number | null;
  workers: Worker[];
}

/** The classes that are not `accepted`, in the order in which a message is asked for them. */
export const REFUSED = [
  "too_large",
  "empty",
  "not_json",
  "not_object",
  "missing_field",
  "wrong_type",
  "bad_value",
  "bad_timestamp",
  "future",
  "late",
  "bot",
] as const;
export type Refused = (typeof REFUSED)[number];
/** Late events are kept whole in a table of their own; all other refused messages are in quarantine. */
export const QUARANTINED = REFUSED.filter((name) => name !== "late");

export type LedgerMinute = { at: string; received: number; accepted: number } & Record<Refused, number>;

export interface Ledger extends Committed {
  from: string;
  to: string;
  step_s: number;
  minutes: LedgerMinute[];
  losses: {
    at: string;
    topic: string;
    partition: number;
    first_offset: number;
    next_offset: number;
    reason: string;
  }[];
}

export interface QuarantineRow {
  stored_at: string;
  topic: string;
  partition: number;
  offset: number;
  class: Refused;
  detail: string;
  payload_size: number;
  /** Base64. */
  payload: string;
  payload_text: string | null;
}

export interface Quarantine extends Committed {
  rows: QuarantineRow[];
  next_cursor: string | null;
}
