-- Pins that a count did not find: what open fulfilment orders have pinned is reserved + unbacked (docs/adr/0004).
ALTER TABLE stock ADD COLUMN unbacked bigint NOT NULL DEFAULT 0 CHECK (unbacked >= 0);
ALTER TABLE stock_entries ADD COLUMN unbacked bigint NOT NULL DEFAULT 0;
