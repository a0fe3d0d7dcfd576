-- What the Data API tells of beside builds: projects, changes, schedulers,
-- codebases, data and test results of builds. Times are microseconds since
-- 1970 UTC; booleans 0 or 1.

CREATE TABLE projects (
    id                 INTEGER PRIMARY KEY,
    name               TEXT NOT NULL UNIQUE,
    slug               TEXT NOT NULL,
    description        TEXT,
    description_format TEXT,
    description_html   TEXT
) STRICT;

ALTER TABLE builders ADD COLUMN project_id INTEGER;
ALTER TABLE builders ADD COLUMN description_format TEXT;
ALTER TABLE builders ADD COLUMN description_html TEXT;

ALTER TABLE steps ADD COLUMN locks_acquired_at INTEGER;          -- null: when it started
ALTER TABLE steps ADD COLUMN urls TEXT NOT NULL DEFAULT '[]';    -- JSON list of name and url
ALTER TABLE steps ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;

CREATE TABLE patches (
    id      INTEGER PRIMARY KEY,
    level   INTEGER NOT NULL,
    subdir  TEXT    NOT NULL,
    author  TEXT    NOT NULL,
    comment TEXT    NOT NULL,
    body    TEXT    NOT NULL
) STRICT;
ALTER TABLE sourcestamps ADD COLUMN patch_id INTEGER;

ALTER TABLE buildsets ADD COLUMN parent_build INTEGER;
ALTER TABLE buildsets ADD COLUMN parent_relationship TEXT;
CREATE INDEX buildsets_parent ON buildsets (parent_build) WHERE parent_build IS NOT NULL;

-- Which buildsets have a source stamp, for the builds of a change. The list in
-- the buildset's own row gives the order; this one is kept beside it.
CREATE TABLE buildset_stamps (
    stamp_id    INTEGER NOT NULL,
    buildset_id INTEGER NOT NULL,
    PRIMARY KEY (stamp_id, buildset_id)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO buildset_stamps
    SELECT stamp.value, buildsets.id FROM buildsets, json_each(buildsets.sourcestamps) AS stamp;
CREATE TRIGGER buildset_stamps_kept AFTER INSERT ON buildsets BEGIN
    INSERT OR IGNORE INTO buildset_stamps
        SELECT value, NEW.id FROM json_each(NEW.sourcestamps);
END;

CREATE TABLE changes (
    id         INTEGER PRIMARY KEY,
    parents    TEXT    NOT NULL DEFAULT '[]',    -- JSON list of change ids
    author     TEXT    NOT NULL,
    committer  TEXT,
    files      TEXT    NOT NULL DEFAULT '[]',    -- JSON list of texts
    comments   TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    category   TEXT,
    revlink    TEXT,
    properties TEXT    NOT NULL DEFAULT '{}',    -- JSON object
    stamp_id   INTEGER NOT NULL
) STRICT;
CREATE INDEX changes_stamp ON changes (stamp_id);

-- As they are shown: with their source stamps.
CREATE VIEW changes_shown AS
    SELECT c.id, c.parents, c.author, c.committer, c.files, c.comments, c.at, c.category,
           c.revlink, c.properties, c.stamp_id, s.revision, s.branch, s.repository, s.project,
           s.codebase
    FROM changes c JOIN sourcestamps s ON s.id = c.stamp_id;

CREATE TABLE change_sources (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    configured INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE schedulers (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    enabled    INTEGER NOT NULL DEFAULT 1,
    configured INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE build_data (
    id       INTEGER PRIMARY KEY,
    build_id INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    source   TEXT    NOT NULL,
    value    BLOB    NOT NULL,
    UNIQUE (build_id, name)
) STRICT;

CREATE TABLE test_result_sets (
    id           INTEGER PRIMARY KEY,
    builder_id   INTEGER NOT NULL,
    build_id     INTEGER NOT NULL,
    step_id      INTEGER NOT NULL,
    description  TEXT,
    category     TEXT    NOT NULL,
    value_unit   TEXT    NOT NULL,
    tests_passed INTEGER,
    tests_failed INTEGER,
    complete     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX test_result_sets_builder ON test_result_sets (builder_id);
CREATE INDEX test_result_sets_build ON test_result_sets (build_id);
CREATE INDEX test_result_sets_step ON test_result_sets (step_id);

CREATE TABLE test_results (
    id          INTEGER PRIMARY KEY,
    builder_id  INTEGER NOT NULL,
    set_id      INTEGER NOT NULL,
    name        TEXT,
    code_path   TEXT,
    line        INTEGER,
    duration_ns INTEGER,
    value       TEXT NOT NULL
) STRICT;
CREATE INDEX test_results_set ON test_results (set_id);

CREATE TABLE codebases (
    id         INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    slug       TEXT    NOT NULL,
    UNIQUE (project_id, name)
) STRICT;

CREATE TABLE commits (
    id          INTEGER PRIMARY KEY,
    codebase_id INTEGER NOT NULL,
    author      TEXT    NOT NULL,
    committer   TEXT,
    comments    TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    revision    TEXT    NOT NULL,
    parent_id   INTEGER,
    UNIQUE (codebase_id, revision)
) STRICT;

CREATE TABLE branches (
    id          INTEGER PRIMARY KEY,
    codebase_id INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    commit_id   INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    UNIQUE (codebase_id, name)
) STRICT;

-- What belongs to a build or a buildset goes with it.
CREATE TRIGGER builds_gone AFTER DELETE ON builds BEGIN
    DELETE FROM build_data WHERE build_id = OLD.id;
    DELETE FROM test_results
        WHERE set_id IN (SELECT id FROM test_result_sets WHERE build_id = OLD.id);
    DELETE FROM test_result_sets WHERE build_id = OLD.id;
END;
CREATE TRIGGER buildsets_gone AFTER DELETE ON buildsets BEGIN
    DELETE FROM buildset_stamps WHERE buildset_id = OLD.id
        AND stamp_id IN (SELECT value FROM json_each(OLD.sourcestamps));
END;
