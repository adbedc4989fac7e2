-- Times are milliseconds since 1970 in UTC; ids are UUIDs as text. PostgreSQL has the same tables and columns.

-- The outbox.
CREATE TABLE deliveries (
    id                TEXT    NOT NULL PRIMARY KEY,
    -- A subscription's name, or the queue of another kind of delivery, such as `write-back:crm`.
    subscription      TEXT    NOT NULL,
    event             TEXT    NOT NULL,
    -- The identity's id for identity.created and with `once`, the trigger id for all others.
    unique_key        TEXT    NOT NULL,
    -- All zeros if no identity was created.
    identity_id       TEXT    NOT NULL,
    -- JSON: what the delivery does. NULL once it is delivered, superseded or discarded, so that no personal data stays, and if
    -- there is nothing to do.
    action            TEXT,
    -- JSON: what expressions about the response may read. NULL likewise, and if there are none.
    context           TEXT,
    state             TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'abandoned', 'discarded', 'superseded')),
    -- Whether a dispatcher has leased the delivery. If so, run_at is the end of the lease, otherwise the time of the next attempt.
    leased            INTEGER NOT NULL CHECK (leased IN (0, 1)),
    run_at            INTEGER NOT NULL,
    attempts          INTEGER NOT NULL,
    keep_trying_until INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    settled_at        INTEGER,
    last_error        TEXT,
    -- Why it is abandoned, if not because its attempts failed.
    reason            TEXT    CHECK (reason IN ('not_built')),
    last_status       INTEGER,
    -- When Kratos saved the identity, in microseconds since 1970, as exact as Kratos has it. Deliveries of one subscription to
    -- one identity go one at a time, in this order and then in that of their ids. NULL: not ordered.
    ordered_at        INTEGER,
    -- Whether the delivery supersedes earlier ones that are marked too.
    supersedes        INTEGER NOT NULL DEFAULT 0 CHECK (supersedes IN (0, 1)),
    -- Whether a dispatcher has found that the delivery waits for another one of its subscription and identity. When that one
    -- ends, this becomes 0.
    waiting           INTEGER NOT NULL DEFAULT 0 CHECK (waiting IN (0, 1)),
    UNIQUE (subscription, unique_key)
) STRICT;
-- The due deliveries of a subscription, without those that wait for another one.
CREATE INDEX deliveries_due ON deliveries (subscription, run_at) WHERE state = 'pending' AND waiting = 0;
-- The pending deliveries of a subscription to an identity, in their order.
CREATE INDEX deliveries_in_order ON deliveries (subscription, identity_id, ordered_at, id)
    WHERE state = 'pending' AND ordered_at IS NOT NULL;
-- One at a time, whatever several instances do.
CREATE UNIQUE INDEX deliveries_in_flight ON deliveries (subscription, identity_id) WHERE leased = 1 AND ordered_at IS NOT NULL;
-- The backlog: how many deliveries are pending or abandoned, and since when.
CREATE INDEX deliveries_unfinished ON deliveries (state, created_at) WHERE state IN ('pending', 'abandoned');
-- The payloads that are kept about an identity.
CREATE INDEX deliveries_of_identity ON deliveries (identity_id) WHERE action IS NOT NULL;
-- All deliveries about an identity, for erasure, and those of a subscription.
CREATE INDEX deliveries_all_of_identity ON deliveries (identity_id, subscription);

-- The identities to which a subscription with `once` has sent. Kept until the identity is erased.
CREATE TABLE sent_once (
    identity_id  TEXT NOT NULL,
    subscription TEXT NOT NULL,
    PRIMARY KEY (identity_id, subscription)
) STRICT;

-- The attempts at each delivery.
CREATE TABLE attempts (
    delivery_id TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    began_at    INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,
    error       TEXT,
    PRIMARY KEY (delivery_id, attempt)
) STRICT;

-- The decisions of `pre`.
CREATE TABLE decisions (
    id          INTEGER NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL,
    flow_id     TEXT    NOT NULL,
    flow        TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    duration_ms INTEGER NOT NULL,
    -- JSON: a list of checks with their outcomes, never a value.
    checks      TEXT    NOT NULL,
    -- The identity that the sign-up has become, or that was changed. NULL: none, unknown, or erased.
    identity_id TEXT
) STRICT;
CREATE INDEX decisions_of_flow ON decisions (flow_id);
CREATE INDEX decisions_of_identity ON decisions (identity_id) WHERE identity_id IS NOT NULL;

-- Flows with an accepted submission. A registration flow can be submitted many times, and each submission that Kratos saves
-- creates an identity. So flows and submissions are separate tables.
CREATE TABLE flows (
    flow_id     TEXT    NOT NULL PRIMARY KEY,
    flow        TEXT    NOT NULL,
    -- The external_id in the response of `pre`. NULL: none.
    external_id TEXT,
    -- The identity that the sign-up became. With the one-identity guard the flow can create no other. NULL while the flow is open.
    identity_id TEXT,
    expires_at  INTEGER NOT NULL,
    -- When the newest submission was accepted.
    newest_at   INTEGER NOT NULL,
    -- The next look-up, or the end of the lease of the instance that looks the flow up. NULL: no look-up.
    next_lookup_at INTEGER,
    lookups     INTEGER NOT NULL,
    -- When an instance leased the flow to look it up. NULL: no instance is looking it up.
    leased_at   INTEGER,
    -- The time of the urgent look-up that an unreadable `post` caused. NULL: none.
    urgent_at   INTEGER
) STRICT;
CREATE INDEX flows_due ON flows (next_lookup_at) WHERE next_lookup_at IS NOT NULL;
CREATE INDEX flows_by_external_id ON flows (external_id) WHERE identity_id IS NULL AND external_id IS NOT NULL;
CREATE INDEX flows_expiring ON flows (expires_at);
CREATE INDEX flows_of_identity ON flows (identity_id) WHERE identity_id IS NOT NULL;

-- Accepted submissions. They are deleted with their flow, and when the flow is closed.
CREATE TABLE pending_sign_ups (
    flow_id                TEXT    NOT NULL,
    -- The trigger id of the call, so that Kratos's retries are one submission.
    submission             TEXT    NOT NULL,
    flow                   TEXT    NOT NULL,
    method                 TEXT    NOT NULL,
    traits_hash            TEXT    NOT NULL,
    transient_payload_hash TEXT    NOT NULL,
    -- Whether the response of `pre` had Vestibule's external_id.
    guarded                INTEGER NOT NULL CHECK (guarded IN (0, 1)),
    -- The last time on Kratos's clock at which the identity did not exist.
    absent_at              INTEGER NOT NULL,
    accepted_at            INTEGER NOT NULL,
    expires_at             INTEGER NOT NULL,
    state                  TEXT    NOT NULL CHECK (state IN ('open', 'never_created', 'undecided', 'attributed')),
    -- The identity that is attributed to the submission.
    identity_id            TEXT,
    -- JSON: the look-up keys, the deferred checks, the reservations, and what deliveries may read. NULL once it is attributed.
    details                TEXT,
    -- The identity that a settings change is about, so that a later call can attribute the change, and erasure finds it.
    changed_identity_id    TEXT,
    PRIMARY KEY (flow_id, submission)
) STRICT;
CREATE INDEX pending_sign_ups_of_change ON pending_sign_ups (changed_identity_id, traits_hash) WHERE changed_identity_id IS NOT NULL;
CREATE INDEX pending_sign_ups_of_identity ON pending_sign_ups (identity_id) WHERE identity_id IS NOT NULL;

-- What services reserved for a flow. Several submissions of a flow may use one reservation, and a flow may have several
-- reservations of one check.
CREATE TABLE reservations (
    -- Also the Idempotency-Key of the request that takes the reservation.
    id             TEXT    NOT NULL PRIMARY KEY,
    flow_id        TEXT    NOT NULL,
    check_name     TEXT    NOT NULL,
    -- A hash of the request, so that another value is another reservation.
    request_hash   TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('taking', 'taken', 'confirmed', 'released')),
    -- JSON: the request that takes the reservation, and what `confirm` and `release` may read. NULL once it is confirmed. A released
    -- reservation keeps it until its flow is deleted, because an account may still be found.
    details        TEXT,
    release_reason TEXT,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    submission     TEXT    NOT NULL DEFAULT '',
    -- A `pre` that uses the reservation may run until then.
    in_use_until   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX reservations_open ON reservations (flow_id, check_name, request_hash) WHERE state IN ('taking', 'taken');
CREATE INDEX reservations_of_flow ON reservations (flow_id);
CREATE INDEX reservations_expiring ON reservations (expires_at);
CREATE INDEX reservations_unfinished ON reservations (in_use_until) WHERE state IN ('taking', 'taken');

-- Accounts that a deferred check refused after sign-up.
CREATE TABLE late_refusals (
    identity_id    TEXT    NOT NULL,
    check_name     TEXT    NOT NULL,
    -- JSON: the message by language. NULL if the check has none, and once the refusal is lifted.
    message        TEXT,
    refused_at     INTEGER NOT NULL,
    -- `state_changed_at` of the identity after Vestibule deactivated it. NULL until then.
    deactivated_at INTEGER,
    -- Whether the identity was active before Vestibule enforced the refusal. NULL until then.
    was_active     INTEGER,
    lifted_at      INTEGER,
    -- What the refusal does. Only `deactivate` refuses sign-ins.
    effect         TEXT    NOT NULL DEFAULT 'deactivate' CHECK (effect IN ('deactivate', 'mark', 'notify')),
    PRIMARY KEY (identity_id, check_name)
) STRICT;
CREATE INDEX late_refusals_in_force ON late_refusals (identity_id) WHERE lifted_at IS NULL;
CREATE INDEX late_refusals_lifted ON late_refusals (lifted_at) WHERE lifted_at IS NOT NULL;

-- What Vestibule wrote into an identity through the admin API, until the last verification.
CREATE TABLE identity_writes (
    identity_id TEXT    NOT NULL PRIMARY KEY,
    -- JSON: the fields, with the values before and after the write.
    writes      TEXT    NOT NULL,
    -- The times of the verifications count from here.
    written_at  INTEGER NOT NULL,
    -- How many of the planned verifications are done.
    verified    INTEGER NOT NULL,
    -- The next verification, or the end of the lease of the instance that verifies.
    verify_at   INTEGER NOT NULL,
    -- When the newest change in `saved_changes` was saved that a verification found in the identity.
    seen_at     INTEGER
) STRICT;
CREATE INDEX identity_writes_due ON identity_writes (verify_at);

-- Changes that visitors saved in settings while a write into their identity is verified.
CREATE TABLE saved_changes (
    id          TEXT    NOT NULL PRIMARY KEY,
    identity_id TEXT    NOT NULL,
    -- JSON: the traits before and after the change.
    change      TEXT    NOT NULL,
    saved_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX saved_changes_of_identity ON saved_changes (identity_id);

-- Settings calls whose `pre` has had no `post` yet.
CREATE TABLE pending_settings (
    identity_id TEXT    NOT NULL PRIMARY KEY,
    first_at    INTEGER NOT NULL,
    open_calls  INTEGER NOT NULL
) STRICT;
CREATE INDEX pending_settings_old ON pending_settings (first_at);

-- Locks with an expiry, for what only one instance may do at a time.
CREATE TABLE locks (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL
) STRICT;

-- Key-value rows about this database.
CREATE TABLE properties (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- The identities of Kratos, so that changes and deletions that no hook reports are noticed. Kept only while a subscription wants
-- them.
CREATE TABLE identities (
    identity_id TEXT    NOT NULL PRIMARY KEY,
    -- An HMAC of the traits, the state and the schema id that were reported last. Empty once the identity is erased.
    fingerprint TEXT    NOT NULL,
    -- When Kratos saved these traits, on Kratos's clock.
    updated_at  INTEGER NOT NULL,
    -- When a hook or a reconciliation last saw the identity.
    seen_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX identities_by_last_seen ON identities (seen_at, identity_id);
