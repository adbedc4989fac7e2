-- Everything about one identity is found by an index, to be forgotten with it: also what has been delivered.
DROP INDEX deliveries_of_identity;
CREATE INDEX deliveries_of_identity ON deliveries (identity_id);
