-- A registration flow can be submitted many times, and each submission that Kratos saves makes an identity. So the flow and
-- its submissions are recorded apart.
CREATE TABLE flows (
    flow_id     TEXT    NOT NULL PRIMARY KEY,
    flow        TEXT    NOT NULL,
    -- The external_id that `pre` answered. NULL: none.
    external_id TEXT,
    -- The identity that the sign-up became: with the one-identity guard no other can come of the flow. NULL while it is open.
    identity_id TEXT,
    expires_at  BIGINT NOT NULL,
    -- When the newest submission was accepted.
    newest_at   BIGINT NOT NULL,
    -- The next look-up, or the end of the lease of the instance that looks it up. NULL: there is none.
    look_at     BIGINT,
    lookups     BIGINT NOT NULL
);
CREATE INDEX flows_due ON flows (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX flows_by_external_id ON flows (external_id) WHERE identity_id IS NULL AND external_id IS NOT NULL;
CREATE INDEX flows_expiring ON flows (expires_at);

-- Accepted submissions. They go with their flow, and when the flow is closed.
CREATE TABLE pending_sign_ups (
    flow_id                TEXT    NOT NULL,
    -- The trigger id of the call, so that Kratos's retries are one submission.
    submission             TEXT    NOT NULL,
    flow                   TEXT    NOT NULL,
    method                 TEXT    NOT NULL,
    traits_hash            TEXT    NOT NULL,
    transient_payload_hash TEXT    NOT NULL,
    -- Whether `pre` answered our external_id.
    guarded                BIGINT NOT NULL CHECK (guarded IN (0, 1)),
    -- The last moment on Kratos's clock at which the identity did not exist.
    absent_at              BIGINT NOT NULL,
    accepted_at            BIGINT NOT NULL,
    expires_at             BIGINT NOT NULL,
    state                  TEXT    NOT NULL CHECK (state IN ('open', 'never_created', 'undecided', 'attributed')),
    -- The identity that came of it, where it is attributed.
    identity_id            TEXT,
    -- JSON: how the identity can be found, what was deferred and reserved, what deliveries may read. NULL once it is attributed.
    details                TEXT,
    PRIMARY KEY (flow_id, submission)
);

-- What was accepted before this version has no hash; it is found by look-ups.
INSERT INTO flows (flow_id, flow, expires_at, newest_at, look_at, lookups)
SELECT flow_id, flow, expires_at, opened_at, look_at, looks FROM journal WHERE state = 'open';
INSERT INTO pending_sign_ups
    (flow_id, submission, flow, method, traits_hash, transient_payload_hash, guarded, absent_at, accepted_at, expires_at, state,
     details)
SELECT flow_id, 'journal', flow, method, '', '', 0, asked_at, opened_at, expires_at, 'open', entry
FROM journal WHERE state = 'open';
DROP TABLE journal;

-- Several submissions of a flow may use one reservation, and a flow may have several of one check.
ALTER TABLE reservations ADD COLUMN submission TEXT NOT NULL DEFAULT '';
-- Until then a `pre` that uses it may still be running.
ALTER TABLE reservations ADD COLUMN in_use_until BIGINT NOT NULL DEFAULT 0;
DROP INDEX reservations_open;
CREATE UNIQUE INDEX reservations_open ON reservations (flow_id, check_name, asked) WHERE state IN ('taking', 'taken');
CREATE INDEX reservations_unfinished ON reservations (in_use_until) WHERE state IN ('taking', 'taken');
