-- What was expected of builds and of requests that waited. How far off it was
-- follows from the rows of builds and requests. Spans are in microseconds.

CREATE TABLE predictions (
    build_id INTEGER PRIMARY KEY,
    learnt   INTEGER NOT NULL,                   -- builds learnt from until then, ever
    low      INTEGER NOT NULL,
    likely   INTEGER NOT NULL,
    high     INTEGER NOT NULL
) STRICT;

CREATE TABLE request_predictions (
    request_id   INTEGER PRIMARY KEY,
    at           INTEGER NOT NULL,               -- when it was worked out
    start_low    INTEGER NOT NULL,               -- from `at` on
    start_likely INTEGER NOT NULL,
    start_high   INTEGER NOT NULL,
    end_low      INTEGER NOT NULL,
    end_likely   INTEGER NOT NULL,
    end_high     INTEGER NOT NULL
) STRICT;
