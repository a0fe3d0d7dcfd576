-- A note may have a beginning and an end (`pinging`, which becomes `ping
-- success`): one row, whose text is the end's once it has ended. A moment has
-- ended when it began. What an earlier master began has no end any more.

ALTER TABLE notes ADD COLUMN ended_at INTEGER;
UPDATE notes SET ended_at = at;
CREATE INDEX notes_worker ON notes (worker_id) WHERE worker_id IS NOT NULL;
