-- The read model: what happened to every order, for people, pages and reports. Written by the sink alone, from the
-- ledger's topics; docs/read-model.md explains each column. Names carry no schema: the session's search_path does.
--
-- Events of different topics come in any order, so everything here is one of: set by the higher revision, version or
-- sequence number; added up; or written once. Tables whose name ends in _rows hold what may come before its order.

CREATE TABLE sink_progress (
    topic         text    NOT NULL,
    partition_no  integer NOT NULL,
    next_offset   bigint  NOT NULL CHECK (next_offset >= 0),
    owner_epoch   bigint  NOT NULL,
    owner_pid     integer,
    owner_started timestamptz,
    topic_id      text    NOT NULL,
    clean         boolean NOT NULL,
    PRIMARY KEY (topic, partition_no)
) WITH (fillfactor = 50);

CREATE TABLE order_rows (
    order_id         uuid PRIMARY KEY,
    -- From orders.accepted; null until it came. The higher revision stays.
    revision         integer,
    order_no         bigint,
    channel          text,
    channel_order_id text,
    shop             text,
    account          text,
    placed_at        timestamptz,
    accepted_at      timestamptz,
    currency         text,
    total_minor      bigint,
    charges_minor    bigint,
    customer_ref     text,
    country          text,
    promised_at      timestamptz,
    ship_by          timestamptz,
    test             boolean,
    payment_method   text,
    quantity         bigint  NOT NULL DEFAULT 0,
    -- The person; an erasure nulls these.
    ship_name        text,
    ship_company     text,
    ship_street      text,
    ship_postcode    text,
    ship_city        text,
    email            text,
    phone            text,
    -- Added up, in units over all lines.
    reserved         bigint  NOT NULL DEFAULT 0,
    shipped          bigint  NOT NULL DEFAULT 0,
    cancelled        bigint  NOT NULL DEFAULT 0,
    returned         bigint  NOT NULL DEFAULT 0,
    picked           bigint  NOT NULL DEFAULT 0,
    -- Asked for and not withdrawn.
    fulfilments      bigint  NOT NULL DEFAULT 0,
    -- Counted from `holds`.
    open_holds       bigint  NOT NULL DEFAULT 0,
    released         boolean NOT NULL DEFAULT false,
    backordered      boolean NOT NULL DEFAULT false,
    whole_cancelled  boolean NOT NULL DEFAULT false,
    -- The latest by its number in the order.
    payment_seq      bigint,
    payment_state    text,
    authorised_minor bigint,
    captured_minor   bigint,
    refunded_minor   bigint,
    outcome_seq      bigint,
    outcome          text,
    updated_at       timestamptz NOT NULL,
    -- The headline; the one place that says which axis comes first.
    status           text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN revision IS NULL THEN 'waiting'
            WHEN open_holds > 0 THEN 'held'
            WHEN shipped = 0 AND (whole_cancelled OR outcome = 'cancelled' OR (quantity > 0 AND cancelled >= quantity))
                THEN 'cancelled'
            WHEN outcome = 'delivered' THEN 'delivered'
            WHEN shipped > 0 AND shipped + cancelled >= quantity THEN 'despatched'
            WHEN shipped > 0 THEN 'partly_despatched'
            WHEN fulfilments > 0 OR picked > 0 THEN 'in_fulfilment'
            WHEN backordered AND reserved + cancelled < quantity THEN 'backordered'
            WHEN released THEN 'released'
            ELSE 'accepted'
        END
    ) STORED
) WITH (fillfactor = 60);
CREATE INDEX order_rows_channel_order_id ON order_rows (channel_order_id);

CREATE VIEW orders AS
SELECT order_id, order_no, channel, channel_order_id, status, placed_at, currency, total_minor, charges_minor,
       customer_ref, country, promised_at, updated_at, revision, shop, account, accepted_at, ship_by, test,
       payment_method, payment_state, authorised_minor, captured_minor, refunded_minor, quantity, reserved, shipped,
       cancelled, returned, picked, open_holds, released, outcome, ship_name, ship_company, ship_street,
       ship_postcode, ship_city, email, phone
FROM order_rows WHERE revision IS NOT NULL;

CREATE TABLE line_rows (
    order_id         uuid    NOT NULL,
    line_no          integer NOT NULL,
    revision         integer,
    sku              text,
    description      text,
    quantity         bigint,
    unit_price       numeric,
    line_total_minor bigint,
    promised_at      timestamptz,
    ship_by          timestamptz,
    reserved         bigint  NOT NULL DEFAULT 0,
    shipped          bigint  NOT NULL DEFAULT 0,
    cancelled        bigint  NOT NULL DEFAULT 0,
    returned         bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, line_no)
) WITH (fillfactor = 70);

-- A line that a later revision no longer has stays behind with its old revision number.
CREATE VIEW order_lines AS
SELECT l.order_id, l.line_no, l.sku, l.quantity, l.unit_price, l.line_total_minor, l.reserved,
       l.quantity - l.cancelled - l.shipped - l.reserved AS short,
       l.shipped, l.cancelled, l.returned, l.description, l.promised_at, l.ship_by
FROM line_rows l JOIN order_rows o ON o.order_id = l.order_id AND o.revision = l.revision;

CREATE TABLE charge_rows (
    order_id     uuid    NOT NULL,
    charge_no    integer NOT NULL,
    revision     integer NOT NULL,
    kind         text    NOT NULL,
    code         text    NOT NULL,
    description  text,
    quantity     bigint  NOT NULL,
    unit_price   numeric NOT NULL,
    amount_minor bigint  NOT NULL,
    PRIMARY KEY (order_id, charge_no)
);

CREATE VIEW order_charges AS
SELECT c.order_id, c.charge_no, c.kind, c.code, c.quantity, c.unit_price, c.amount_minor, c.description
FROM charge_rows c JOIN order_rows o ON o.order_id = c.order_id AND o.revision = c.revision;

-- A resolution may come before its hold; `opened_at` is null until then.
CREATE TABLE holds (
    order_id    uuid    NOT NULL,
    hold_id     text    NOT NULL,
    reason      text    NOT NULL,
    line_no     integer,
    detail      text,
    opened_at   timestamptz,
    due_at      timestamptz,
    resolved_at timestamptz,
    resolution  text,
    resolved_by text,
    PRIMARY KEY (order_id, hold_id)
);
CREATE INDEX holds_open ON holds (reason, due_at) WHERE resolved_at IS NULL;

CREATE TABLE shipments (
    shipment_id          text PRIMARY KEY,
    location_id          text,
    carrier              text,
    service              text,
    simulated            boolean,
    despatched_at        timestamptz,
    -- The latest milestone of the whole shipment, and its first delivery.
    tracked_at           timestamptz,
    tracked              text,
    whole_delivered_at   timestamptz,
    -- When the last parcel was delivered; null while one is not.
    parcels_delivered_at timestamptz,
    delivered_at         timestamptz GENERATED ALWAYS AS (coalesce(whole_delivered_at, parcels_delivered_at)) STORED,
    status               text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN tracked = 'delivery_failed' AND (whole_delivered_at IS NULL OR tracked_at > whole_delivered_at)
                THEN 'delivery_failed'
            WHEN coalesce(whole_delivered_at, parcels_delivered_at) IS NOT NULL THEN 'delivered'
            WHEN tracked IS NOT NULL THEN 'in_transit'
            ELSE 'despatched'
        END
    ) STORED
) WITH (fillfactor = 80);

CREATE TABLE shipment_lines (
    shipment_id text    NOT NULL,
    order_id    uuid    NOT NULL,
    line_no     integer NOT NULL,
    quantity    bigint  NOT NULL,
    PRIMARY KEY (shipment_id, order_id, line_no)
);
CREATE INDEX shipment_lines_by_order ON shipment_lines (order_id);

CREATE TABLE parcels (
    parcel_id       text PRIMARY KEY,
    shipment_id     text NOT NULL,
    tracking_number text,
    weight_grams    bigint,
    tracked_at      timestamptz,
    tracked         text,
    delivered_at    timestamptz,
    status          text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN tracked = 'delivery_failed' AND (delivered_at IS NULL OR tracked_at > delivered_at)
                THEN 'delivery_failed'
            WHEN delivered_at IS NOT NULL THEN 'delivered'
            WHEN tracked IS NOT NULL THEN 'in_transit'
            ELSE 'despatched'
        END
    ) STORED
) WITH (fillfactor = 80);
CREATE INDEX parcels_by_shipment ON parcels (shipment_id);

-- Every event of an order, by its number. What is here was applied: an event that comes again is left out.
CREATE TABLE timeline (
    order_id uuid   NOT NULL,
    seq      bigint NOT NULL,
    event    text   NOT NULL,
    at       timestamptz NOT NULL,
    -- Where the record that caused it was read: topic/partition/offset.
    cause    text,
    detail   text   NOT NULL,
    PRIMARY KEY (order_id, seq)
);

CREATE TABLE stock (
    sku         text COLLATE "C" NOT NULL,
    location_id text COLLATE "C" NOT NULL,
    condition   text COLLATE "C" NOT NULL,
    on_hand     bigint NOT NULL,
    reserved    bigint NOT NULL,
    picked      bigint NOT NULL,
    version     bigint NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (sku, location_id, condition)
) WITH (fillfactor = 50);

CREATE TABLE postings (
    posting_id   text   NOT NULL,
    order_id     uuid   NOT NULL,
    kind         text   NOT NULL,
    account      text   NOT NULL,
    currency     text   NOT NULL,
    amount_minor bigint NOT NULL,
    cause        text   NOT NULL,
    at           timestamptz NOT NULL,
    PRIMARY KEY (posting_id, account, currency)
);

CREATE TABLE notifications (
    notification_id text    PRIMARY KEY,
    order_id        uuid    NOT NULL,
    purpose         text    NOT NULL,
    channel         text    NOT NULL,
    status          text    NOT NULL,
    at              timestamptz NOT NULL,
    revision        integer NOT NULL,
    language        text,
    shipment_id     text
);

CREATE TABLE dead_letters (
    topic         text    NOT NULL,
    partition_no  integer NOT NULL,
    record_offset bigint  NOT NULL,
    step          text    NOT NULL,
    reason        text    NOT NULL,
    key           bytea,
    payload       bytea,
    at            timestamptz NOT NULL,
    PRIMARY KEY (topic, partition_no, record_offset, step)
);
