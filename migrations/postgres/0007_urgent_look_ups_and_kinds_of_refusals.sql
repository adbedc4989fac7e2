-- When an instance leased the flow to look it up. NULL: no instance is looking it up.
ALTER TABLE flows ADD COLUMN leased_at BIGINT;
-- When an unreadable `post` has the flow looked up, or last had it looked up. NULL: never.
ALTER TABLE flows ADD COLUMN urgent_at BIGINT;

-- What the refusal does. Only `deactivate` keeps the person out; until now nothing else was stored.
ALTER TABLE late_refusals ADD COLUMN effect TEXT NOT NULL DEFAULT 'deactivate'
    CHECK (effect IN ('deactivate', 'mark', 'notify'));
