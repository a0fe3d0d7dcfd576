-- Instances of latent workers, from the wish for one until it is gone. A row is
-- there before the provider is asked for anything, so that none is forgotten.

CREATE TABLE instances (
    tag         TEXT    PRIMARY KEY,    -- given to the provider; says whose it is
    worker_id   INTEGER NOT NULL,
    state       INTEGER NOT NULL,       -- 0 wished, 1 created, 2 to be destroyed
    provider_id TEXT,                   -- the provider's own name for it
    wished_at   INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
