-- As in migrations/sqlite under the same number.
DROP INDEX deliveries_of_identity;
CREATE INDEX deliveries_of_identity ON deliveries (identity_id);
