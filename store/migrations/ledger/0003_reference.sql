-- Every version that reference data ever had, so that a decision can be made again with the facts it was made from
-- after the topics were compacted. A record's offset is the version it began with. Append-only.
CREATE TABLE reference_versions (
    topic    text COLLATE "C" NOT NULL,
    -- A topic that was made anew counts from 0 again.
    topic_id text   NOT NULL,
    version  bigint NOT NULL,
    key      text COLLATE "C" NOT NULL,
    -- The record's bytes; null: it was removed.
    value    bytea,
    at       timestamptz NOT NULL,
    PRIMARY KEY (topic, topic_id, version)
);
CREATE INDEX reference_versions_by_key ON reference_versions (topic, key, version);
