-- Parked records go one by one: released_at is set on the first of its order only, and the row leaves with the decision
-- about it. What was let go all at once before is let go anew.
DELETE FROM parked p USING orders o, causes c
WHERE p.released_at IS NOT NULL AND o.order_id = p.order_id AND c.order_no = o.order_no AND c.cause_id = p.event_id;
UPDATE parked SET released_at = NULL, released_by = NULL WHERE released_at IS NOT NULL;
