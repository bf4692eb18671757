//! The sink that keeps the read model, exactly once twice over: the offsets move by compare-and-set in the batch's own
//! transaction, and an event is applied only when its (order, number) was not in the timeline yet. The second is what
//! lets a model that was rebuilt from the journal go on from offsets that lie before it.

use std::collections::HashSet;

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{Headers, OrderId, Topic, order::Address};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::{
    detail::detail,
    fold::{Changes, Milestones},
};
use crate::{
    pg::{At, Prefix, Purpose, Schema, connect},
    seam::{Advance, Ends, LedgerError, Progress, Sink, SinkInput, SinkRecord, SinkTxn, TopicPartition},
    statements::statements,
};

statements! {
    struct Statements {
        progress = "SELECT next_offset, owner_epoch, topic_id, clean FROM sink_progress
                    WHERE topic = $1 AND partition_no = $2";
        end_owner = "SELECT pg_terminate_backend(a.pid, 3000)
                     FROM sink_progress p JOIN pg_stat_activity a
                       ON a.pid = p.owner_pid AND a.backend_start = p.owner_started
                     WHERE p.topic = $1 AND p.partition_no = $2 AND a.pid <> pg_backend_pid()";
        end_backend = "SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity
                       WHERE pid = $1 AND backend_start = $2 AND pid <> pg_backend_pid()";
        was_clean = "SELECT clean FROM sink_progress WHERE topic = $1 AND partition_no = $2 FOR UPDATE";
        take = "INSERT INTO sink_progress AS p (topic, partition_no, next_offset, owner_epoch, owner_pid,
                                                owner_started, topic_id, clean)
                SELECT $1, $2, $4, 1, pid, backend_start, $3, false
                FROM pg_stat_activity WHERE pid = pg_backend_pid()
                ON CONFLICT (topic, partition_no) DO UPDATE
                SET owner_epoch = p.owner_epoch + 1, owner_pid = excluded.owner_pid,
                    owner_started = excluded.owner_started, clean = false
                RETURNING next_offset, owner_epoch, topic_id";
        leave = "UPDATE sink_progress p SET clean = true, owner_pid = NULL, owner_started = NULL
                 FROM unnest($1::text[], $2::int[], $3::bigint[]) u(topic, partition_no, epoch)
                 WHERE p.topic = u.topic AND p.partition_no = u.partition_no AND p.owner_epoch = u.epoch";
        advance = "UPDATE sink_progress p SET next_offset = u.to_offset
                   FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[])
                        u(topic, partition_no, epoch, from_offset, to_offset)
                   WHERE p.topic = u.topic AND p.partition_no = u.partition_no
                     AND p.owner_epoch = u.epoch AND p.next_offset = u.from_offset";

        timeline = "INSERT INTO timeline (order_id, seq, event, at, cause, detail)
                    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
                    ON CONFLICT DO NOTHING RETURNING order_id, seq";
        // What `moved` does, and the description: one write for an order that is new.
        accepted = "INSERT INTO order_rows AS o
                        (order_id, reserved, shipped, cancelled, picked, fulfilments, released,
                         backordered, whole_cancelled, payment_seq, payment_state, authorised_minor,
                         captured_minor, refunded_minor, outcome_seq, outcome, updated_at, accepted_at,
                         revision, order_no, channel, channel_order_id, shop, account, placed_at, currency,
                         total_minor, charges_minor, customer_ref, country, promised_at, ship_by, test,
                         payment_method, quantity, ship_name, ship_company, ship_street, ship_postcode,
                         ship_city, email, phone)
                    SELECT * FROM unnest(
                        $1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                        $7::boolean[], $8::boolean[], $9::boolean[], $10::bigint[], $11::text[],
                        $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::text[],
                        $17::timestamptz[], $18::timestamptz[], $19::int[], $20::bigint[], $21::text[],
                        $22::text[], $23::text[], $24::text[], $25::timestamptz[], $26::text[],
                        $27::bigint[], $28::bigint[], $29::text[], $30::text[], $31::timestamptz[],
                        $32::timestamptz[], $33::boolean[], $34::text[], $35::bigint[], $36::text[],
                        $37::text[], $38::text[], $39::text[], $40::text[], $41::text[], $42::text[])
                    ON CONFLICT (order_id) DO UPDATE SET
                        reserved = o.reserved + excluded.reserved, shipped = o.shipped + excluded.shipped,
                        cancelled = o.cancelled + excluded.cancelled, picked = o.picked + excluded.picked,
                        fulfilments = o.fulfilments + excluded.fulfilments,
                        released = o.released OR excluded.released, backordered = o.backordered OR excluded.backordered,
                        whole_cancelled = o.whole_cancelled OR excluded.whole_cancelled,
                        payment_seq = greatest(o.payment_seq, excluded.payment_seq),
                        payment_state = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                            THEN excluded.payment_state ELSE o.payment_state END,
                        authorised_minor = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                            THEN excluded.authorised_minor ELSE o.authorised_minor END,
                        captured_minor = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                            THEN excluded.captured_minor ELSE o.captured_minor END,
                        refunded_minor = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                            THEN excluded.refunded_minor ELSE o.refunded_minor END,
                        outcome_seq = greatest(o.outcome_seq, excluded.outcome_seq),
                        outcome = CASE WHEN excluded.outcome_seq > coalesce(o.outcome_seq, 0)
                            THEN excluded.outcome ELSE o.outcome END,
                        updated_at = greatest(o.updated_at, excluded.updated_at),
                        accepted_at = least(o.accepted_at, excluded.accepted_at),
                        revision = greatest(o.revision, excluded.revision),
                        order_no = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.order_no ELSE o.order_no END,
                        channel = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.channel ELSE o.channel END,
                        channel_order_id = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.channel_order_id ELSE o.channel_order_id END,
                        shop = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.shop ELSE o.shop END,
                        account = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.account ELSE o.account END,
                        placed_at = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.placed_at ELSE o.placed_at END,
                        currency = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.currency ELSE o.currency END,
                        total_minor = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.total_minor ELSE o.total_minor END,
                        charges_minor = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.charges_minor ELSE o.charges_minor END,
                        customer_ref = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.customer_ref ELSE o.customer_ref END,
                        country = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.country ELSE o.country END,
                        promised_at = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.promised_at ELSE o.promised_at END,
                        ship_by = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.ship_by ELSE o.ship_by END,
                        test = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.test ELSE o.test END,
                        payment_method = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.payment_method ELSE o.payment_method END,
                        quantity = CASE WHEN excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.quantity ELSE o.quantity END,
                        ship_name = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.ship_name ELSE o.ship_name END,
                        ship_company = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.ship_company ELSE o.ship_company END,
                        ship_street = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.ship_street ELSE o.ship_street END,
                        ship_postcode = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.ship_postcode ELSE o.ship_postcode END,
                        ship_city = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.ship_city ELSE o.ship_city END,
                        email = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.email ELSE o.email END,
                        phone = CASE WHEN NOT o.erased AND excluded.revision > coalesce(o.revision, -1)
                            THEN excluded.phone ELSE o.phone END";
        moved = "INSERT INTO order_rows AS o
                     (order_id, reserved, shipped, cancelled, picked, fulfilments, released, backordered,
                      whole_cancelled, payment_seq, payment_state, authorised_minor, captured_minor, refunded_minor,
                      outcome_seq, outcome, updated_at, accepted_at)
                 SELECT * FROM unnest(
                     $1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[],
                     $8::boolean[], $9::boolean[], $10::bigint[], $11::text[], $12::bigint[], $13::bigint[],
                     $14::bigint[], $15::bigint[], $16::text[], $17::timestamptz[], $18::timestamptz[])
                 ON CONFLICT (order_id) DO UPDATE SET
                     reserved = o.reserved + excluded.reserved, shipped = o.shipped + excluded.shipped,
                     cancelled = o.cancelled + excluded.cancelled, picked = o.picked + excluded.picked,
                     fulfilments = o.fulfilments + excluded.fulfilments,
                     released = o.released OR excluded.released, backordered = o.backordered OR excluded.backordered,
                     whole_cancelled = o.whole_cancelled OR excluded.whole_cancelled,
                     payment_seq = greatest(o.payment_seq, excluded.payment_seq),
                     payment_state = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                         THEN excluded.payment_state ELSE o.payment_state END,
                     authorised_minor = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                         THEN excluded.authorised_minor ELSE o.authorised_minor END,
                     captured_minor = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                         THEN excluded.captured_minor ELSE o.captured_minor END,
                     refunded_minor = CASE WHEN excluded.payment_seq > coalesce(o.payment_seq, 0)
                         THEN excluded.refunded_minor ELSE o.refunded_minor END,
                     outcome_seq = greatest(o.outcome_seq, excluded.outcome_seq),
                     outcome = CASE WHEN excluded.outcome_seq > coalesce(o.outcome_seq, 0)
                         THEN excluded.outcome ELSE o.outcome END,
                     updated_at = greatest(o.updated_at, excluded.updated_at),
                     accepted_at = least(o.accepted_at, excluded.accepted_at)";
        lines = "INSERT INTO line_rows AS l
                     (order_id, line_no, revision, sku, description, quantity, unit_price, line_total_minor,
                      promised_at, ship_by, reserved, shipped, cancelled)
                 SELECT order_id, line_no, revision, sku, description, quantity, unit_price::numeric, line_total_minor,
                        promised_at, ship_by, reserved, shipped, cancelled
                 FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                             $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::bigint[], $12::bigint[],
                             $13::bigint[])
                      u(order_id, line_no, revision, sku, description, quantity, unit_price, line_total_minor,
                        promised_at, ship_by, reserved, shipped, cancelled)
                 ON CONFLICT (order_id, line_no) DO UPDATE SET
                     revision = greatest(l.revision, excluded.revision),
                     sku = CASE WHEN excluded.revision > coalesce(l.revision, -1) THEN excluded.sku ELSE l.sku END,
                     description = CASE WHEN excluded.revision > coalesce(l.revision, -1)
                         THEN excluded.description ELSE l.description END,
                     quantity = CASE WHEN excluded.revision > coalesce(l.revision, -1)
                         THEN excluded.quantity ELSE l.quantity END,
                     unit_price = CASE WHEN excluded.revision > coalesce(l.revision, -1)
                         THEN excluded.unit_price ELSE l.unit_price END,
                     line_total_minor = CASE WHEN excluded.revision > coalesce(l.revision, -1)
                         THEN excluded.line_total_minor ELSE l.line_total_minor END,
                     promised_at = CASE WHEN excluded.revision > coalesce(l.revision, -1)
                         THEN excluded.promised_at ELSE l.promised_at END,
                     ship_by = CASE WHEN excluded.revision > coalesce(l.revision, -1)
                         THEN excluded.ship_by ELSE l.ship_by END,
                     reserved = l.reserved + excluded.reserved, shipped = l.shipped + excluded.shipped,
                     cancelled = l.cancelled + excluded.cancelled";
        charges = "INSERT INTO charge_rows AS c
                       (order_id, charge_no, revision, kind, code, description, quantity, unit_price, amount_minor)
                   SELECT order_id, charge_no, revision, kind, code, description, quantity, unit_price::numeric,
                          amount_minor
                   FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                               $8::text[], $9::bigint[])
                        u(order_id, charge_no, revision, kind, code, description, quantity, unit_price, amount_minor)
                   ON CONFLICT (order_id, charge_no) DO UPDATE SET
                       revision = excluded.revision, kind = excluded.kind, code = excluded.code,
                       description = excluded.description, quantity = excluded.quantity,
                       unit_price = excluded.unit_price, amount_minor = excluded.amount_minor
                   WHERE c.revision < excluded.revision";
        holds = "INSERT INTO holds AS h
                     (order_id, hold_id, reason, line_no, detail, opened_at, due_at, resolved_at, resolution, resolved_by)
                 SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], $6::timestamptz[],
                                      $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[])
                 ON CONFLICT (order_id, hold_id) DO UPDATE SET
                     line_no = coalesce(h.line_no, excluded.line_no), detail = coalesce(h.detail, excluded.detail),
                     opened_at = coalesce(h.opened_at, excluded.opened_at),
                     due_at = coalesce(h.due_at, excluded.due_at),
                     resolved_at = coalesce(h.resolved_at, excluded.resolved_at),
                     resolution = coalesce(h.resolution, excluded.resolution),
                     resolved_by = coalesce(h.resolved_by, excluded.resolved_by)";
        count_holds = "UPDATE order_rows o SET open_holds = c.open
                       FROM (SELECT u.order_id, (SELECT count(*) FROM holds h WHERE h.order_id = u.order_id
                                                 AND h.opened_at IS NOT NULL AND h.resolved_at IS NULL) AS open
                             FROM unnest($1::uuid[]) u(order_id)) c
                       WHERE o.order_id = c.order_id AND o.open_holds <> c.open";
        shipments = "INSERT INTO shipments AS s
                         (shipment_id, location_id, carrier, service, simulated, despatched_at, tracked_at, tracked,
                          whole_delivered_at)
                     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[],
                                          $6::timestamptz[], $7::timestamptz[], $8::text[], $9::timestamptz[])
                     ON CONFLICT (shipment_id) DO UPDATE SET
                         location_id = least(s.location_id, excluded.location_id),
                         carrier = least(s.carrier, excluded.carrier), service = least(s.service, excluded.service),
                         simulated = coalesce(s.simulated, false) OR coalesce(excluded.simulated, false),
                         despatched_at = least(s.despatched_at, excluded.despatched_at),
                         tracked_at = greatest(s.tracked_at, excluded.tracked_at),
                         tracked = CASE WHEN s.tracked_at IS NULL
                                          OR (excluded.tracked_at, excluded.tracked) > (s.tracked_at, s.tracked)
                             THEN excluded.tracked ELSE s.tracked END,
                         whole_delivered_at = least(s.whole_delivered_at, excluded.whole_delivered_at)";
        shipment_lines = "INSERT INTO shipment_lines AS l (shipment_id, order_id, line_no, quantity)
                          SELECT * FROM unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[])
                          ON CONFLICT (shipment_id, order_id, line_no) DO UPDATE
                          SET quantity = l.quantity + excluded.quantity";
        parcels = "INSERT INTO parcels AS p
                       (parcel_id, shipment_id, tracking_number, weight_grams, tracked_at, tracked, delivered_at)
                   SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::text[],
                                        $7::timestamptz[])
                   ON CONFLICT (parcel_id) DO UPDATE SET
                       tracking_number = coalesce(p.tracking_number, excluded.tracking_number),
                       weight_grams = coalesce(p.weight_grams, excluded.weight_grams),
                       tracked_at = greatest(p.tracked_at, excluded.tracked_at),
                       tracked = CASE WHEN p.tracked_at IS NULL
                                        OR (excluded.tracked_at, excluded.tracked) > (p.tracked_at, p.tracked)
                           THEN excluded.tracked ELSE p.tracked END,
                       delivered_at = least(p.delivered_at, excluded.delivered_at)";
        deliver = "UPDATE shipments s SET parcels_delivered_at = p.at
                   FROM (SELECT shipment_id, CASE WHEN bool_and(delivered_at IS NOT NULL) THEN max(delivered_at) END AS at
                         FROM parcels WHERE shipment_id = ANY($1::text[]) GROUP BY shipment_id) p
                   WHERE s.shipment_id = p.shipment_id AND s.despatched_at IS NOT NULL
                     AND s.parcels_delivered_at IS DISTINCT FROM p.at";
        stock = "INSERT INTO stock AS s
                     (sku, location_id, condition, on_hand, reserved, picked, version, updated_at)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                                      $7::bigint[], $8::timestamptz[])
                 ON CONFLICT (sku, location_id, condition) DO UPDATE SET
                     on_hand = excluded.on_hand, reserved = excluded.reserved, picked = excluded.picked,
                     version = excluded.version, updated_at = excluded.updated_at
                 WHERE s.version < excluded.version";
        postings = "INSERT INTO postings (posting_id, order_id, kind, account, currency, amount_minor, cause, at)
                    SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                                         $7::text[], $8::timestamptz[])
                    ON CONFLICT DO NOTHING";
        notifications = "INSERT INTO notifications (notification_id, order_id, purpose, channel, status, at, revision,
                                                    language, shipment_id)
                         SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[],
                                              $6::timestamptz[], $7::int[], $8::text[], $9::text[])
                         ON CONFLICT DO NOTHING";
        dead_letters = "INSERT INTO dead_letters (topic, partition_no, record_offset, step, reason, key, payload, at)
                        SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bytea[],
                                             $7::bytea[], $8::timestamptz[])
                        ON CONFLICT DO NOTHING";
        // As long as their topic keeps them: what they hold may be about a person.
        old_dead_letters = "DELETE FROM dead_letters WHERE at < now() - interval '30 days'";
    }
}

/// The Postgres sink over one connection.
pub struct PgSink {
    url: String,
    schema: Schema,
    client: Client,
    statements: Statements,
    backend: (i32, At),
}

impl PgSink {
    /// Connects to the live read model of a deployment, over tables that [`crate::migrate()`] made. Its server may
    /// be another one than the ledger's.
    ///
    /// # Errors
    /// `Lost` while the server is away; `Stop` when it refuses us or the tables are not there.
    pub async fn connect(url: &str, prefix: &Prefix) -> Result<Self, LedgerError> {
        Self::connect_to(url, prefix.read()).await
    }

    /// Connects to the read model in `schema`.
    ///
    /// # Errors
    /// As [`PgSink::connect`].
    pub async fn connect_to(url: &str, schema: Schema) -> Result<Self, LedgerError> {
        let (client, statements, backend) = open(url, &schema).await?;
        Ok(Self { url: url.to_owned(), schema, client, statements, backend })
    }

    /// The pid of our backend in Postgres; fault tests end it.
    pub fn backend_pid(&self) -> i32 {
        self.backend.0
    }
}

async fn open(url: &str, schema: &Schema) -> Result<(Client, Statements, (i32, At)), LedgerError> {
    let client = connect(url, schema, Purpose::Sink).await?;
    let statements = Statements::prepare(&client).await?;
    let row =
        client.query_one("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()", &[]).await?;
    Ok((client, statements, (row.get(0), row.get(1))))
}

impl Sink for PgSink {
    type Txn<'a> = PgSinkTxn<'a>;

    async fn progress(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError> {
        let row = self.client.query_opt(&self.statements.progress, &[&at.topic.name(), &at.partition]).await?;
        Ok(row.map(|row| Progress {
            next_offset: row.get(0),
            owner_epoch: row.get(1),
            topic_id: row.get(2),
            emitted_floor: row.get(0),
            sent_from: Ends::new(),
            clean: row.get(3),
        }))
    }

    async fn take(&mut self, at: TopicPartition, topic_id: &str, start_offset: i64) -> Result<Progress, LedgerError> {
        let Self { client, statements, .. } = self;
        let topic = at.topic.name();
        // Before anything that would wait for its locks.
        let ended: Option<bool> =
            client.query_opt(&statements.end_owner, &[&topic, &at.partition]).await?.map(|row| row.get(0));
        if ended == Some(false) {
            return Err(LedgerError::Lost(format!(
                "the previous owner's session of {topic}/{} does not end",
                at.partition
            )));
        }
        let txn = client.transaction().await?;
        let clean = txn.query_opt(&statements.was_clean, &[&topic, &at.partition]).await?.is_none_or(|row| row.get(0));
        if at.topic == Topic::DeadLetters {
            txn.execute(&statements.old_dead_letters, &[]).await?;
        }
        let row = txn.query_one(&statements.take, &[&topic, &at.partition, &topic_id, &start_offset]).await?;
        let next_offset = row.get(0);
        let progress = Progress {
            next_offset,
            owner_epoch: row.get(1),
            topic_id: row.get(2),
            emitted_floor: next_offset,
            sent_from: Ends::new(),
            clean,
        };
        txn.commit().await?;
        Ok(progress)
    }

    async fn begin(&mut self) -> Result<PgSinkTxn<'_>, LedgerError> {
        let Self { client, statements, .. } = self;
        Ok(PgSinkTxn { txn: client.transaction().await?, statements, failed: false })
    }

    async fn leave(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        let topics = col(at, |(at, _)| at.topic.name());
        let partitions = col(at, |(at, _)| at.partition);
        let epochs = col(at, |(_, epoch)| epoch);
        self.client.execute(&self.statements.leave, &[&topics, &partitions, &epochs]).await?;
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), LedgerError> {
        let (client, statements, backend) = open(&self.url, &self.schema).await?;
        // Our old session may be at work still, a commit of ours among it: nothing is known before it is gone.
        let ended: Option<bool> =
            client.query_opt(&statements.end_backend, &[&self.backend.0, &self.backend.1]).await?.map(|row| row.get(0));
        if ended == Some(false) {
            return Err(LedgerError::Lost("our previous session does not end".into()));
        }
        (self.client, self.statements, self.backend) = (client, statements, backend);
        Ok(())
    }
}

/// An open transaction of the sink. Dropping it rolls back.
pub struct PgSinkTxn<'a> {
    txn: Transaction<'a>,
    statements: &'a Statements,
    /// A statement failed: Postgres would answer COMMIT with a rollback and no error.
    failed: bool,
}

impl SinkTxn for PgSinkTxn<'_> {
    async fn advance(&mut self, moves: &[Advance]) -> Result<bool, LedgerError> {
        self.failed = true;
        let topics: Vec<&str> = moves.iter().map(|it| it.at.topic.name()).collect();
        let partitions: Vec<i32> = moves.iter().map(|it| it.at.partition).collect();
        let epochs: Vec<i64> = moves.iter().map(|it| it.owner_epoch).collect();
        let from: Vec<i64> = moves.iter().map(|it| it.from_offset).collect();
        let to: Vec<i64> = moves.iter().map(|it| it.to_offset).collect();
        let moved = self.txn.execute(&self.statements.advance, &[&topics, &partitions, &epochs, &from, &to]).await?;
        let all = usize::try_from(moved) == Ok(moves.len());
        self.failed = !all;
        Ok(all)
    }

    async fn apply(&mut self, records: &[SinkRecord]) -> Result<(), LedgerError> {
        let failed = std::mem::replace(&mut self.failed, true);
        let events = records.iter().filter_map(|record| match &record.input {
            SinkInput::Event(event) => Some((event, &record.headers)),
            SinkInput::DeadLetter(_) => None,
        });
        self.apply_events(events).await?;
        self.apply_dead_letters(records).await?;
        self.failed = failed;
        Ok(())
    }

    async fn commit(self) -> Result<(), LedgerError> {
        if self.failed {
            return Err(LedgerError::Refused("a statement of this transaction failed; it cannot be committed".into()));
        }
        Ok(self.txn.commit().await?)
    }
}

/// A statement that is sent when polled; nothing when there are no rows.
macro_rules! written {
    ($txn:expr, $statement:expr, $rows:expr, $params:expr) => {
        async { if $rows.is_empty() { Ok(0) } else { $txn.execute($statement, $params).await } }
    };
}

/// A column of rows.
fn col<T: Copy, U>(rows: &[T], value: impl Fn(T) -> U) -> Vec<U> {
    rows.iter().map(|row| value(*row)).collect()
}

/// The key and the change of each entry.
macro_rules! entries {
    ($map:expr) => {
        $map.iter().map(|(key, change)| (*key, change)).collect::<Vec<_>>()
    };
}

impl PgSinkTxn<'_> {
    /// Applies the events that are new.
    pub(super) async fn apply_events<'a>(
        &self,
        events: impl Iterator<Item = (&'a LedgerEvent, &'a Headers)>,
    ) -> Result<(), LedgerError> {
        let all: Vec<(&LedgerEvent, &Headers)> = events.collect();
        let mut fresh = self.write_timeline(&all).await?;
        let new = all.iter().map(|(event, _)| *event).filter(|event| match event.place() {
            // Taken out, so that one that is twice in this batch is applied once.
            Some((order, seq)) => fresh.remove(&(order.0, seq)),
            None => true,
        });
        self.write_changes(&Changes::of(new)).await
    }

    /// Writes the timeline; gives back which events were not there yet.
    async fn write_timeline(&self, all: &[(&LedgerEvent, &Headers)]) -> Result<HashSet<(Uuid, i64)>, LedgerError> {
        let mut rows: Vec<(OrderId, i64, &LedgerEvent, &Headers)> = all
            .iter()
            .filter_map(|(event, headers)| event.place().map(|(order, seq)| (order, seq, *event, *headers)))
            .collect();
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        rows.sort_by_key(|(order, seq, ..)| (*order, *seq));
        let written = self
            .txn
            .query(
                &self.statements.timeline,
                &[
                    &col(&rows, |row| row.0.0),
                    &col(&rows, |row| row.1),
                    &col(&rows, |row| row.2.topic().name()),
                    &col(&rows, |row| At(row.2.at())),
                    &col(&rows, |row| cause(row.3)),
                    &col(&rows, |row| detail(row.2)),
                ],
            )
            .await?;
        Ok(written.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn write_changes(&self, changes: &Changes<'_>) -> Result<(), LedgerError> {
        let Self { txn, statements, .. } = self;
        let orders = entries!(changes.orders);
        let accepted: Vec<_> = orders.iter().filter_map(|(id, order)| Some((*id, *order, order.accepted?))).collect();
        let moved: Vec<_> = orders.into_iter().filter(|(_, order)| order.accepted.is_none()).collect();
        let lines = entries!(changes.lines);
        let charges = entries!(changes.charges);
        let holds = entries!(changes.holds);
        let held: Vec<Uuid> = changes.held().into_iter().map(|order| order.0).collect();
        let shipments = entries!(changes.shipments);
        let shipment_lines = entries!(changes.shipment_lines);
        let parcels = entries!(changes.parcels);
        let mut with_parcels: Vec<&str> = changes.with_parcels().into_iter().collect();
        with_parcels.sort_unstable();
        let stock = entries!(changes.stock);
        let postings = entries!(changes.postings);
        let notifications = entries!(changes.notifications);
        tokio::try_join!(
            biased;
            written!(txn, &statements.accepted, accepted, &[
                &col(&accepted, |(id, ..)| id.0),
                &col(&accepted, |(_, it, _)| it.reserved),
                &col(&accepted, |(_, it, _)| it.shipped),
                &col(&accepted, |(_, it, _)| it.cancelled),
                &col(&accepted, |(_, it, _)| it.picked),
                &col(&accepted, |(_, it, _)| it.fulfilments),
                &col(&accepted, |(_, it, _)| it.released),
                &col(&accepted, |(_, it, _)| it.backordered),
                &col(&accepted, |(_, it, _)| it.whole_cancelled),
                &col(&accepted, |(_, it, _)| it.paid.map(|paid| paid.seq)),
                &col(&accepted, |(_, it, _)| it.paid.map(|paid| paid.state.as_str())),
                &col(&accepted, |(_, it, _)| it.paid.map(|paid| paid.authorised_minor)),
                &col(&accepted, |(_, it, _)| it.paid.map(|paid| paid.captured_minor)),
                &col(&accepted, |(_, it, _)| it.paid.map(|paid| paid.refunded_minor)),
                &col(&accepted, |(_, it, _)| it.outcome.map(|(seq, _)| seq)),
                &col(&accepted, |(_, it, _)| it.outcome.map(|(_, outcome)| outcome)),
                &col(&accepted, |(_, it, _)| At(it.updated_at)),
                &col(&accepted, |(_, it, _)| it.accepted_at.map(At)),
                &col(&accepted, |(.., it)| it.revision),
                &col(&accepted, |(.., it)| it.order_no),
                &col(&accepted, |(.., it)| it.order.channel.as_str()),
                &col(&accepted, |(.., it)| it.order.channel_order_id.as_str()),
                &col(&accepted, |(.., it)| it.order.shop.as_str()),
                &col(&accepted, |(.., it)| it.order.account.as_str()),
                &col(&accepted, |(.., it)| At(it.order.placed_at)),
                &col(&accepted, |(.., it)| it.order.currency.as_str()),
                &col(&accepted, |(.., it)| it.order.total_minor),
                &col(&accepted, |(.., it)| sum(it.order.charges.iter().map(|charge| charge.amount_minor))),
                &col(&accepted, |(.., it)| it.order.customer_ref.as_deref()),
                &col(&accepted, |(.., it)| it.order.country.as_str()),
                &col(&accepted, |(.., it)| {
                    it.order.delivery.promised_at.or(it.order.lines.iter().filter_map(|line| line.promised_at).max()).map(At)
                }),
                &col(&accepted, |(.., it)| {
                    it.order.delivery.ship_by.or(it.order.lines.iter().filter_map(|line| line.ship_by).min()).map(At)
                }),
                &col(&accepted, |(.., it)| it.order.test),
                &col(&accepted, |(.., it)| it.order.payment.method.as_str()),
                &col(&accepted, |(.., it)| sum(it.order.lines.iter().map(|line| line.quantity))),
                &col(&accepted, |(.., it)| said(&it.party.ship_to.name)),
                &col(&accepted, |(.., it)| it.party.ship_to.company.as_deref()),
                &col(&accepted, |(.., it)| street(&it.party.ship_to)),
                &col(&accepted, |(.., it)| said(&it.party.ship_to.postcode)),
                &col(&accepted, |(.., it)| said(&it.party.ship_to.city)),
                &col(&accepted, |(.., it)| it.party.email.as_deref()),
                &col(&accepted, |(.., it)| it.party.phone.as_deref()),
            ]),
            written!(txn, &statements.moved, moved, &[
                &col(&moved, |(id, _)| id.0),
                &col(&moved, |(_, it)| it.reserved),
                &col(&moved, |(_, it)| it.shipped),
                &col(&moved, |(_, it)| it.cancelled),
                &col(&moved, |(_, it)| it.picked),
                &col(&moved, |(_, it)| it.fulfilments),
                &col(&moved, |(_, it)| it.released),
                &col(&moved, |(_, it)| it.backordered),
                &col(&moved, |(_, it)| it.whole_cancelled),
                &col(&moved, |(_, it)| it.paid.map(|paid| paid.seq)),
                &col(&moved, |(_, it)| it.paid.map(|paid| paid.state.as_str())),
                &col(&moved, |(_, it)| it.paid.map(|paid| paid.authorised_minor)),
                &col(&moved, |(_, it)| it.paid.map(|paid| paid.captured_minor)),
                &col(&moved, |(_, it)| it.paid.map(|paid| paid.refunded_minor)),
                &col(&moved, |(_, it)| it.outcome.map(|(seq, _)| seq)),
                &col(&moved, |(_, it)| it.outcome.map(|(_, outcome)| outcome)),
                &col(&moved, |(_, it)| At(it.updated_at)),
                &col(&moved, |(_, it)| it.accepted_at.map(At)),
            ]),
            written!(txn, &statements.lines, lines, &[
                &col(&lines, |((id, _), _)| id.0),
                &col(&lines, |((_, line_no), _)| line_no),
                &col(&lines, |(_, it)| it.described.map(|(revision, _)| revision)),
                &col(&lines, |(_, it)| it.described.map(|(_, line)| line.sku.as_str())),
                &col(&lines, |(_, it)| it.described.and_then(|(_, line)| line.description.as_deref())),
                &col(&lines, |(_, it)| it.described.map(|(_, line)| line.quantity)),
                &col(&lines, |(_, it)| it.described.map(|(_, line)| line.unit_price.to_string())),
                &col(&lines, |(_, it)| it.described.map(|(_, line)| line.line_total_minor)),
                &col(&lines, |(_, it)| it.described.and_then(|(_, line)| line.promised_at).map(At)),
                &col(&lines, |(_, it)| it.described.and_then(|(_, line)| line.ship_by).map(At)),
                &col(&lines, |(_, it)| it.reserved),
                &col(&lines, |(_, it)| it.shipped),
                &col(&lines, |(_, it)| it.cancelled),
            ]),
            written!(txn, &statements.charges, charges, &[
                &col(&charges, |((id, _), _)| id.0),
                &col(&charges, |((_, charge_no), _)| charge_no),
                &col(&charges, |(_, it)| it.0),
                &col(&charges, |(_, it)| it.1.kind.as_str()),
                &col(&charges, |(_, it)| it.1.code.as_str()),
                &col(&charges, |(_, it)| it.1.description.as_deref()),
                &col(&charges, |(_, it)| it.1.quantity),
                &col(&charges, |(_, it)| it.1.unit_price.to_string()),
                &col(&charges, |(_, it)| it.1.amount_minor),
            ]),
            written!(txn, &statements.holds, holds, &[
                &col(&holds, |((id, _), _)| id.0),
                &col(&holds, |((_, hold_id), _)| hold_id),
                &col(&holds, |(_, it)| {
                    let opened = it.opened.map(|hold| hold.reason);
                    opened.or(it.resolved.map(|(hold, _)| hold.reason)).unwrap_or_default().as_str()
                }),
                &col(&holds, |(_, it)| it.opened.and_then(|hold| hold.line_no)),
                &col(&holds, |(_, it)| it.opened.map(|hold| hold.detail.as_str())),
                &col(&holds, |(_, it)| it.opened.map(|hold| At(hold.opened_at))),
                &col(&holds, |(_, it)| it.opened.map(|hold| At(hold.due_at))),
                &col(&holds, |(_, it)| it.resolved.map(|(_, at)| At(at))),
                &col(&holds, |(_, it)| it.resolved.map(|(hold, _)| hold.resolution.as_str())),
                &col(&holds, |(_, it)| it.resolved.map(|(hold, _)| hold.by.as_str())),
            ]),
            written!(txn, &statements.count_holds, held, &[&held]),
            written!(txn, &statements.shipments, shipments, &[
                &col(&shipments, |(id, _)| id),
                &col(&shipments, |(_, it)| it.despatched.map(|it| it.location_id.as_str())),
                &col(&shipments, |(_, it)| it.despatched.and_then(|it| it.carrier.as_deref())),
                &col(&shipments, |(_, it)| it.despatched.and_then(|it| it.service.as_deref())),
                &col(&shipments, |(_, it)| it.despatched.map(|it| it.simulated)),
                &col(&shipments, |(_, it)| it.despatched.map(|it| At(it.despatched_at))),
                &col(&shipments, |(_, it)| tracked_at(&it.milestones)),
                &col(&shipments, |(_, it)| it.milestones.latest.map(|(_, kind)| kind)),
                &col(&shipments, |(_, it)| it.milestones.delivered_at.map(At)),
            ]),
            written!(txn, &statements.shipment_lines, shipment_lines, &[
                &col(&shipment_lines, |((shipment, ..), _)| shipment),
                &col(&shipment_lines, |((_, order, _), _)| order.0),
                &col(&shipment_lines, |((.., line_no), _)| line_no),
                &col(&shipment_lines, |(_, units)| *units),
            ]),
            written!(txn, &statements.parcels, parcels, &[
                &col(&parcels, |(id, _)| id),
                &col(&parcels, |(_, it)| it.shipment_id),
                &col(&parcels, |(_, it)| it.parcel.and_then(|it| it.tracking_number.as_deref())),
                &col(&parcels, |(_, it)| it.parcel.and_then(|it| it.weight_grams)),
                &col(&parcels, |(_, it)| tracked_at(&it.milestones)),
                &col(&parcels, |(_, it)| it.milestones.latest.map(|(_, kind)| kind)),
                &col(&parcels, |(_, it)| it.milestones.delivered_at.map(At)),
            ]),
            written!(txn, &statements.deliver, with_parcels, &[&with_parcels]),
            written!(txn, &statements.stock, stock, &[
                &col(&stock, |((sku, ..), _)| sku),
                &col(&stock, |((_, location, _), _)| location),
                &col(&stock, |((.., condition), _)| condition),
                &col(&stock, |(_, it)| it.on_hand),
                &col(&stock, |(_, it)| it.reserved),
                &col(&stock, |(_, it)| it.picked),
                &col(&stock, |(_, it)| it.version),
                &col(&stock, |(_, it)| At(it.at)),
            ]),
            written!(txn, &statements.postings, postings, &[
                &col(&postings, |((id, ..), _)| id),
                &col(&postings, |(_, it)| it.0.order_id.0),
                &col(&postings, |(_, it)| it.0.kind.as_str()),
                &col(&postings, |((_, account, _), _)| account),
                &col(&postings, |((.., currency), _)| currency),
                &col(&postings, |(_, it)| it.1),
                &col(&postings, |(_, it)| it.0.cause.as_str()),
                &col(&postings, |(_, it)| At(it.0.at)),
            ]),
            written!(txn, &statements.notifications, notifications, &[
                &col(&notifications, |(id, _)| id),
                &col(&notifications, |(_, it)| it.order_id.0),
                &col(&notifications, |(_, it)| it.purpose.as_str()),
                &col(&notifications, |(_, it)| it.medium.as_str()),
                &col(&notifications, |_| "requested"),
                &col(&notifications, |(_, it)| At(it.at)),
                &col(&notifications, |(_, it)| it.revision),
                &col(&notifications, |(_, it)| it.language.as_deref()),
                &col(&notifications, |(_, it)| it.shipment_id.as_deref()),
            ]),
        )?;
        Ok(())
    }

    async fn apply_dead_letters(&self, records: &[SinkRecord]) -> Result<(), LedgerError> {
        let letters: Vec<_> = records
            .iter()
            .filter_map(|record| match &record.input {
                SinkInput::DeadLetter(letter) => Some(letter.as_ref()),
                SinkInput::Event(_) => None,
            })
            .collect();
        if letters.is_empty() {
            return Ok(());
        }
        self.txn
            .execute(
                &self.statements.dead_letters,
                &[
                    &col(&letters, |it| it.topic.as_str()),
                    &col(&letters, |it| it.partition),
                    &col(&letters, |it| it.offset),
                    &col(&letters, |it| it.step.as_str()),
                    &col(&letters, |it| it.reason.as_str()),
                    &col(&letters, |it| it.key.as_deref()),
                    &col(&letters, |it| it.payload.as_deref()),
                    &col(&letters, |it| At(it.at)),
                ],
            )
            .await?;
        self.txn.execute(&self.statements.old_dead_letters, &[]).await?;
        Ok(())
    }
}

fn tracked_at(milestones: &Milestones) -> Option<At> {
    milestones.latest.map(|(at, _)| At(at))
}

fn sum(numbers: impl Iterator<Item = i64>) -> i64 {
    numbers.fold(0, i64::saturating_add)
}

/// Empty text is not said.
fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn street(address: &Address) -> Option<String> {
    let parts =
        [Some(address.street.as_str()), address.house_number.as_deref(), address.house_number_addition.as_deref()];
    let street = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    (!street.is_empty()).then_some(street)
}

fn cause(headers: &Headers) -> Option<String> {
    headers.cause.as_ref().map(|(topic, partition, offset)| format!("{topic}/{partition}/{offset}"))
}
