//! The ledger's tables and the read model's, read with the checker's own SQL: each schema in one snapshot.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::TryStreamExt;
use kept_processors::ledger::OrderState;
use kept_schemas::{EventId, Micros, OrderId, Topic};
use tokio_postgres::{Client, NoTls, Row, Transaction};
use uuid::Uuid;

use super::facts::{
    Body, ChargeRow, Counts, HoldRow, JournalRow, LedgerTables, LineRow, Move, OrderRow, ParcelRow, ParkedRow, Place,
    PostingRow, ReadTables, StockName, TimerRow,
};
use super::{
    again::{Again, With},
    kafka::Heard,
    references::{References, Version},
};

/// What follows a topic's name where its old place was put aside, as docs/chaos.md says to do.
const SET_ASIDE: &str = " until ";

/// The step whose places and journal are looked at.
const LEDGER: &str = "ledger";

/// A timestamp as microseconds, in SQL.
macro_rules! micros {
    ($column:literal) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000000)::bigint")
    };
}

/// Connects, and runs `work` in one read-only snapshot of `schema`.
async fn snapshot<T, F>(url: &str, schema: &str, work: impl FnOnce(Client) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !schema.bytes().all(plain) {
        bail!("schema {schema} must be of a-z, 0-9 and _");
    }
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|_| anyhow!("the address of postgres is not a URL that psql would take"))?;
    config.application_name("kept check").connect_timeout(std::time::Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await.context("connect to postgres")?;
    let ended = tokio::spawn(connection);
    client
        .batch_execute(&format!("SET search_path = {schema}; SET timezone = 'UTC'; SET jit = off"))
        .await
        .context("prepare a session")?;
    let there = client
        .query_one("SELECT count(*) FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .context("look for the schema")?;
    if there.get::<_, i64>(0) == 0 {
        bail!("postgres has no schema {schema}; run `kept migrate`");
    }
    let result = work(client).await.with_context(|| format!("read schema {schema}"));
    ended.abort();
    result
}

/// Shared texts: a SKU is on many rows.
#[derive(Default)]
pub struct Texts(BTreeMap<Arc<str>, ()>);

impl Texts {
    pub fn shared(&mut self, text: &str) -> Arc<str> {
        match self.0.get_key_value(text) {
            Some((known, ())) => Arc::clone(known),
            None => {
                let text: Arc<str> = text.into();
                self.0.insert(Arc::clone(&text), ());
                text
            }
        }
    }

    pub fn stock(&mut self, sku: &str, location: &str, condition: &str) -> StockName {
        StockName { sku: self.shared(sku), location: self.shared(location), condition: self.shared(condition) }
    }
}

fn topic(name: &str) -> Result<Topic> {
    Topic::of(name).with_context(|| format!("{name} is not a topic of this version"))
}

/// Reads the ledger, and decides everything again on the way; also its server's clock.
pub async fn ledger(url: &str, schema: &str, heard: &Heard) -> Result<(LedgerTables, Micros)> {
    snapshot(url, schema, |mut client| async move {
        let txn = begin(&mut client).await?;
        let now = txn.query_one(concat!("SELECT ", micros!("now()")), &[]).await?;
        Ok((read_ledger(&txn, heard).await?, Micros(now.get(0))))
    })
    .await
}

/// What the ledger keeps for later: the texts of schemas by their ids, and every version of reference data.
pub async fn kept(url: &str, schema: &str) -> Result<(BTreeMap<u32, String>, References)> {
    snapshot(url, schema, |mut client| async move {
        let txn = begin(&mut client).await?;
        let mut texts = BTreeMap::new();
        each(&txn, "SELECT schema_id, text FROM schema_texts", |row| {
            if let Ok(id) = u32::try_from(row.get::<_, i32>(0)) {
                texts.insert(id, row.get(1));
            }
            Ok(())
        })
        .await?;
        let mut references = References::default();
        // Of a topic that was made anew, the latest one counts.
        let sql = concat!(
            "SELECT topic, version, key, value, ",
            micros!("at"),
            " FROM reference_versions v WHERE topic_id = (
                SELECT topic_id FROM reference_versions l WHERE l.topic = v.topic ORDER BY l.at DESC LIMIT 1)"
        );
        each(&txn, sql, |row| {
            let version = Version { key: row.get(2), value: row.get(3), at: Micros(row.get(4)) };
            references.add(topic(row.get(0))?, row.get(1), version);
            Ok(())
        })
        .await?;
        Ok((texts, references))
    })
    .await
}

async fn begin(client: &mut Client) -> Result<Transaction<'_>> {
    let level = tokio_postgres::IsolationLevel::RepeatableRead;
    Ok(client.build_transaction().isolation_level(level).read_only(true).start().await?)
}

/// Rows as they come, without holding them all.
async fn each(txn: &Transaction<'_>, sql: &str, mut take: impl FnMut(Row) -> Result<()>) -> Result<()> {
    let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
    let rows = txn.query_raw(sql, none).await?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        take(row)?;
    }
    Ok(())
}

/// Per place, by the offset from which on it holds.
async fn decided_with(txn: &Transaction<'_>) -> Result<BTreeMap<i32, BTreeMap<i64, Arc<With>>>> {
    let mut with: BTreeMap<i32, BTreeMap<i64, Arc<With>>> = BTreeMap::new();
    each(txn, "SELECT place, from_offset, code, versions FROM decided_with", |row| {
        let named: BTreeMap<String, i64> =
            serde_json::from_str(row.get(3)).context("read what decisions were made with")?;
        let versions = named.iter().map(|(name, next)| Ok((topic(name)?, *next))).collect::<Result<_>>()?;
        let made = With { code: row.get(2), versions };
        with.entry(row.get(0)).or_default().insert(row.get(1), Arc::new(made));
        Ok(())
    })
    .await?;
    Ok(with)
}

async fn read_ledger(txn: &Transaction<'_>, heard: &Heard) -> Result<LedgerTables> {
    let mut tables = LedgerTables::default();
    let mut texts = Texts::default();
    // Of each place: partition, and whether the topic is still that one.
    let mut places: BTreeMap<i32, ((Topic, i32), bool)> = BTreeMap::new();
    let mut of_step: BTreeMap<i32, bool> = BTreeMap::new();
    each(txn, "SELECT step, topic, partition_no, next_offset, place FROM progress", |row| {
        let (name, aside) = match row.get::<_, &str>(1).split_once(SET_ASIDE) {
            Some((name, _)) => (name, true),
            None => (row.get(1), false),
        };
        let at = (topic(name)?, row.get(2));
        let ours = row.get::<_, &str>(0) == LEDGER;
        if ours && aside {
            tables.made_anew.insert(at.0);
        } else if ours {
            tables.progress.insert(at, row.get(3));
        }
        of_step.insert(row.get(4), ours);
        places.insert(row.get(4), (at, aside));
        Ok(())
    })
    .await?;
    let mut ids: BTreeMap<i64, OrderId> = BTreeMap::new();
    each(txn, "SELECT order_no, order_id FROM orders", |row| {
        ids.insert(row.get(0), OrderId(row.get(1)));
        Ok(())
    })
    .await?;
    let id = |no: i64| ids.get(&no).copied().with_context(|| format!("order number {no} has no order"));
    each(txn, "SELECT order_no, state FROM states", |row| {
        let order = id(row.get(0))?;
        let state: OrderState =
            serde_json::from_str(row.get(1)).with_context(|| format!("read the state of order {order}"))?;
        tables.states.insert(order, state);
        Ok(())
    })
    .await?;
    each(txn, "SELECT order_no, cause_id FROM causes", |row| {
        tables.causes.insert((Some(id(row.get(0))?), EventId(row.get(1))));
        Ok(())
    })
    .await?;
    each(txn, "SELECT cause_id FROM stock_causes", |row| {
        tables.causes.insert((None, EventId(row.get(0))));
        Ok(())
    })
    .await?;
    each(txn, "SELECT sku, claimed FROM skus", |row| {
        tables.claims.insert(texts.shared(row.get(0)), row.get(1));
        Ok(())
    })
    .await?;
    each(txn, "SELECT sku, location_id, condition, on_hand, reserved, picked, version, unbacked FROM stock", |row| {
        let name = texts.stock(row.get(0), row.get(1), row.get(2));
        let counts = Counts { on_hand: row.get(3), reserved: row.get(4), picked: row.get(5), unbacked: row.get(7) };
        tables.stock.insert(name, (counts, row.get(6)));
        Ok(())
    })
    .await?;
    each(
        txn,
        "SELECT cause_id, cause_index, sku, location_id, condition, version, movement, quantity, on_hand, reserved,
                picked, claimed, unbacked
         FROM stock_entries",
        |row| {
            let index: i32 = row.get(1);
            tables.entries.push(Move {
                event_id: EventId::of_step(LEDGER, EventId(row.get(0)), u32::try_from(index).unwrap_or(u32::MAX)),
                row: texts.stock(row.get(2), row.get(3), row.get(4)),
                version: row.get(5),
                movement: texts.shared(row.get(6)),
                quantity: row.get(7),
                now: Counts { on_hand: row.get(8), reserved: row.get(9), picked: row.get(10), unbacked: row.get(12) },
                claimed: row.get(11),
            });
            Ok(())
        },
    )
    .await?;
    each(txn, concat!("SELECT order_no, timer_id, purpose, ", micros!("due_at"), " FROM timers"), |row| {
        tables.timers.push(TimerRow {
            order_id: id(row.get(0))?,
            timer_id: row.get(1),
            purpose: row.get(2),
            due_at: Micros(row.get(3)),
        });
        Ok(())
    })
    .await?;
    let numbers = ids.iter().map(|(no, order)| (*order, *no)).collect();
    let mut batch_ends = BTreeMap::new();
    each(txn, concat!("SELECT ", micros!("at"), ", max(journal_id) FROM journal GROUP BY at"), |row| {
        batch_ends.insert(Micros(row.get(0)), row.get::<_, i64>(1));
        Ok(())
    })
    .await?;
    let with = decided_with(txn).await?;
    // What was decided and is on no topic yet may have a schema that no record had.
    let mut codec = heard.codec.clone();
    each(txn, "SELECT schema_id, text FROM schema_texts", |row| {
        let schema_id: i32 = row.get(0);
        if let Ok(id) = u32::try_from(schema_id)
            && !codec.knows(id)
        {
            codec.learn(id, row.get(1)).with_context(|| format!("read schema {id} as the ledger keeps it"))?;
        }
        Ok(())
    })
    .await?;
    let mut again = Again::new(&codec, heard.references.clone(), &heard.inputs, numbers);
    each(
        txn,
        concat!(
            "SELECT journal_id, event_id, topic, order_no, seq, cause_id, place, cause_offset, cause_index, body, party, ",
            micros!("at"),
            " FROM journal ORDER BY journal_id"
        ),
        |row| {
            let (order, seq): (Option<i64>, Option<i64>) = (row.get(3), row.get(4));
            let (place, at): (i32, Micros) = (row.get(6), Micros(row.get(11)));
            let ends = batch_ends.get(&at) == Some(&row.get(0));
            if of_step.get(&place) != Some(&true) {
                if ends {
                    again.batch_ends(at);
                }
                return Ok(());
            }
            let ((cause_topic, partition), aside) =
                *places.get(&place).with_context(|| format!("place {place} is unknown"))?;
            let (body, party): (&[u8], Option<&[u8]>) = (row.get(9), row.get(10));
            let index: i32 = row.get(8);
            let decided = JournalRow {
                journal_id: row.get(0),
                event_id: EventId(row.get(1)),
                topic: topic(row.get(2))?,
                order: order.map(id).transpose()?.zip(seq),
                cause_id: EventId(row.get(5)),
                cause: Place { topic: cause_topic, partition, offset: row.get(7) },
                index: u32::try_from(index).unwrap_or(u32::MAX),
                body: party.map(|party| match party {
                    [] => Body::of(&[body]),
                    party => Body::of(&[body, party]),
                }),
            };
            let mut cause = decided.cause;
            if aside {
                // In the topic as it is now, another record may stand there.
                cause.offset = -1 - cause.offset;
            }
            let with = with.get(&place).and_then(|all| all.range(..=decided.cause.offset).next_back());
            let with = with.map(|(_, with)| Arc::clone(with));
            again.row(&JournalRow { cause, ..decided.clone() }, with, at, body, party.unwrap_or_default());
            if ends {
                again.batch_ends(at);
            }
            tables.journal.push(decided);
            Ok(())
        },
    )
    .await?;
    tables.again = again.finish();
    each(txn, "SELECT order_id, topic, partition_no, record_offset, event_id, reason FROM parked", |row| {
        tables.parked.push(ParkedRow {
            order_id: OrderId(row.get(0)),
            place: Place { topic: topic(row.get(1))?, partition: row.get(2), offset: row.get(3) },
            event_id: EventId(row.get(4)),
            reason: row.get(5),
        });
        Ok(())
    })
    .await?;
    Ok(tables)
}

/// Reads the read model; columns with personal data are not asked for.
pub async fn read_model(url: &str, schema: &str) -> Result<ReadTables> {
    snapshot(url, schema, |mut client| async move {
        let txn = begin(&mut client).await?;
        read_tables(&txn).await
    })
    .await
}

async fn read_tables(txn: &Transaction<'_>) -> Result<ReadTables> {
    let mut tables = ReadTables::default();
    let mut texts = Texts::default();
    let order = |row: &Row, at: usize| OrderId(row.get::<_, Uuid>(at));
    each(txn, "SELECT topic, partition_no, next_offset FROM sink_progress", |row| {
        tables.progress.insert((topic(row.get(0))?, row.get(1)), row.get(2));
        Ok(())
    })
    .await?;
    each(
        txn,
        concat!(
            "SELECT order_id, order_no, revision, shop, channel, channel_order_id, status, ",
            micros!("placed_at"),
            ", currency, total_minor, charges_minor, test, quantity, reserved, shipped, cancelled, picked, open_holds,
               released, outcome, payment_state, authorised_minor, captured_minor, refunded_minor
             FROM orders"
        ),
        |row| {
            let payment: Option<String> = row.get(20);
            tables.orders.push(OrderRow {
                order_id: order(&row, 0),
                order_no: row.get(1),
                revision: row.get(2),
                shop: row.get(3),
                channel: row.get(4),
                channel_order_id: row.get(5),
                status: row.get(6),
                placed_at: Micros(row.get(7)),
                currency: row.get(8),
                total_minor: row.get(9),
                charges_minor: row.get(10),
                test: row.get(11),
                quantity: row.get(12),
                reserved: row.get(13),
                shipped: row.get(14),
                cancelled: row.get(15),
                picked: row.get(16),
                open_holds: row.get(17),
                released: row.get(18),
                outcome: row.get(19),
                payment: payment.map(|state| (state, row.get(21), row.get(22), row.get(23))),
            });
            Ok(())
        },
    )
    .await?;
    each(txn, "SELECT order_id FROM order_rows WHERE revision IS NULL", |row| {
        tables.placeholders.insert(order(&row, 0));
        Ok(())
    })
    .await?;
    each(
        txn,
        "SELECT order_id, line_no, sku, quantity, unit_price::text, line_total_minor, reserved, shipped, cancelled, short
         FROM order_lines",
        |row| {
            tables.lines.push(LineRow {
                order_id: order(&row, 0),
                line_no: row.get(1),
                sku: row.get(2),
                quantity: row.get(3),
                unit_price: row.get(4),
                line_total_minor: row.get(5),
                reserved: row.get(6),
                shipped: row.get(7),
                cancelled: row.get(8),
                short: row.get(9),
            });
            Ok(())
        },
    )
    .await?;
    each(txn, "SELECT order_id, charge_no, kind, code, amount_minor FROM order_charges", |row| {
        tables.charges.push(ChargeRow {
            order_id: order(&row, 0),
            charge_no: row.get(1),
            kind: row.get(2),
            code: row.get(3),
            amount_minor: row.get(4),
        });
        Ok(())
    })
    .await?;
    each(
        txn,
        concat!(
            "SELECT order_id, hold_id, reason, opened_at IS NOT NULL, ",
            micros!("due_at"),
            ", CASE WHEN resolved_at IS NOT NULL THEN coalesce(resolution, '') END FROM holds"
        ),
        |row| {
            tables.holds.push(HoldRow {
                order_id: order(&row, 0),
                hold_id: row.get(1),
                reason: row.get(2),
                opened: row.get(3),
                due_at: row.get::<_, Option<i64>>(4).map(Micros),
                resolution: row.get(5),
            });
            Ok(())
        },
    )
    .await?;
    each(txn, "SELECT shipment_id, location_id FROM shipments", |row| {
        tables.shipments.insert((row.get(0), row.get(1)));
        Ok(())
    })
    .await?;
    each(txn, "SELECT shipment_id, order_id, line_no, quantity FROM shipment_lines", |row| {
        tables.shipment_lines.push((row.get(0), order(&row, 1), row.get(2), row.get(3)));
        Ok(())
    })
    .await?;
    each(txn, "SELECT parcel_id, shipment_id, tracking_number FROM parcels", |row| {
        tables.parcels.push(ParcelRow { parcel_id: row.get(0), shipment_id: row.get(1), tracking_number: row.get(2) });
        Ok(())
    })
    .await?;
    each(txn, "SELECT order_id, seq, event FROM timeline", |row| {
        tables.timeline.push((order(&row, 0), row.get(1), topic(row.get(2))?));
        Ok(())
    })
    .await?;
    each(txn, "SELECT sku, location_id, condition, on_hand, reserved, picked, version FROM stock", |row| {
        let name = texts.stock(row.get(0), row.get(1), row.get(2));
        let counts = Counts { on_hand: row.get(3), reserved: row.get(4), picked: row.get(5), unbacked: 0 };
        tables.stock.insert(name, (counts, row.get(6)));
        Ok(())
    })
    .await?;
    each(txn, "SELECT posting_id, order_id, kind, account, currency, amount_minor FROM postings", |row| {
        tables.postings.push(PostingRow {
            posting_id: row.get(0),
            order_id: order(&row, 1),
            kind: row.get(2),
            account: row.get(3),
            currency: row.get(4),
            amount_minor: row.get(5),
        });
        Ok(())
    })
    .await?;
    each(txn, "SELECT notification_id, order_id FROM notifications", |row| {
        tables.notifications.push((row.get(0), order(&row, 1)));
        Ok(())
    })
    .await?;
    each(txn, "SELECT topic, partition_no, record_offset FROM dead_letters", |row| {
        tables.dead_letters.push(Place { topic: topic(row.get(0))?, partition: row.get(1), offset: row.get(2) });
        Ok(())
    })
    .await?;
    Ok(tables)
}
