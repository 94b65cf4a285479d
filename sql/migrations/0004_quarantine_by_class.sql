-- The latest rows of one class are asked for by people; without this index, of a rare class the whole table is read.

create index quarantine_class_stored_at on quarantine (class, stored_at);
