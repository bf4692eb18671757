-- What decisions about a partition's records were made with, from an offset on until the next row: the version of the
-- code, and per reference topic how far it was read.
CREATE TABLE decided_with (
    place       int    NOT NULL,
    from_offset bigint NOT NULL,
    code        text   NOT NULL,
    -- JSON: a reference topic's name to the offset that comes next in it.
    versions    text   NOT NULL,
    PRIMARY KEY (place, from_offset)
);
