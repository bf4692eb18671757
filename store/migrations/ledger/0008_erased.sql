-- When the person of an order was forgotten. It stays so: what arrives about the person after it is not kept.
ALTER TABLE orders ADD COLUMN erased_at timestamptz;
