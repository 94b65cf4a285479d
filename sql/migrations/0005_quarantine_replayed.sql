-- A message in quarantine may be sent again, once.

alter table quarantine add column replayed_at timestamptz;
comment on column quarantine.replayed_at is
    'When the message was sent again by an operator (or was about to be: it is set first); null when it was not.';
