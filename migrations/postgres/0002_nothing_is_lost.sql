-- As in migrations/sqlite under the same number.
ALTER TABLE deliveries RENAME COLUMN request TO work;
ALTER TABLE deliveries ADD COLUMN scene TEXT;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_state_check;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_state_known
    CHECK (state IN ('pending', 'delivered', 'abandoned', 'discarded'));
DROP INDEX deliveries_unfinished;
CREATE INDEX deliveries_unfinished ON deliveries (state, created_at) WHERE state IN ('pending', 'abandoned');
CREATE INDEX deliveries_of_identity ON deliveries (identity_id) WHERE work IS NOT NULL;

-- Each try at a delivery.
CREATE TABLE attempts (
    delivery_id TEXT    NOT NULL,
    attempt     BIGINT NOT NULL,
    began_at    BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    status      BIGINT,
    error       TEXT,
    PRIMARY KEY (delivery_id, attempt)
);

-- The yeses of `pre`, until `post` closes them (then the row goes) or a look-up tells what became of them.
CREATE TABLE journal (
    flow_id     TEXT    NOT NULL PRIMARY KEY,
    flow        TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    -- The last moment on Kratos's clock at which there was no account yet.
    asked_at    BIGINT NOT NULL,
    opened_at   BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    -- JSON: how the account could be found, what was deferred, what deliveries may read. NULL once it is known what became of it.
    entry       TEXT,
    state       TEXT    NOT NULL CHECK (state IN ('open', 'never_created', 'undecided')),
    -- The next look-up, or the end of the lease of whoever is looking.
    look_at     BIGINT NOT NULL,
    looks       BIGINT NOT NULL
);
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
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX reservations_open ON reservations (flow_id, check_name) WHERE state IN ('taking', 'taken');
CREATE INDEX reservations_of_flow ON reservations (flow_id);
CREATE INDEX reservations_expiring ON reservations (expires_at);

-- Whose turn it is, where only one may do something at a time.
CREATE TABLE turns (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder TEXT    NOT NULL,
    until  BIGINT NOT NULL
);

-- What the program knows about itself.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
