-- The person was forgotten: no event brings it back. Such a row may come before its order.
ALTER TABLE order_rows ADD COLUMN erased boolean NOT NULL DEFAULT false;
