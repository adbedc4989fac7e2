-- Everything about one identity is found by an index, to be forgotten with it: also what has been delivered.
CREATE INDEX deliveries_all_of_identity ON deliveries (identity_id);
