"""The proof that `hotpath verify` makes: Kafka's log against everything that was made of it.

plan              which logs, from where to where, under which rules
messages          reads the log
snapshot          one moment of Postgres, and its rows streamed in the order of the log
stages            the pipeline's own stages, from a known state on
second_opinion    the plain reference beside them
log_proof         one log: all of the above, chunk by chunk, and then
  event_rows        `events`, `late_events`
  quarantine_rows   `quarantine`
  ledger            `ledger`, `partition_state`
  bot_activity      `bot_activity`
  history           `history_minutes`; `history_pages` once, for all logs
view_proof        the live views in Redis
findings          differences, and what could not be proven
report            the result for people
"""
