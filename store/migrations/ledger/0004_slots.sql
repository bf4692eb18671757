-- Which worker has which place of a step. A transactional id belongs to the slot, not to the process, so it stays the
-- same over restarts however many processes run.
CREATE TABLE slots (
    step  text    NOT NULL,
    slot  integer NOT NULL,
    -- Who has it, in words for a person (host and process); null: nobody.
    owner text,
    -- Rises with each owner: what proves who one is.
    epoch bigint  NOT NULL,
    -- By this server's clock; after it anybody may take the slot.
    until timestamptz NOT NULL,
    PRIMARY KEY (step, slot)
);
