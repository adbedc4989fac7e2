-- Times are milliseconds since 1970 in UTC; ids are UUIDs as text. PostgreSQL has the same columns under
-- the same number.

CREATE TABLE deliveries (
    id                TEXT    NOT NULL PRIMARY KEY,
    plan              TEXT    NOT NULL,
    event             TEXT    NOT NULL,
    -- The identity's id for identity.created, the trigger id for all others.
    unique_key        TEXT    NOT NULL,
    identity_id       TEXT    NOT NULL,
    -- JSON. NULL once it has arrived, so that no personal data stays, and where it could not be built.
    request           TEXT,
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'abandoned')),
    -- Whether a worker has it; then run_at is the end of its lease, else the time of the next try.
    leased            INTEGER NOT NULL CHECK (leased IN (0, 1)),
    run_at            INTEGER NOT NULL,
    attempts          INTEGER NOT NULL,
    keep_trying_until INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    settled_at        INTEGER,
    last_error        TEXT,
    last_status       INTEGER,
    UNIQUE (plan, unique_key)
) STRICT;

-- What is due, plan by plan.
CREATE INDEX deliveries_due ON deliveries (plan, run_at) WHERE state = 'pending';

-- How much is pending or abandoned, and since when.
CREATE INDEX deliveries_unfinished ON deliveries (state, created_at) WHERE state <> 'delivered';

CREATE TABLE decisions (
    id          INTEGER NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL,
    flow_id     TEXT    NOT NULL,
    flow        TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    duration_ms INTEGER NOT NULL,
    -- JSON: a list of checks with their outcomes, never a value.
    checks      TEXT    NOT NULL
) STRICT;
