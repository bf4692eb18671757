//! Making the read model anew from the journal, beside the live one, and switching over.
//!
//! The new model goes on from the offsets where the live one stood *before* the journal was read: all that was emitted
//! by then is in the journal, and what the sink meets twice is known by its order and number.

use kept_processors::ledger::LedgerEvent;
use kept_schemas::{Codec, Topic};
use tokio_postgres::Client;

use crate::{
    journal,
    migrate::migrate_read,
    pg::{Prefix, Purpose, Schema, connect},
    read::PgSink,
    seam::{LedgerError, Sink, SinkTxn},
};

/// Journal rows an applied batch has.
const BATCH: i64 = 2_000;

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Journal rows read.
    pub rows: u64,
    /// Events applied to the new model.
    pub events: u64,
}

/// Rebuilds the read model at `read_url` from the journal of `step` at `ledger_url` and switches to it; `progress`
/// hears how many rows are done. The live model serves until the switch, which takes one short transaction and ends
/// the sink's session: its driver reconnects and goes on. Run one at a time; after a crash, run it again.
///
/// `codec` must know every schema the journal was written with.
///
/// # Errors
/// Whatever Postgres says; an event that cannot be decoded. The live model is untouched then.
pub async fn rebuild(
    (ledger_url, read_url): (&str, &str),
    prefix: &Prefix,
    step: &str,
    codec: &Codec,
    mut progress: impl FnMut(&Rebuilt),
) -> Result<Rebuilt, LedgerError> {
    let (live, new, old) = (prefix.read(), prefix.read_new(), prefix.read_old());
    let ledger = connect(ledger_url, &prefix.ledger(), Purpose::Command).await?;
    let mut control = connect(read_url, &live, Purpose::Command).await?;
    let alone: bool = control.query_one("SELECT pg_try_advisory_lock(hashtext($1))", &[&new.to_string()]).await?.get(0);
    if !alone {
        return Err(LedgerError::Stop(format!("another rebuild of {live} is under way")));
    }
    control.batch_execute(&format!("DROP SCHEMA IF EXISTS {new} CASCADE")).await?;
    migrate_read(read_url, &new).await?;
    // First the offsets, then the journal. Epochs are far ahead, so that no session of today's passes the first
    // statement of a batch after the switch.
    control
        .batch_execute(&format!(
            "INSERT INTO {new}.sink_progress (topic, partition_no, next_offset, owner_epoch, topic_id, clean)
             SELECT topic, partition_no, next_offset, owner_epoch + 1000000, topic_id, true FROM {live}.sink_progress"
        ))
        .await?;
    let mut sink = PgSink::connect_to(read_url, new.clone()).await?;
    let mut done = Rebuilt::default();
    let mut from = 0;
    loop {
        let rows = journal::after(&ledger, step, from, BATCH).await?;
        let Some(last) = rows.last() else { break };
        from = last.journal_id;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows.iter().filter(|row| row.topic != Topic::DeadLetters) {
            let at_fault = |why: String| {
                LedgerError::Stop(format!("journal row {} of {} cannot be read: {why}", row.journal_id, row.topic))
            };
            let event = LedgerEvent::decode(codec, row.topic, &row.wire.bytes())
                .map_err(|error| at_fault(error.to_string()))?
                .ok_or_else(|| at_fault("its schema is not known".into()))?;
            events.push((event, &row.headers));
        }
        let txn = sink.begin().await?;
        txn.apply_events(events.iter().map(|(event, headers)| (event, *headers))).await?;
        txn.commit().await?;
        done.rows += u64::try_from(rows.len()).unwrap_or(0);
        done.events += u64::try_from(events.len()).unwrap_or(0);
        progress(&done);
    }
    drop(sink);
    // Whose row was read before its person was forgotten. Nobody is forgotten in the read model until the switch.
    let writer = connect(read_url, &new, Purpose::Command).await?;
    writer.execute(journal::ERASE_READ, &[&journal::erased(&ledger).await?]).await?;
    control.batch_execute(&format!("ANALYZE {new}.order_rows, {new}.line_rows, {new}.timeline, {new}.holds")).await?;
    // A sink that is stopped in the middle of a batch must not hold the switch up.
    end_sinks(&control, &live).await?;
    let txn = control.transaction().await?;
    txn.batch_execute(&format!(
        "LOCK TABLE {live}.sink_progress IN EXCLUSIVE MODE;
         INSERT INTO {new}.dead_letters SELECT * FROM {live}.dead_letters ON CONFLICT DO NOTHING;
         DROP SCHEMA IF EXISTS {old} CASCADE;
         ALTER SCHEMA {live} RENAME TO {old};
         ALTER SCHEMA {new} RENAME TO {live}"
    ))
    .await?;
    txn.commit().await?;
    // Sessions that began before the switch may hold statements that mean the old tables.
    end_sinks(&control, &live).await?;
    control.batch_execute(&format!("DROP SCHEMA {old} CASCADE")).await?;
    Ok(done)
}

/// Ends the sessions of sinks that write to `schema`; their drivers reconnect.
async fn end_sinks(control: &Client, schema: &Schema) -> Result<(), LedgerError> {
    let name = Purpose::Sink.session(schema);
    control
        .query("SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity WHERE application_name = $1", &[&name])
        .await?;
    Ok(())
}
