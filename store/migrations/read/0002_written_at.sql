-- When the sink wrote an event here, by the read model's clock: how far behind the ledger (`at`) people see things.
ALTER TABLE timeline ADD COLUMN written_at timestamptz NOT NULL DEFAULT clock_timestamp();
