-- The first schema. Times are microseconds since 1970 UTC; booleans 0 or 1;
-- results the Data API's numbers, null while there is none.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE builders (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    description  TEXT,
    tags         TEXT    NOT NULL,               -- JSON list
    configured   INTEGER NOT NULL,
    last_number  INTEGER NOT NULL DEFAULT 0,     -- build number given last
    expectations TEXT
) STRICT;

CREATE TABLE workers (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    configured   INTEGER NOT NULL,
    connected    INTEGER NOT NULL DEFAULT 0,
    incarnation  INTEGER NOT NULL DEFAULT 0,
    info         TEXT    NOT NULL DEFAULT '{}',  -- JSON object of texts
    paused       INTEGER NOT NULL DEFAULT 0,
    pause_reason TEXT,
    graceful     INTEGER NOT NULL DEFAULT 0,
    last_seen    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE builder_workers (
    builder_id INTEGER NOT NULL,
    place      INTEGER NOT NULL,
    worker_id  INTEGER NOT NULL,
    PRIMARY KEY (builder_id, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE factories (
    digest TEXT PRIMARY KEY,
    steps  TEXT NOT NULL                         -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE sourcestamps (
    id         INTEGER PRIMARY KEY,
    digest     TEXT    NOT NULL UNIQUE,          -- of the content: equal stamps share a row
    codebase   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    branch     TEXT,
    revision   TEXT,
    project    TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE buildsets (
    id              INTEGER PRIMARY KEY,
    external_id     TEXT,
    idempotency_key TEXT,
    reason          TEXT    NOT NULL,
    scheduler       TEXT    NOT NULL,
    submitted_at    INTEGER NOT NULL,
    complete_at     INTEGER,
    results         INTEGER,
    rebuilt_build   INTEGER,
    sourcestamps    TEXT    NOT NULL,            -- JSON list of sourcestamp ids
    properties      TEXT    NOT NULL,            -- JSON object
    open_requests   INTEGER NOT NULL             -- requests not complete yet
) STRICT;
CREATE INDEX buildsets_submitted ON buildsets (submitted_at);
CREATE UNIQUE INDEX buildsets_key ON buildsets (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX buildsets_rebuilt ON buildsets (rebuilt_build) WHERE rebuilt_build IS NOT NULL;

CREATE TABLE requests (
    id           INTEGER PRIMARY KEY,
    buildset_id  INTEGER NOT NULL,
    builder_id   INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    state        INTEGER NOT NULL,               -- 0 queued, 1 claimed, 2 done, 3 cancelled
    epoch        INTEGER NOT NULL DEFAULT 0,
    claimed_at   INTEGER,
    complete_at  INTEGER,
    results      INTEGER,
    requeued     INTEGER NOT NULL DEFAULT 0,
    infra_tries  INTEGER NOT NULL DEFAULT 0,
    waited_for   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX requests_buildset ON requests (buildset_id);
CREATE INDEX requests_builder ON requests (builder_id);
CREATE INDEX requests_submitted ON requests (submitted_at);
-- After the one of all requests: SQLite takes the later of two that seem equal.
CREATE INDEX requests_queued ON requests (builder_id) WHERE state = 0;

CREATE TABLE builds (
    -- An unclaimed build's row goes away; its id must still never come again,
    -- because a worker may hold a journal under it.
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    claim          TEXT    NOT NULL,             -- 32 hexadecimal digits
    builder_id     INTEGER NOT NULL,
    number         INTEGER,
    request_id     INTEGER NOT NULL,             -- the oldest of its requests
    worker_id      INTEGER NOT NULL,
    incarnation    INTEGER NOT NULL,
    state          INTEGER NOT NULL,             -- 0 claimed, 1 running, 2 finished
    started_at     INTEGER NOT NULL,
    complete_at    INTEGER,
    results        INTEGER,
    state_string   TEXT    NOT NULL,
    factory_digest TEXT    NOT NULL,
    properties     TEXT    NOT NULL              -- JSON object
) STRICT;
-- Builds that are only claimed are not shown, so the indexes for those who
-- read have a build from its start on, and only then.
CREATE UNIQUE INDEX builds_number ON builds (builder_id, number) WHERE number IS NOT NULL;
CREATE INDEX builds_started ON builds (started_at) WHERE number IS NOT NULL;
CREATE INDEX builds_open ON builds (builder_id, claim) WHERE state < 2;
CREATE INDEX builds_worker ON builds (worker_id);

CREATE TABLE build_requests (
    build_id   INTEGER NOT NULL,
    request_id INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    PRIMARY KEY (build_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX build_requests_request ON build_requests (request_id);

CREATE TABLE steps (
    id           INTEGER PRIMARY KEY,
    build_id     INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    started_at   INTEGER,
    complete_at  INTEGER,
    results      INTEGER,
    state_string TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX steps_number ON steps (build_id, number);

CREATE TABLE logs (
    id         INTEGER PRIMARY KEY,
    step_id    INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    slug       TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    complete   INTEGER NOT NULL DEFAULT 0,
    num_lines  INTEGER NOT NULL DEFAULT 0,
    length     INTEGER NOT NULL DEFAULT 0,
    inline     BLOB,                             -- the whole text, when it is short
    incomplete TEXT
) STRICT;
CREATE INDEX logs_step ON logs (step_id);

CREATE TABLE notes (
    id         INTEGER PRIMARY KEY,
    builder_id INTEGER NOT NULL,
    worker_id  INTEGER,
    text       TEXT    NOT NULL,
    error      TEXT,
    at         INTEGER NOT NULL
) STRICT;
CREATE INDEX notes_builder ON notes (builder_id);
