-- Accounts that a deferred check has refused after they were created. Hooks refuse these people until the refusal is lifted.
CREATE TABLE late_refusals (
    identity_id    TEXT    NOT NULL,
    check_name     TEXT    NOT NULL,
    -- JSON: the message by language. NULL where the check has none, and once the refusal is lifted.
    message        TEXT,
    refused_at     BIGINT NOT NULL,
    -- `state_changed_at` of the identity after Vestibule deactivated it. NULL until then.
    deactivated_at BIGINT,
    lifted_at      BIGINT,
    PRIMARY KEY (identity_id, check_name)
);
CREATE INDEX late_refusals_in_force ON late_refusals (identity_id) WHERE lifted_at IS NULL;
CREATE INDEX late_refusals_lifted ON late_refusals (lifted_at) WHERE lifted_at IS NOT NULL;

-- What Vestibule wrote into an identity through the admin API, until it is verified for the last time.
CREATE TABLE identity_writes (
    identity_id TEXT    NOT NULL PRIMARY KEY,
    -- JSON: the fields, with what was there before and what was written.
    writes      TEXT    NOT NULL,
    -- From when on the times of the verifications are counted.
    written_at  BIGINT NOT NULL,
    -- How many of the planned verifications are done.
    verified    BIGINT NOT NULL,
    -- The next verification, or the end of the lease of the instance that verifies.
    verify_at   BIGINT NOT NULL
);
CREATE INDEX identity_writes_due ON identity_writes (verify_at);

-- Changes that people saved in settings while a write into their identity is being verified.
CREATE TABLE saved_changes (
    id          TEXT    NOT NULL PRIMARY KEY,
    identity_id TEXT    NOT NULL,
    -- JSON: the traits as they were and as they were saved.
    change      TEXT    NOT NULL,
    saved_at    BIGINT NOT NULL
);
CREATE INDEX saved_changes_of_identity ON saved_changes (identity_id);

-- Settings calls whose `pre` has had no `post` yet.
CREATE TABLE pending_settings (
    identity_id TEXT    NOT NULL PRIMARY KEY,
    first_at    BIGINT NOT NULL,
    open_calls  BIGINT NOT NULL
);
CREATE INDEX pending_settings_old ON pending_settings (first_at);
