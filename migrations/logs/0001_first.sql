-- The text of logs, in chunks that are written once and never changed.

CREATE TABLE chunks (
    id         INTEGER PRIMARY KEY,
    log_id     INTEGER NOT NULL,
    first      INTEGER NOT NULL,   -- position of its first byte in the log
    length     INTEGER NOT NULL,   -- bytes of text
    worker_end INTEGER NOT NULL,   -- bytes of the worker's up to its end
    first_line INTEGER NOT NULL,   -- lines that ended before it
    lines      INTEGER NOT NULL,   -- lines that end in it
    carry      BLOB    NOT NULL,   -- per channel, where the line that is open after it begins
    size       INTEGER NOT NULL,   -- bytes of its segments before compression
    crc        INTEGER NOT NULL,   -- over all of the above and the body
    body       BLOB    NOT NULL    -- its segments, zstd
) STRICT;
CREATE UNIQUE INDEX chunks_first ON chunks (log_id, first);
CREATE INDEX chunks_line ON chunks (log_id, first_line, first);

-- Logs that went beyond the limit: what is cut off is counted here.
CREATE TABLE overlong (
    log_id     INTEGER PRIMARY KEY,
    worker_end INTEGER NOT NULL    -- bytes of the worker's that arrived, kept or not
) STRICT;
