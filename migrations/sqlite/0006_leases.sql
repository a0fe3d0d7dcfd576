-- How long a build's worker may be away before the build counts as lost, in
-- microseconds, as it was when the build began: a later master may have other
-- settings, and the worker goes by the lease that it was told.

ALTER TABLE builds ADD COLUMN grace INTEGER NOT NULL DEFAULT 0;

-- How builds of a request were lost with their workers: a JSON list, in order.

ALTER TABLE requests ADD COLUMN losses TEXT;

-- The longer lease that a planned stop of the master gave a worker: how long,
-- in which boot of the machine, and when, in microseconds since that boot. It
-- holds for builds of that incarnation and older ones: a build that the worker
-- has brought back since has a newer one.

ALTER TABLE workers ADD COLUMN grant_lease INTEGER;
ALTER TABLE workers ADD COLUMN grant_boot TEXT;
ALTER TABLE workers ADD COLUMN grant_at INTEGER;
ALTER TABLE workers ADD COLUMN grant_incarnation INTEGER;
