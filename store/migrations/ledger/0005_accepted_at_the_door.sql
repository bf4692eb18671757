-- Orders that were answered with "accepted" at the HTTP door, so that asking for one is never answered with "unknown"
-- while it is still on its way. A row leaves a day after the ledger has the order.
CREATE TABLE http_accepted (
    order_id uuid PRIMARY KEY,
    shop     text NOT NULL,
    number   text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
