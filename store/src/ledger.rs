//! The ledger in Postgres.
//!
//! One query each for orders, contents, causes, SKUs and stock rows, whatever the size of the batch; locks always in
//! the order orders, SKUs, stock rows, each in key order. Only what differs from what was locked is written.

use std::collections::{BTreeMap, BTreeSet};

use kept_processors::ledger::{Content, Facts, LedgerEvent, OrderState, Sku, StockKey, StockRow, Timer};
use kept_schemas::{
    EventId, Headers, OrderId, Party, Topic, Wire,
    codec::{erased_party, erased_party_of},
    inputs::Condition,
};
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use crate::{
    pg::{At, Prefix, Purpose, Schema, connect},
    seam::{
        Advance, DecidedWith, Ends, JournalRow, Keys, Ledger, LedgerError, LedgerTxn, LetGo, Locked, Parked, Progress,
        Queue, TopicPartition, Written,
    },
    statements::statements,
};

/// How many waiting orders a batch hears of per SKU. More hear of it when these have been dealt with.
const WAITING_PER_SKU: i64 = 256;

/// A query that is sent when polled; nothing when `skip`.
macro_rules! read {
    ($txn:expr, $statement:expr, $skip:expr, $params:expr) => {
        async { if $skip { Ok(Vec::new()) } else { $txn.query($statement, $params).await } }
    };
}

/// A statement that is sent when polled, giving the number of rows it touched; nothing when `skip`.
macro_rules! written {
    ($txn:expr, $statement:expr, $skip:expr, $params:expr) => {
        async { if $skip { Ok(0) } else { $txn.execute($statement, $params).await } }
    };
}

/// The columns of [`journal_row`], in its order.
macro_rules! journal_columns {
    () => {
        "j.journal_id, o.order_id, j.seq, j.event_id, j.topic, j.key, j.body, j.party, j.cause_id, p.topic, \
         p.partition_no, j.cause_offset, j.cause_index, j.traceparent, j.headers, \
         CASE WHEN j.party IS NULL THEN (SELECT t.text FROM schema_texts t WHERE t.schema_id = \
             ('x' || encode(substring(j.body FROM 2 FOR 4), 'hex'))::bit(32)::integer) END"
    };
}
pub(crate) use journal_columns;

statements! {
    struct Statements {
        progress = "SELECT next_offset, owner_epoch, topic_id, emitted_floor, clean, sent_from FROM progress
                    WHERE step = $1 AND topic = $2 AND partition_no = $3";
        end_owner = "SELECT pg_terminate_backend(a.pid, 3000)
                     FROM progress p JOIN pg_stat_activity a
                       ON a.pid = p.owner_pid AND a.backend_start = p.owner_started
                     WHERE p.step = $1 AND p.topic = $2 AND p.partition_no = $3 AND a.pid <> pg_backend_pid()";
        end_backend = "SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity
                       WHERE pid = $1 AND backend_start = $2 AND pid <> pg_backend_pid()";
        was_clean = "SELECT clean FROM progress WHERE step = $1 AND topic = $2 AND partition_no = $3 FOR UPDATE";
        take = "INSERT INTO progress AS p (step, topic, partition_no, next_offset, owner_epoch, owner_pid,
                                           owner_started, topic_id, emitted_floor, clean)
                SELECT $1, $2, $3, $5, 1, pid, backend_start, $4, $5, false
                FROM pg_stat_activity WHERE pid = pg_backend_pid()
                ON CONFLICT (step, topic, partition_no) DO UPDATE
                SET owner_epoch = p.owner_epoch + 1, owner_pid = excluded.owner_pid,
                    owner_started = excluded.owner_started, clean = false
                RETURNING next_offset, owner_epoch, topic_id, emitted_floor, place, sent_from";
        forget_attempts = "DELETE FROM attempts WHERE step = $1 AND topic = $2 AND partition_no = $3
                           AND record_offset < $4";
        attempt = "INSERT INTO attempts AS a (step, topic, partition_no, record_offset, attempts)
                   VALUES ($1, $2, $3, $4, 1)
                   ON CONFLICT (step, topic, partition_no, record_offset) DO UPDATE SET attempts = a.attempts + 1
                   RETURNING attempts";
        emitted = "UPDATE progress p SET
                       sent_from = CASE WHEN u.floor >= p.emitted_floor THEN $6 ELSE p.sent_from END,
                       emitted_floor = greatest(p.emitted_floor, u.floor)
                   FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) u(topic, partition_no, epoch, floor)
                   WHERE p.step = $1 AND p.topic = u.topic AND p.partition_no = u.partition_no
                     AND p.owner_epoch = u.epoch";
        leave = "UPDATE progress p SET clean = true, owner_pid = NULL, owner_started = NULL
                 FROM unnest($2::text[], $3::int[], $4::bigint[]) u(topic, partition_no, epoch)
                 WHERE p.step = $1 AND p.topic = u.topic AND p.partition_no = u.partition_no
                   AND p.owner_epoch = u.epoch";
        unemitted = concat!(
            "SELECT ", journal_columns!(), "
             FROM journal j JOIN progress p ON p.place = j.place LEFT JOIN orders o ON o.order_no = j.order_no
             WHERE j.place = (SELECT place FROM progress WHERE step = $1 AND topic = $2 AND partition_no = $3)
               AND j.cause_offset >= $4 AND j.cause_offset < $5
             ORDER BY j.cause_offset FETCH FIRST ($6) ROWS WITH TIES"
        );

        advance = "UPDATE progress p
                   SET next_offset = u.to_offset
                   FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])
                        u(topic, partition_no, epoch, from_offset, to_offset)
                   WHERE p.step = $1 AND p.topic = u.topic AND p.partition_no = u.partition_no
                     AND p.owner_epoch = u.epoch AND p.next_offset = u.from_offset";
        now = "SELECT now()";
        // An id that is there already would use up a number, so it is left out before it conflicts.
        new_orders = "INSERT INTO orders (order_id)
                      SELECT u.id FROM unnest($1::uuid[]) u(id)
                      WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = u.id)
                      ORDER BY u.id ON CONFLICT DO NOTHING";
        orders = "SELECT o.order_id, o.order_no, o.erased_at IS NOT NULL FROM orders o
                  WHERE o.order_id = ANY($1::uuid[])
                  ORDER BY o.order_id FOR UPDATE";
        states = "SELECT o.order_id, s.state FROM orders o JOIN states s USING (order_no)
                  WHERE o.order_id = ANY($1::uuid[])";
        contents = "SELECT o.order_id, c.content, c.party
                    FROM orders o JOIN contents c USING (order_no) WHERE o.order_id = ANY($1::uuid[])";
        causes = "SELECT o.order_id, c.cause_id
                  FROM unnest($1::uuid[], $2::uuid[]) u(order_id, cause_id)
                  JOIN orders o ON o.order_id = u.order_id
                  JOIN causes c ON c.order_no = o.order_no AND c.cause_id = u.cause_id";
        // The first record of each order, if it was let go, and how many wait.
        parked = "SELECT DISTINCT ON (order_id) order_id, CASE WHEN released_at IS NOT NULL THEN event_id END, parked_id,
                         count(*) OVER (PARTITION BY order_id)
                  FROM parked WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, parked_id";
        new_skus = "INSERT INTO skus (sku)
                    SELECT u.sku FROM unnest($1::text[]) u(sku)
                    WHERE NOT EXISTS (SELECT FROM skus s WHERE s.sku = u.sku)
                    ORDER BY u.sku COLLATE \"C\" ON CONFLICT DO NOTHING";
        skus = "SELECT sku, claimed FROM skus WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE";
        stock = "SELECT sku, location_id, condition, on_hand, reserved, picked, version, unbacked FROM stock
                 WHERE sku = ANY($1::text[]) ORDER BY sku, location_id, condition FOR UPDATE";
        stock_causes = "SELECT cause_id FROM stock_causes WHERE cause_id = ANY($1::uuid[])";
        waiting = "SELECT u.sku, o.order_id
                   FROM unnest($1::text[]) u(sku)
                   CROSS JOIN LATERAL (SELECT order_no FROM waits w WHERE w.sku = u.sku ORDER BY order_no LIMIT $2) w
                   JOIN orders o USING (order_no) ORDER BY u.sku, w.order_no";

        write_states = "INSERT INTO states (order_no, seq, state)
                        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[])
                        ON CONFLICT (order_no) DO UPDATE
                        SET seq = excluded.seq, state = excluded.state, updated_at = now()";
        write_contents = "INSERT INTO contents (order_no, content, party)
                          SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[])
                          ON CONFLICT (order_no) DO UPDATE SET content = excluded.content, party = excluded.party";
        write_skus = "UPDATE skus s SET claimed = u.claimed
                      FROM unnest($1::text[], $2::bigint[]) u(sku, claimed) WHERE s.sku = u.sku";
        write_stock = "INSERT INTO stock (sku, location_id, condition, on_hand, reserved, picked, version, unbacked)
                       SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[],
                                            $6::bigint[], $7::bigint[], $8::bigint[])
                       ON CONFLICT (sku, location_id, condition) DO UPDATE
                       SET on_hand = excluded.on_hand, reserved = excluded.reserved, picked = excluded.picked,
                           version = excluded.version, unbacked = excluded.unbacked";
        write_entries = "INSERT INTO stock_entries (cause_id, cause_index, sku, location_id, condition, version,
                                                    movement, quantity, on_hand, reserved, picked, claimed, cause, at,
                                                    unbacked)
                         SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                                              $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
                                              $12::bigint[], $13::text[], $14::timestamptz[], $15::bigint[])";
        write_causes = "INSERT INTO causes (order_no, cause_id) SELECT * FROM unnest($1::bigint[], $2::uuid[])";
        write_stock_causes = "INSERT INTO stock_causes (cause_id) SELECT * FROM unnest($1::uuid[])";
        drop_waits = "DELETE FROM waits w USING unnest($1::text[], $2::bigint[]) u(sku, order_no)
                      WHERE w.sku = u.sku AND w.order_no = u.order_no";
        write_waits = "INSERT INTO waits (sku, order_no) SELECT * FROM unnest($1::text[], $2::bigint[])
                       ON CONFLICT DO NOTHING";
        drop_timers = "DELETE FROM timers t USING unnest($1::bigint[], $2::text[]) u(order_no, timer_id)
                       WHERE t.order_no = u.order_no AND t.timer_id = u.timer_id";
        write_timers = "INSERT INTO timers (order_no, timer_id, purpose, revision, due_at)
                        SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[])
                        ON CONFLICT (order_no, timer_id) DO UPDATE
                        SET purpose = excluded.purpose, revision = excluded.revision, due_at = excluded.due_at";
        // Numbers are given in the order of the arrays, which is the order of the decisions.
        write_journal = "INSERT INTO journal (order_no, seq, cause_offset, place, cause_index, event_id, cause_id, topic,
                                              key, traceparent, headers, body, party)
                         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::int[],
                                              $6::uuid[], $7::uuid[], $8::text[], $9::text[], $10::text[],
                                              $11::text[], $12::bytea[], $13::bytea[])";
        write_with = "INSERT INTO decided_with (place, from_offset, code, versions)
                      SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[])
                      ON CONFLICT (place, from_offset)
                      DO UPDATE SET code = excluded.code, versions = excluded.versions";
        write_parked = "INSERT INTO parked (order_id, topic, partition_no, record_offset, event_id, traceparent, key,
                                            payload, reason)
                        SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::uuid[], $6::text[],
                                             $7::bytea[], $8::bytea[], $9::text[])
                        ON CONFLICT (topic, partition_no, record_offset, event_id) DO NOTHING";
        write_parked_again = "UPDATE parked p
                              SET topic = u.topic, partition_no = u.partition_no, record_offset = u.record_offset,
                                  traceparent = u.traceparent, reason = u.reason, released_at = NULL,
                                  released_by = NULL
                              FROM unnest($1::bigint[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::text[])
                                   u(parked_id, topic, partition_no, record_offset, traceparent, reason)
                              WHERE p.parked_id = u.parked_id";
        drop_parked = "DELETE FROM parked WHERE parked_id = ANY($1::bigint[])";
    }
}

/// The ledger of one step over one connection.
pub struct PgLedger {
    url: String,
    schema: Schema,
    step: String,
    client: Client,
    statements: Statements,
    /// Our backend: its pid and when it started.
    backend: (i32, At),
    /// Partitions we took and the epoch we have them under.
    owned: BTreeMap<TopicPartition, i64>,
    /// What the journal calls the partitions we ever took.
    places: BTreeMap<TopicPartition, i32>,
}

impl PgLedger {
    /// Connects as `step` (the name in `progress`), over tables that [`crate::migrate()`] made.
    ///
    /// # Errors
    /// `Lost` while the server is away; `Stop` when it refuses us or the tables are not there.
    pub async fn connect(url: &str, prefix: &Prefix, step: &str) -> Result<Self, LedgerError> {
        let schema = prefix.ledger();
        let (client, statements, backend) = open(url, &schema).await?;
        let (url, step) = (url.to_owned(), step.to_owned());
        Ok(Self { url, schema, step, client, statements, backend, owned: BTreeMap::new(), places: BTreeMap::new() })
    }

    /// The pid of our backend in Postgres; fault tests end it.
    pub fn backend_pid(&self) -> i32 {
        self.backend.0
    }
}

/// As the column keeps them: offsets by topic, in the order of its partitions.
fn ends_text(ends: &Ends) -> String {
    let mut topics: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (at, &offset) in ends {
        let offsets = topics.entry(at.topic.name()).or_default();
        let index = usize::try_from(at.partition).unwrap_or(0);
        offsets.resize(offsets.len().max(index + 1), 0);
        offsets[index] = offset;
    }
    serde_json::to_string(&topics).expect("names and numbers are JSON")
}

/// What cannot be read, or is of topics that this version does not know, is looked for from their beginning.
fn ends(text: &str) -> Ends {
    let topics: BTreeMap<String, Vec<i64>> = serde_json::from_str(text).unwrap_or_default();
    let mut ends = Ends::new();
    for (name, offsets) in topics {
        let Some(topic) = Topic::of(&name) else { continue };
        ends.extend((0..).zip(offsets).map(|(partition, offset)| (TopicPartition { topic, partition }, offset)));
    }
    ends
}

async fn open(url: &str, schema: &Schema) -> Result<(Client, Statements, (i32, At)), LedgerError> {
    let client = connect(url, schema, Purpose::Ledger).await?;
    let statements = Statements::prepare(&client).await?;
    let row =
        client.query_one("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()", &[]).await?;
    Ok((client, statements, (row.get(0), row.get(1))))
}

impl Ledger for PgLedger {
    type Txn<'a> = PgTxn<'a>;

    async fn progress(&mut self, at: TopicPartition) -> Result<Option<Progress>, LedgerError> {
        let row =
            self.client.query_opt(&self.statements.progress, &[&self.step, &at.topic.name(), &at.partition]).await?;
        Ok(row.map(|row| Progress {
            next_offset: row.get(0),
            owner_epoch: row.get(1),
            topic_id: row.get(2),
            emitted_floor: row.get(3),
            sent_from: ends(row.get(5)),
            clean: row.get(4),
        }))
    }

    async fn take(&mut self, at: TopicPartition, topic_id: &str, start_offset: i64) -> Result<Progress, LedgerError> {
        let Self { step, client, statements, owned, places, .. } = self;
        let (step, topic) = (&*step, at.topic.name());
        // Before anything that would wait for its locks.
        let ended: Option<bool> =
            client.query_opt(&statements.end_owner, &[step, &topic, &at.partition]).await?.map(|row| row.get(0));
        if ended == Some(false) {
            return Err(LedgerError::Lost(format!(
                "the previous owner's session of {topic}/{} does not end",
                at.partition
            )));
        }
        let txn = client.transaction().await?;
        let clean =
            txn.query_opt(&statements.was_clean, &[step, &topic, &at.partition]).await?.is_none_or(|row| row.get(0));
        let row = txn.query_one(&statements.take, &[step, &topic, &at.partition, &topic_id, &start_offset]).await?;
        let progress = Progress {
            next_offset: row.get(0),
            owner_epoch: row.get(1),
            topic_id: row.get(2),
            emitted_floor: row.get(3),
            sent_from: ends(row.get(5)),
            clean,
        };
        // A step without memory moves only the floor.
        let done = progress.next_offset.max(progress.emitted_floor);
        txn.execute(&statements.forget_attempts, &[step, &topic, &at.partition, &done]).await?;
        txn.commit().await?;
        owned.insert(at, progress.owner_epoch);
        places.insert(at, row.get(4));
        Ok(progress)
    }

    async fn begin(&mut self) -> Result<PgTxn<'_>, LedgerError> {
        let Self { step, client, statements, places, .. } = self;
        Ok(PgTxn {
            txn: client.transaction().await?,
            statements,
            step,
            places,
            locked: Before::default(),
            failed: false,
        })
    }

    async fn unemitted(
        &mut self,
        at: TopicPartition,
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<(Vec<JournalRow>, i64), LedgerError> {
        let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        let rows = self
            .client
            .query(&self.statements.unemitted, &[&self.step, &at.topic.name(), &at.partition, &from, &to, &limit])
            .await?;
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= limit;
        let mut rows: Vec<JournalRow> =
            rows.iter().map(|row| journal_row(row, &self.step)).collect::<Result<_, _>>()?;
        let up_to = match rows.last() {
            Some(last) if full => last.cause.offset + 1,
            _ => to,
        };
        rows.sort_by_key(|row| row.journal_id);
        Ok((rows, up_to))
    }

    async fn emitted(&mut self, floors: &[(TopicPartition, i64)], sent_from: &Ends) -> Result<bool, LedgerError> {
        let owned: Vec<_> = floors.iter().filter_map(|(at, floor)| Some((*at, *self.owned.get(at)?, *floor))).collect();
        let topics: Vec<&str> = owned.iter().map(|(at, ..)| at.topic.name()).collect();
        let partitions: Vec<i32> = owned.iter().map(|(at, ..)| at.partition).collect();
        let epochs: Vec<i64> = owned.iter().map(|(_, epoch, _)| *epoch).collect();
        let raised: Vec<i64> = owned.iter().map(|(.., floor)| *floor).collect();
        let kept = self
            .client
            .execute(
                &self.statements.emitted,
                &[&self.step, &topics, &partitions, &epochs, &raised, &ends_text(sent_from)],
            )
            .await?;
        Ok(usize::try_from(kept) == Ok(floors.len()))
    }

    async fn attempt(&mut self, at: TopicPartition, offset: i64) -> Result<i32, LedgerError> {
        let row = self
            .client
            .query_one(&self.statements.attempt, &[&self.step, &at.topic.name(), &at.partition, &offset])
            .await?;
        Ok(row.get(0))
    }

    async fn leave(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), LedgerError> {
        let topics: Vec<&str> = at.iter().map(|(at, _)| at.topic.name()).collect();
        let partitions: Vec<i32> = at.iter().map(|(at, _)| at.partition).collect();
        let epochs: Vec<i64> = at.iter().map(|(_, epoch)| *epoch).collect();
        self.client.execute(&self.statements.leave, &[&self.step, &topics, &partitions, &epochs]).await?;
        for (at, epoch) in at {
            if self.owned.get(at) == Some(epoch) {
                self.owned.remove(at);
            }
        }
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
        self.owned.clear();
        Ok(())
    }
}

/// What was locked, as it was.
#[derive(Default)]
struct Before {
    orders: BTreeMap<OrderId, OrderBefore>,
    contents: BTreeMap<OrderId, (String, Option<Vec<u8>>)>,
    claims: BTreeMap<Sku, i64>,
    stock: BTreeMap<StockKey, StockRow>,
}

struct OrderBefore {
    order_no: i64,
    /// Its person was forgotten, and is not written again.
    erased: bool,
    state: String,
    waits: BTreeSet<Sku>,
    timers: Vec<Timer>,
}

/// An open transaction of the ledger. Dropping it rolls back.
pub struct PgTxn<'a> {
    txn: Transaction<'a>,
    statements: &'a Statements,
    step: &'a str,
    places: &'a BTreeMap<TopicPartition, i32>,
    locked: Before,
    /// A statement failed: Postgres would answer COMMIT with a rollback and no error.
    failed: bool,
}

impl LedgerTxn for PgTxn<'_> {
    async fn advance(&mut self, moves: &[Advance]) -> Result<bool, LedgerError> {
        let topics: Vec<&str> = moves.iter().map(|it| it.at.topic.name()).collect();
        let partitions: Vec<i32> = moves.iter().map(|it| it.at.partition).collect();
        let epochs: Vec<i64> = moves.iter().map(|it| it.owner_epoch).collect();
        let from: Vec<i64> = moves.iter().map(|it| it.from_offset).collect();
        let to: Vec<i64> = moves.iter().map(|it| it.to_offset).collect();
        self.failed = true;
        let moved = self
            .txn
            .execute(&self.statements.advance, &[&self.step, &topics, &partitions, &epochs, &from, &to])
            .await?;
        let all = usize::try_from(moved) == Ok(moves.len());
        // After a miss there is nothing to commit.
        self.failed = !all;
        Ok(all)
    }

    async fn lock(&mut self, keys: &Keys, skus: &mut dyn FnMut(&Facts) -> Vec<Sku>) -> Result<Locked, LedgerError> {
        let failed = std::mem::replace(&mut self.failed, true);
        let mut found = Locked::default();
        self.lock_orders(keys, &mut found).await?;
        let mut wanted: BTreeSet<Sku> = skus(&found.facts).into_iter().collect();
        wanted.extend(keys.skus.iter().cloned());
        self.lock_skus(&wanted, keys, &mut found).await?;
        self.failed = failed;
        Ok(found)
    }

    async fn write(&mut self, written: &Written) -> Result<(), LedgerError> {
        let failed = std::mem::replace(&mut self.failed, true);
        self.write_all(written).await?;
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

impl PgTxn<'_> {
    async fn lock_orders(&mut self, keys: &Keys, found: &mut Locked) -> Result<(), LedgerError> {
        let Self { txn, statements, locked, .. } = self;
        let ids: BTreeSet<Uuid> = keys.orders.iter().chain(&keys.contents).map(|id| id.0).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        let with_contents: Vec<Uuid> = keys.contents.iter().map(|id| id.0).collect();
        let (cause_orders, cause_ids): (Vec<Uuid>, Vec<Uuid>) =
            keys.causes.iter().map(|(order, cause)| (order.0, cause.0)).unzip();
        // Sent at once and done in this order, so that what follows the locks is read under them.
        let (now, _, orders, states, contents, causes, parked) = tokio::try_join!(
            biased;
            txn.query_one(&statements.now, &[]),
            written!(txn, &statements.new_orders, ids.is_empty(), &[&ids]),
            read!(txn, &statements.orders, ids.is_empty(), &[&ids]),
            read!(txn, &statements.states, ids.is_empty(), &[&ids]),
            read!(txn, &statements.contents, with_contents.is_empty(), &[&with_contents]),
            read!(txn, &statements.causes, cause_ids.is_empty(), &[&cause_orders, &cause_ids]),
            read!(txn, &statements.parked, ids.is_empty(), &[&ids]),
        )?;
        let At(now) = now.get(0);
        found.facts.now = now;
        let mut states: BTreeMap<Uuid, String> = states.iter().map(|row| (row.get(0), row.get(1))).collect();
        for row in &orders {
            let (id, order_no): (Uuid, i64) = (row.get(0), row.get(1));
            let order_id = OrderId(id);
            let state = states.remove(&id);
            let order = match &state {
                None => OrderState { order_id, order_no, ..OrderState::default() },
                Some(state) => serde_json::from_str(state).map_err(|error| {
                    LedgerError::Stop(format!("the state of order {order_id} cannot be read: {error}"))
                })?,
            };
            let before = OrderBefore {
                order_no,
                erased: row.get(2),
                state: state.unwrap_or_default(),
                waits: waits(&order),
                timers: order.timers.clone(),
            };
            locked.orders.insert(order_id, before);
            found.facts.orders.insert(order_id, order);
        }
        for row in contents {
            let (order_id, text, party): (Uuid, String, Option<Vec<u8>>) = (row.get(0), row.get(1), row.get(2));
            let order_id = OrderId(order_id);
            let unreadable = |error: serde_json::Error| {
                LedgerError::Stop(format!("the content of order {order_id} cannot be read: {error}"))
            };
            let mut content: Content = serde_json::from_str(&text).map_err(unreadable)?;
            if let Some(party) = &party {
                content.party = serde_json::from_slice(party).map_err(unreadable)?;
            }
            locked.contents.insert(order_id, (text, party));
            found.facts.contents.insert(order_id, content);
        }
        for row in causes {
            found.acted.insert((Some(OrderId(row.get(0))), EventId(row.get(1))));
        }
        for row in parked {
            let (parked_id, records): (i64, i64) = (row.get(2), row.get(3));
            let let_go = row.get::<_, Option<Uuid>>(1);
            let queue = Queue {
                let_go: let_go.map(|event_id| LetGo { event_id: EventId(event_id), parked_id }),
                records: usize::try_from(records).unwrap_or(usize::MAX),
            };
            found.parked.insert(OrderId(row.get(0)), queue);
        }
        Ok(())
    }

    async fn lock_skus(&mut self, wanted: &BTreeSet<Sku>, keys: &Keys, found: &mut Locked) -> Result<(), LedgerError> {
        let Self { txn, statements, locked, .. } = self;
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let stock_causes: Vec<Uuid> = keys.stock_causes.iter().map(|id| id.0).collect();
        let none = wanted.is_empty();
        let (mut skus, mut stock, causes, mut waiting) = tokio::try_join!(
            biased;
            read!(txn, &statements.skus, none, &[&wanted]),
            read!(txn, &statements.stock, none, &[&wanted]),
            read!(txn, &statements.stock_causes, stock_causes.is_empty(), &[&stock_causes]),
            read!(txn, &statements.waiting, none, &[&wanted, &WAITING_PER_SKU]),
        )?;
        if skus.len() < wanted.len() {
            // Some are new, which is seldom. Who made one meanwhile may have left an order waiting for it.
            txn.execute(&statements.new_skus, &[&wanted]).await?;
            (skus, stock, waiting) = tokio::try_join!(
                biased;
                read!(txn, &statements.skus, none, &[&wanted]),
                read!(txn, &statements.stock, none, &[&wanted]),
                read!(txn, &statements.waiting, none, &[&wanted, &WAITING_PER_SKU]),
            )?;
        }
        for row in skus {
            found.facts.claims.insert(row.get(0), row.get(1));
        }
        for row in stock {
            let condition: &str = row.get(2);
            let key = StockKey { sku: row.get(0), location_id: row.get(1), condition: Condition::of(condition) };
            let stock = StockRow {
                on_hand: row.get(3),
                reserved: row.get(4),
                picked: row.get(5),
                unbacked: row.get(7),
                version: row.get(6),
            };
            found.facts.stock.insert(key, stock);
        }
        locked.claims = found.facts.claims.clone();
        locked.stock = found.facts.stock.clone();
        found.acted.extend(causes.iter().map(|row| (None, EventId(row.get(0)))));
        for row in waiting {
            found.facts.waiting.entry(row.get(0)).or_default().push(OrderId(row.get(1)));
        }
        Ok(())
    }

    async fn write_all(&self, written: &Written) -> Result<(), LedgerError> {
        let Self { txn, statements, locked, step, .. } = self;
        let orders = OrderRows::of(&written.facts, locked)?;
        let contents = ContentRows::of(&written.facts, locked)?;
        let stock = StockRows::of(&written.facts, locked)?;
        let entries = EntryRows::of(&written.events);
        let journal = JournalRows::of(&written.events, locked, step, self.places)?;
        let causes = CauseRows::of(&written.acted, locked)?;
        let (again, parked) = written.parked.iter().partition::<Vec<_>, _>(|it| it.again.is_some());
        let (again, parked) = (ParkedRows::of(&again), ParkedRows::of(&parked));
        let with = WithRows::of(&written.with, self.places)?;
        // Sent at once, done in this order; the first that fails is the one reported.
        let (changed, _, claimed, ..) = tokio::try_join!(
            biased;
            written!(txn, &statements.write_states, orders.nos.is_empty(), &[&orders.nos, &orders.seqs, &orders.states]),
            written!(txn, &statements.write_contents, contents.nos.is_empty(), &[
                &contents.nos,
                &contents.contents,
                &contents.parties
            ]),
            written!(txn, &statements.write_skus, stock.claims.is_empty(), &[&stock.claim_skus, &stock.claims]),
            written!(txn, &statements.write_stock, stock.skus.is_empty(), &[
                &stock.skus,
                &stock.locations,
                &stock.conditions,
                &stock.on_hand,
                &stock.reserved,
                &stock.picked,
                &stock.versions,
                &stock.unbacked
            ]),
            written!(txn, &statements.write_entries, entries.causes.is_empty(), &[
                &entries.causes,
                &entries.indexes,
                &entries.skus,
                &entries.locations,
                &entries.conditions,
                &entries.versions,
                &entries.movements,
                &entries.quantities,
                &entries.on_hand,
                &entries.reserved,
                &entries.picked,
                &entries.claimed,
                &entries.why,
                &entries.at,
                &entries.unbacked
            ]),
            written!(txn, &statements.write_causes, causes.nos.is_empty(), &[&causes.nos, &causes.ids]),
            written!(txn, &statements.write_stock_causes, causes.stock.is_empty(), &[&causes.stock]),
            written!(txn, &statements.drop_waits, orders.no_wait_nos.is_empty(), &[
                &orders.no_wait_skus,
                &orders.no_wait_nos
            ]),
            written!(txn, &statements.write_waits, orders.wait_nos.is_empty(), &[&orders.wait_skus, &orders.wait_nos]),
            written!(txn, &statements.drop_timers, orders.no_timer_nos.is_empty(), &[
                &orders.no_timer_nos,
                &orders.no_timer_ids
            ]),
            written!(txn, &statements.write_timers, orders.timer_nos.is_empty(), &[
                &orders.timer_nos,
                &orders.timer_ids,
                &orders.timer_purposes,
                &orders.timer_revisions,
                &orders.timer_due
            ]),
            written!(txn, &statements.write_journal, journal.ids.is_empty(), &[
                &journal.nos,
                &journal.seqs,
                &journal.cause_offsets,
                &journal.places,
                &journal.cause_indexes,
                &journal.ids,
                &journal.cause_ids,
                &journal.topics,
                &journal.keys,
                &journal.traceparents,
                &journal.headers,
                &journal.bodies,
                &journal.parties
            ]),
            written!(txn, &statements.drop_parked, written.unparked.is_empty(), &[&written.unparked]),
            written!(txn, &statements.write_parked_again, again.ids.is_empty(), &[
                &again.rows,
                &again.topics,
                &again.partitions,
                &again.offsets,
                &again.traceparents,
                &again.reasons
            ]),
            written!(txn, &statements.write_parked, parked.ids.is_empty(), &[
                &parked.ids,
                &parked.topics,
                &parked.partitions,
                &parked.offsets,
                &parked.event_ids,
                &parked.traceparents,
                &parked.keys,
                &parked.payloads,
                &parked.reasons
            ]),
            written!(txn, &statements.write_with, with.places.is_empty(), &[
                &with.places,
                &with.from_offsets,
                &with.codes,
                &with.versions
            ]),
        )?;
        if usize::try_from(changed) != Ok(orders.nos.len()) || usize::try_from(claimed) != Ok(stock.claims.len()) {
            return Err(LedgerError::Stop("rows of orders or SKUs vanished while they were locked".into()));
        }
        Ok(())
    }
}

/// The SKUs an order waits for.
fn waits(order: &OrderState) -> BTreeSet<Sku> {
    if !order.accepted || order.test || order.cancelled || order.completed.is_some() {
        return BTreeSet::new();
    }
    order.lines.iter().filter(|line| line.known && line.short() > 0).map(|line| line.sku.clone()).collect()
}

fn order_before<'a>(locked: &'a Before, order: &OrderId) -> Result<&'a OrderBefore, LedgerError> {
    locked
        .orders
        .get(order)
        .ok_or_else(|| LedgerError::Stop(format!("order {order} is to be written but was not locked")))
}

#[derive(Default)]
struct OrderRows<'a> {
    nos: Vec<i64>,
    seqs: Vec<i64>,
    states: Vec<String>,
    wait_skus: Vec<Sku>,
    wait_nos: Vec<i64>,
    no_wait_skus: Vec<&'a str>,
    no_wait_nos: Vec<i64>,
    timer_nos: Vec<i64>,
    timer_ids: Vec<&'a str>,
    timer_purposes: Vec<&'static str>,
    timer_revisions: Vec<i64>,
    timer_due: Vec<At>,
    no_timer_nos: Vec<i64>,
    no_timer_ids: Vec<&'a str>,
}

impl<'a> OrderRows<'a> {
    fn of(facts: &'a Facts, locked: &'a Before) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        for (order_id, order) in &facts.orders {
            let before = order_before(locked, order_id)?;
            if order.seq == 0 {
                continue;
            }
            let state = serde_json::to_string(order)
                .map_err(|error| LedgerError::Refused(format!("the state of order {order_id} has no JSON: {error}")))?;
            if state == before.state {
                continue;
            }
            let no = before.order_no;
            let waits = waits(order);
            for sku in before.waits.iter().filter(|sku| !waits.contains(*sku)) {
                rows.no_wait_nos.push(no);
                rows.no_wait_skus.push(sku);
            }
            for sku in waits.difference(&before.waits) {
                rows.wait_nos.push(no);
                rows.wait_skus.push(sku.clone());
            }
            for timer in before.timers.iter().filter(|old| order.timers.iter().all(|new| new.timer_id != old.timer_id))
            {
                rows.no_timer_nos.push(no);
                rows.no_timer_ids.push(&timer.timer_id);
            }
            for timer in order.timers.iter().filter(|timer| !before.timers.contains(timer)) {
                rows.timer_nos.push(no);
                rows.timer_ids.push(&timer.timer_id);
                rows.timer_purposes.push(timer.purpose.as_str());
                rows.timer_revisions.push(timer.revision);
                rows.timer_due.push(At(timer.due_at));
            }
            rows.nos.push(no);
            rows.seqs.push(order.seq);
            rows.states.push(state);
        }
        Ok(rows)
    }
}

#[derive(Default)]
struct ContentRows {
    nos: Vec<i64>,
    contents: Vec<String>,
    parties: Vec<Option<Vec<u8>>>,
}

impl ContentRows {
    fn of(facts: &Facts, locked: &Before) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        let nobody = Party::default();
        for (order_id, content) in &facts.contents {
            let no_json = |error| LedgerError::Refused(format!("the content of order {order_id} has no JSON: {error}"));
            let text = serde_json::to_string(content).map_err(no_json)?;
            let order = order_before(locked, order_id)?;
            // Nobody and an erased person look the same, and stay so.
            let party = match order.erased || content.party == nobody {
                true => None,
                false => Some(serde_json::to_vec(&content.party).map_err(no_json)?),
            };
            if locked.contents.get(order_id).is_some_and(|before| before.0 == text && before.1 == party) {
                continue;
            }
            rows.nos.push(order.order_no);
            rows.contents.push(text);
            rows.parties.push(party);
        }
        Ok(rows)
    }
}

#[derive(Default)]
struct StockRows<'a> {
    claim_skus: Vec<&'a str>,
    claims: Vec<i64>,
    skus: Vec<&'a str>,
    locations: Vec<&'a str>,
    conditions: Vec<&'static str>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    picked: Vec<i64>,
    versions: Vec<i64>,
    unbacked: Vec<i64>,
}

impl<'a> StockRows<'a> {
    fn of(facts: &'a Facts, locked: &Before) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        let unlocked = |sku: &str| LedgerError::Stop(format!("SKU {sku} is to be written but was not locked"));
        for (sku, &claimed) in &facts.claims {
            match locked.claims.get(sku) {
                Some(&before) if before == claimed => {}
                Some(_) => {
                    rows.claim_skus.push(sku);
                    rows.claims.push(claimed);
                }
                None if claimed == 0 => {}
                None => return Err(unlocked(sku)),
            }
        }
        for (key, row) in &facts.stock {
            if locked.stock.get(key) == Some(row) {
                continue;
            }
            if !locked.claims.contains_key(&key.sku) {
                return Err(unlocked(&key.sku));
            }
            rows.skus.push(&key.sku);
            rows.locations.push(&key.location_id);
            rows.conditions.push(key.condition.as_str());
            rows.on_hand.push(row.on_hand);
            rows.reserved.push(row.reserved);
            rows.picked.push(row.picked);
            rows.versions.push(row.version);
            rows.unbacked.push(row.unbacked);
        }
        Ok(rows)
    }
}

#[derive(Default)]
struct EntryRows<'a> {
    causes: Vec<Uuid>,
    indexes: Vec<i32>,
    skus: Vec<&'a str>,
    locations: Vec<&'a str>,
    conditions: Vec<&'static str>,
    versions: Vec<i64>,
    movements: Vec<&'a str>,
    quantities: Vec<i64>,
    on_hand: Vec<i64>,
    reserved: Vec<i64>,
    picked: Vec<i64>,
    claimed: Vec<i64>,
    why: Vec<&'a str>,
    at: Vec<At>,
    unbacked: Vec<i64>,
}

impl<'a> EntryRows<'a> {
    fn of(events: &'a [(Option<LedgerEvent>, JournalRow)]) -> Self {
        let mut rows = Self::default();
        for (event, place) in events {
            let Some(LedgerEvent::Stock(it)) = event else {
                continue;
            };
            rows.causes.push(place.cause.event_id.0);
            rows.indexes.push(index(place));
            rows.skus.push(&it.sku);
            rows.locations.push(&it.location_id);
            rows.conditions.push(it.condition.as_str());
            rows.versions.push(it.version);
            rows.movements.push(&it.movement);
            rows.quantities.push(it.quantity);
            rows.on_hand.push(it.on_hand);
            rows.reserved.push(it.reserved);
            rows.picked.push(it.picked);
            rows.claimed.push(it.claimed);
            rows.why.push(&it.cause);
            rows.at.push(At(it.at));
            rows.unbacked.push(it.unbacked);
        }
        rows
    }
}

fn index(row: &JournalRow) -> i32 {
    i32::try_from(row.index).expect("a record makes fewer than 2^31 events")
}

#[derive(Default)]
struct JournalRows<'a> {
    nos: Vec<Option<i64>>,
    seqs: Vec<Option<i64>>,
    ids: Vec<Uuid>,
    topics: Vec<&'static str>,
    keys: Vec<Option<&'a str>>,
    bodies: Vec<&'a [u8]>,
    parties: Vec<Option<&'a [u8]>>,
    cause_ids: Vec<Uuid>,
    places: Vec<i32>,
    cause_offsets: Vec<i64>,
    cause_indexes: Vec<i32>,
    traceparents: Vec<Option<&'a str>>,
    headers: Vec<Option<String>>,
}

impl<'a> JournalRows<'a> {
    fn of(
        events: &'a [(Option<LedgerEvent>, JournalRow)],
        locked: &Before,
        step: &str,
        places: &BTreeMap<TopicPartition, i32>,
    ) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        for (_, row) in events {
            let at = TopicPartition { topic: row.cause.topic, partition: row.cause.partition };
            let place = place_of(places, at)?;
            let order_id = row.order.map(|(order, _)| order.0.hyphenated().to_string());
            let order = row.order.as_ref().map(|(order, _)| order_before(locked, order)).transpose()?;
            let erased = order.is_some_and(|order| order.erased) && !row.wire.party.is_empty();
            let usual = usual_headers(row, step);
            rows.nos.push(order.map(|order| order.order_no));
            rows.seqs.push(row.order.map(|(_, seq)| seq));
            rows.ids.push(usual.event_id.expect("usual headers have an id").0);
            rows.topics.push(row.topic.name());
            rows.keys.push((order_id.as_deref() != Some(&row.key)).then_some(row.key.as_str()));
            rows.bodies.push(&row.wire.body);
            rows.parties.push((!erased).then_some(&row.wire.party));
            rows.cause_ids.push(row.cause.event_id.0);
            rows.places.push(place);
            rows.cause_offsets.push(row.cause.offset);
            rows.cause_indexes.push(index(row));
            rows.traceparents.push(row.cause.traceparent.as_deref());
            rows.headers.push(
                (usual != row.headers)
                    .then(|| serde_json::to_string(&row.headers.pairs()).expect("a list of pairs of text is JSON")),
            );
        }
        Ok(rows)
    }
}

/// The headers a ledger event has when nobody asked for others.
fn usual_headers(row: &JournalRow, step: &str) -> Headers {
    let event_id = row.headers.event_id.unwrap_or_else(|| EventId::of_step(step, row.cause.event_id, row.index));
    Headers {
        event_id: Some(event_id),
        cause_id: Some(row.cause.event_id),
        traceparent: row.cause.traceparent.clone(),
        subject: Some(row.topic.subject().into()),
        step: Some(step.to_owned().into()),
        cause: Some((row.cause.topic.name().into(), row.cause.partition, row.cause.offset)),
        index: Some(row.index),
        fused_by: None,
    }
}

/// What follows a topic's name in a place that was put aside because the topic was made anew (docs/chaos.md).
const SET_ASIDE: &str = " until ";

/// Reads a row of [`journal_columns`].
pub(crate) fn journal_row(row: &Row, step: &str) -> Result<JournalRow, LedgerError> {
    let topic = |name: &str| {
        Topic::of(name).ok_or_else(|| LedgerError::Stop(format!("the journal names topic {name}, which is not ours")))
    };
    let order: Option<Uuid> = row.get(1);
    let seq: Option<i64> = row.get(2);
    let key: Option<String> = row.get(5);
    let party: Option<Vec<u8>> = row.get(7);
    let schema: Option<&str> = row.get(15);
    let party = match (party, schema) {
        (Some(party), _) => party,
        (None, None) => erased_party(),
        (None, Some(schema)) => erased_party_of(schema).map_err(|error| {
            let journal_id: i64 = row.get(0);
            LedgerError::Stop(format!("the schema of journal row {journal_id} cannot be read: {error}"))
        })?,
    };
    let index: i32 = row.get(12);
    let mut read = JournalRow {
        journal_id: row.get(0),
        topic: topic(row.get(4))?,
        key: key.or(order.map(|order| order.hyphenated().to_string())).unwrap_or_default(),
        wire: Wire { body: row.get(6), party },
        headers: Headers { event_id: Some(EventId(row.get(3))), ..Headers::default() },
        order: order.map(OrderId).zip(seq),
        cause: kept_processors::ledger::Cause {
            event_id: EventId(row.get(8)),
            topic: topic(row.get::<_, &str>(9).split(SET_ASIDE).next().unwrap_or_default())?,
            partition: row.get(10),
            offset: row.get(11),
            traceparent: row.get(13),
        },
        index: u32::try_from(index).unwrap_or(0),
    };
    let written: Option<String> = row.get(14);
    read.headers = match written {
        None => usual_headers(&read, step),
        Some(pairs) => {
            let pairs: Vec<(String, String)> = serde_json::from_str(&pairs).map_err(|error| {
                LedgerError::Stop(format!("the headers of journal row {} cannot be read: {error}", read.journal_id))
            })?;
            let mut headers = Headers::default();
            for (name, value) in pairs {
                headers.take(&name, value.as_bytes());
            }
            headers
        }
    };
    Ok(read)
}

#[derive(Default)]
struct CauseRows {
    nos: Vec<i64>,
    ids: Vec<Uuid>,
    stock: Vec<Uuid>,
}

impl CauseRows {
    fn of(acted: &[(Option<OrderId>, EventId)], locked: &Before) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        for (order, cause) in acted {
            match order {
                Some(order) => {
                    rows.nos.push(order_before(locked, order)?.order_no);
                    rows.ids.push(cause.0);
                }
                None => rows.stock.push(cause.0),
            }
        }
        Ok(rows)
    }
}

#[derive(Default)]
struct WithRows<'a> {
    places: Vec<i32>,
    from_offsets: Vec<i64>,
    codes: Vec<&'a str>,
    versions: Vec<String>,
}

impl<'a> WithRows<'a> {
    fn of(with: &'a [DecidedWith], places: &BTreeMap<TopicPartition, i32>) -> Result<Self, LedgerError> {
        let mut rows = Self::default();
        for it in with {
            rows.places.push(place_of(places, it.at)?);
            rows.from_offsets.push(it.from_offset);
            rows.codes.push(&it.code);
            let versions: BTreeMap<&str, i64> = it.versions.iter().map(|(topic, next)| (topic.name(), *next)).collect();
            rows.versions.push(serde_json::to_string(&versions).expect("a map of numbers by text is JSON"));
        }
        Ok(rows)
    }
}

fn place_of(places: &BTreeMap<TopicPartition, i32>, at: TopicPartition) -> Result<i32, LedgerError> {
    let place = places.get(&at).copied();
    place.ok_or_else(|| LedgerError::Stop(format!("{}/{} was never taken", at.topic, at.partition)))
}

#[derive(Default)]
struct ParkedRows<'a> {
    /// Of records that are parked already.
    rows: Vec<i64>,
    ids: Vec<Uuid>,
    topics: Vec<&'static str>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    event_ids: Vec<Uuid>,
    traceparents: Vec<Option<&'a str>>,
    keys: Vec<&'a [u8]>,
    payloads: Vec<&'a [u8]>,
    reasons: Vec<Option<&'a str>>,
}

impl<'a> ParkedRows<'a> {
    fn of(parked: &[&'a Parked]) -> Self {
        let mut rows = Self::default();
        for &it in parked {
            rows.rows.extend(it.again);
            rows.ids.push(it.order_id.0);
            rows.topics.push(it.cause.topic.name());
            rows.partitions.push(it.cause.partition);
            rows.offsets.push(it.cause.offset);
            rows.event_ids.push(it.cause.event_id.0);
            rows.traceparents.push(it.cause.traceparent.as_deref());
            rows.keys.push(&it.key);
            rows.payloads.push(&it.payload);
            rows.reasons.push(it.reason.as_deref());
        }
        rows
    }
}
