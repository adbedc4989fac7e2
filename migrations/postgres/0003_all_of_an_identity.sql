-- As in migrations/sqlite under the same number.
CREATE INDEX deliveries_all_of_identity ON deliveries (identity_id);
