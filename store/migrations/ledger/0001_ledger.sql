-- What the ledger step remembers. Names carry no schema: the session's search_path is the deployment's schema.

-- Where each partition of each step's input stands. The compare-and-set of next_offset is a batch's first statement.
CREATE TABLE progress (
    step          text    NOT NULL,
    topic         text    NOT NULL,
    partition_no  integer NOT NULL,
    next_offset   bigint  NOT NULL CHECK (next_offset >= 0),
    owner_epoch   bigint  NOT NULL,
    -- The owner's backend: its pid, and when it started, for pids are used again. Null: nobody owns it.
    owner_pid     integer,
    owner_started timestamptz,
    topic_id      text    NOT NULL,
    emitted_floor bigint  NOT NULL,
    clean         boolean NOT NULL,
    -- What the journal calls (step, topic, partition). So a row here is never deleted.
    place         integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (step, topic, partition_no)
) WITH (fillfactor = 50);

-- One row an order id that was ever seen. It is the order's lock, and never changes.
CREATE TABLE orders (
    order_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid   NOT NULL UNIQUE
);

-- The fold of the order's events, as JSON. Apart from the ids, so that writing it never touches their index.
CREATE TABLE states (
    order_no   bigint PRIMARY KEY,
    seq        bigint NOT NULL,
    state      text   NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70, toast_tuple_target = 8160);

-- The order itself, and its person in a column that an erasure nulls.
CREATE TABLE contents (
    order_no bigint PRIMARY KEY,
    content  text   NOT NULL,
    party    bytea
);

-- What was acted on before, by the cause's event id: a repeat is recognised wherever it is read from.
CREATE TABLE causes (
    order_no bigint NOT NULL,
    cause_id uuid   NOT NULL,
    PRIMARY KEY (order_no, cause_id)
);

CREATE TABLE stock_causes (
    cause_id uuid PRIMARY KEY
);

-- Units claimed network-wide and not pinned to a location yet. The row is also the lock of its stock rows.
CREATE TABLE skus (
    sku     text COLLATE "C" PRIMARY KEY,
    claimed bigint NOT NULL DEFAULT 0 CHECK (claimed >= 0)
) WITH (fillfactor = 50);

CREATE TABLE stock (
    sku         text COLLATE "C" NOT NULL,
    location_id text COLLATE "C" NOT NULL,
    condition   text COLLATE "C" NOT NULL,
    on_hand     bigint NOT NULL,
    reserved    bigint NOT NULL,
    picked      bigint NOT NULL,
    version     bigint NOT NULL,
    PRIMARY KEY (sku, location_id, condition),
    CONSTRAINT stock_counts_agree CHECK (0 <= picked AND picked <= reserved AND reserved <= on_hand)
) WITH (fillfactor = 50);

-- Every movement of a stock row, append-only: the rows of `stock` are its fold.
CREATE TABLE stock_entries (
    cause_id    uuid    NOT NULL,
    -- Which of the cause's events this is.
    cause_index integer NOT NULL,
    sku         text COLLATE "C" NOT NULL,
    location_id text COLLATE "C" NOT NULL,
    condition   text COLLATE "C" NOT NULL,
    version     bigint  NOT NULL,
    movement    text    NOT NULL,
    quantity    bigint  NOT NULL,
    on_hand     bigint  NOT NULL,
    reserved    bigint  NOT NULL,
    picked      bigint  NOT NULL,
    claimed     bigint  NOT NULL,
    -- What the movement was for, in the event's words.
    cause       text    NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (cause_id, cause_index)
);

-- Accepted orders that are short of a SKU; derived from the state whenever it is written.
CREATE TABLE waits (
    sku      text COLLATE "C" NOT NULL,
    order_no bigint NOT NULL,
    PRIMARY KEY (sku, order_no)
);

-- Timers; derived from the state whenever it is written.
CREATE TABLE timers (
    order_no bigint NOT NULL,
    timer_id text   NOT NULL,
    purpose  text   NOT NULL,
    revision bigint NOT NULL,
    due_at   timestamptz NOT NULL,
    PRIMARY KEY (order_no, timer_id)
);
CREATE INDEX timers_due ON timers (due_at);

-- Every event as the finished bytes that went, or will go, to its topic. journal_id rises in the order of decisions
-- wherever two decisions could have met, for it is taken under the locks.
-- One plain table, not partitioned by order_no: rows about stock have no order, and what was not emitted is found by
-- the cause's position, which would probe every partition's index on each catch-up.
CREATE TABLE journal (
    journal_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_no     bigint,
    seq          bigint,
    -- Where the cause was read: progress.place and the offset there.
    cause_offset bigint  NOT NULL,
    place        integer NOT NULL,
    cause_index  integer NOT NULL,
    event_id     uuid    NOT NULL,
    cause_id     uuid    NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    topic        text COLLATE "C" NOT NULL,
    -- Null: the order's id.
    key          text,
    traceparent  text,
    -- Headers that do not follow from the other columns, as a JSON list of pairs; null when all do.
    headers      text,
    body         bytea   NOT NULL,
    -- Empty: the record has no person. Null: the person was erased.
    party        bytea,
    CHECK ((order_no IS NULL) = (seq IS NULL)),
    CHECK (key IS NOT NULL OR order_no IS NOT NULL)
);
-- Equal keys are stored once, so an index without journal_id is much the smaller one.
CREATE INDEX journal_by_cause ON journal (place, cause_offset);
CREATE UNIQUE INDEX journal_by_order ON journal (order_no, seq) WHERE order_no IS NOT NULL;

-- The journal for people.
CREATE VIEW events AS
SELECT j.journal_id, o.order_id, j.seq, j.event_id, j.topic, coalesce(j.key, o.order_id::text) AS key, j.at,
       j.cause_id, p.topic AS cause_topic, p.partition_no AS cause_partition, j.cause_offset, j.cause_index,
       j.traceparent, j.body, j.party
FROM journal j
JOIN progress p ON p.place = j.place
LEFT JOIN orders o ON o.order_no = j.order_no;

-- Records that could not be decided, each behind the first of its order.
CREATE TABLE parked (
    parked_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id      uuid    NOT NULL,
    topic         text    NOT NULL,
    partition_no  integer NOT NULL,
    record_offset bigint  NOT NULL,
    event_id      uuid    NOT NULL,
    traceparent   text,
    key           bytea   NOT NULL,
    payload       bytea   NOT NULL,
    -- Null: it waits behind another record of its order.
    reason        text,
    at            timestamptz NOT NULL DEFAULT now(),
    -- Set when a person let it go; the row leaves once it was sent again.
    released_at   timestamptz,
    released_by   text,
    UNIQUE (topic, partition_no, record_offset)
);
CREATE INDEX parked_by_order ON parked (order_id, parked_id);

-- Tries at a record, counted before each try, so that one that kills the process is recognised.
CREATE TABLE attempts (
    step          text    NOT NULL,
    topic         text    NOT NULL,
    partition_no  integer NOT NULL,
    record_offset bigint  NOT NULL,
    attempts      integer NOT NULL,
    PRIMARY KEY (step, topic, partition_no, record_offset)
);

-- A call to a partner: a row before it is a request.
CREATE TABLE calls (
    call_id      uuid    PRIMARY KEY,
    order_no     bigint,
    purpose      text    NOT NULL,
    partner      text    NOT NULL,
    account      text    NOT NULL,
    -- Calls of one lane go in order.
    lane         text    NOT NULL,
    state        text    NOT NULL CHECK (state IN ('planned', 'sent', 'unknown', 'done', 'refused', 'withdrawn')),
    revision     integer NOT NULL DEFAULT 0,
    -- The call this one voids.
    supersedes   uuid,
    intent       text    NOT NULL,
    -- Where a conversation of several requests stands.
    conversation text,
    -- SHA-256 of the body that was sent first; a repeat with another body is an error of ours.
    body_hash    text,
    -- The partner's own reference, once known.
    reference    text,
    detail       text,
    attempt      integer NOT NULL DEFAULT 0,
    planned_at   timestamptz NOT NULL DEFAULT now(),
    sent_at      timestamptz,
    -- No byte of the current attempt leaves after this.
    deadline_at  timestamptz,
    -- When to look or try next.
    next_at      timestamptz NOT NULL DEFAULT now(),
    settled_at   timestamptz
) WITH (fillfactor = 70);
CREATE INDEX calls_open ON calls (partner, account, next_at) WHERE state IN ('planned', 'sent', 'unknown');
CREATE INDEX calls_by_order ON calls (order_no) WHERE order_no IS NOT NULL;

-- Answers given to HTTP requests with an Idempotency-Key.
CREATE TABLE http_answers (
    account         text    NOT NULL,
    idempotency_key text    NOT NULL,
    body_hash       text    NOT NULL,
    -- Null while the first request is still being worked on.
    status          integer,
    answer          text,
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, idempotency_key)
);
CREATE INDEX http_answers_at ON http_answers (at);

-- Long values: lz4 where this server was built with it; the default compression costs ten times the time.
DO $$
BEGIN
    ALTER TABLE states   ALTER COLUMN state   SET COMPRESSION lz4;
    ALTER TABLE contents ALTER COLUMN content SET COMPRESSION lz4;
    ALTER TABLE journal  ALTER COLUMN body    SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;
