-- A delivery may be discarded, may have something to be read beside its answer, and is more than a request. SQLite changes no
-- constraint of a table, so the table is made anew.
CREATE TABLE deliveries_2 (
    id                TEXT    NOT NULL PRIMARY KEY,
    plan              TEXT    NOT NULL,
    event             TEXT    NOT NULL,
    unique_key        TEXT    NOT NULL,
    -- All zeros where no identity came of it.
    identity_id       TEXT    NOT NULL,
    -- JSON: what is to be done. NULL once it is done or discarded, so that no personal data stays, and where it could not be built.
    work              TEXT,
    -- JSON: what expressions about the answer may read. NULL likewise, and where there are none.
    scene             TEXT,
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'abandoned', 'discarded')),
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
INSERT INTO deliveries_2
    (id, plan, event, unique_key, identity_id, work, state, leased, run_at, attempts, keep_trying_until, created_at, settled_at,
     last_error, last_status)
SELECT id, plan, event, unique_key, identity_id, request, state, leased, run_at, attempts, keep_trying_until, created_at, settled_at,
    last_error, last_status
FROM deliveries;
DROP TABLE deliveries;
ALTER TABLE deliveries_2 RENAME TO deliveries;

CREATE INDEX deliveries_due ON deliveries (plan, run_at) WHERE state = 'pending';
CREATE INDEX deliveries_unfinished ON deliveries (state, created_at) WHERE state IN ('pending', 'abandoned');
-- What is stored about one identity.
CREATE INDEX deliveries_of_identity ON deliveries (identity_id) WHERE work IS NOT NULL;

-- Each try at a delivery.
CREATE TABLE attempts (
    delivery_id TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    began_at    INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,
    error       TEXT,
    PRIMARY KEY (delivery_id, attempt)
) STRICT;

-- The yeses of `pre`, until `post` closes them (then the row goes) or a look-up tells what became of them.
CREATE TABLE journal (
    flow_id     TEXT    NOT NULL PRIMARY KEY,
    flow        TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    -- The last moment on Kratos's clock at which there was no account yet.
    asked_at    INTEGER NOT NULL,
    opened_at   INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    -- JSON: how the account could be found, what was deferred, what deliveries may read. NULL once it is known what became of it.
    entry       TEXT,
    state       TEXT    NOT NULL CHECK (state IN ('open', 'never_created', 'undecided')),
    -- The next look-up, or the end of the lease of whoever is looking.
    look_at     INTEGER NOT NULL,
    looks       INTEGER NOT NULL
) STRICT;
CREATE INDEX journal_due ON journal (look_at) WHERE state = 'open';
CREATE INDEX journal_closed ON journal (expires_at) WHERE state <> 'open';

-- What was taken from a service for a flow.
CREATE TABLE reservations (
    -- Also the Idempotency-Key of taking it.
    id         TEXT    NOT NULL PRIMARY KEY,
    flow_id    TEXT    NOT NULL,
    check_name TEXT    NOT NULL,
    -- A hash of what was asked for, so that another value is another reservation.
    asked      TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('taking', 'taken', 'confirmed', 'released')),
    -- JSON: the request that takes it, its answer, and what confirming and releasing may read. NULL once that is under way.
    details    TEXT,
    because    TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX reservations_open ON reservations (flow_id, check_name) WHERE state IN ('taking', 'taken');
CREATE INDEX reservations_of_flow ON reservations (flow_id);
CREATE INDEX reservations_expiring ON reservations (expires_at);

-- Whose turn it is, where only one may do something at a time.
CREATE TABLE turns (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL
) STRICT;

-- What the program knows about itself.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
