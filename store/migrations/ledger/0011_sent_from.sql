-- A broker may lose the end of a transaction, so that a transaction is done is believed only once its records were seen
-- to stand. emitted_floor: up to where they were. sent_from: where to look for what was sent since, as JSON: offsets by
-- output topic, in the order of its partitions.
ALTER TABLE progress ADD COLUMN sent_from text NOT NULL DEFAULT '{}';
