-- The text of every schema that records were written with, by the id in their first bytes. The registry hands ids
-- out; but when it is lost or made anew, what was written before can still be read.
CREATE TABLE schema_texts (
    schema_id integer PRIMARY KEY,
    -- Whose it is: the registry's subject; of a schema that others registered, empty.
    subject   text NOT NULL,
    text      text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);
