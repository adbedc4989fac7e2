-- `reservations.details` of a released reservation stays until its flow is forgotten, because an account may be found after all.

-- The identity that a settings change is about, so that a later call of it can prove the change, and erasure finds it.
ALTER TABLE pending_sign_ups ADD COLUMN changed_identity_id TEXT;
UPDATE pending_sign_ups SET changed_identity_id = details ->> '$.lookup_keys.identity_id' WHERE details IS NOT NULL;
CREATE INDEX pending_sign_ups_of_change ON pending_sign_ups (changed_identity_id, traits_hash) WHERE changed_identity_id IS NOT NULL;
CREATE INDEX pending_sign_ups_of_identity ON pending_sign_ups (identity_id) WHERE identity_id IS NOT NULL;
CREATE INDEX flows_of_identity ON flows (identity_id) WHERE identity_id IS NOT NULL;
