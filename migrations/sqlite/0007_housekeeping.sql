-- What the housekeeping needs: how much text a build's logs still have, so that
-- it is found without reading them, and logs whose rows are gone and whose text
-- has to follow.

ALTER TABLE builds ADD COLUMN text_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE builds SET text_bytes = (
    SELECT coalesce(sum(max(l.length, 1)), 0)
    FROM steps s JOIN logs l ON l.step_id = s.id WHERE s.build_id = builds.id
) WHERE state = 2;
CREATE INDEX builds_text ON builds (builder_id, number, text_bytes) WHERE text_bytes > 0;

CREATE TABLE removed_logs (
    log_id INTEGER PRIMARY KEY
) STRICT;
