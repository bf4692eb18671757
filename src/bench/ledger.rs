//! The ledger step by itself, with every order on one SKU against orders spread evenly; and the read model's sink
//! over what it said, against `COPY` of the same rows.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use kept_benches::{copy_rows, cpu, report::Row, topics};
use kept_processors::reference::Reference;
use kept_runtime::{
    kafka::{KafkaLog, KafkaSettings},
    ledger_step::{self, LedgerStep, Stopped},
    rules::Shipped,
    schemas::Fixed,
    sink_step::{self, SinkStep},
    threads::run_on_own_thread,
};
use kept_schemas::{
    Codec, Micros, Topic,
    codec::offline,
    inputs::{Condition, StockCounted, StockKind},
    reference::Location,
};
use kept_store::{
    PgLedger, PgSink, Prefix, drop_all, migrate,
    pg::{Purpose, connect},
};
use tokio::runtime::Handle;

use super::{Driven, Made, Pace, Plan, Took, alternate, orders, orders::Goods, pace_rows};

/// Where every order of the bench ships from.
const WAREHOUSE: &str = "WH";

/// A ledger that has decided on all orders: what its run took, and how much it said, of the stock before it too.
struct Decided {
    plan: Plan,
    topics: Made,
    took: Took,
    events: u64,
}

/// Orders a second with every line on one SKU, against lines spread evenly over 50,000.
pub fn hot_sku(plan: &Plan, handle: &Handle, lines: usize) -> Result<Vec<Row>> {
    let pace = |goods: Goods, tag: &'static str| {
        move |run: usize| {
            let decided = decide(plan, handle, goods, lines, &format!("{tag}{lines}x{run}_"))?;
            let pace = Pace::of(plan.orders, decided.took);
            handle.block_on(decided.forget())?;
            Ok(pace)
        }
    };
    let (hot, spread) = alternate(plan.runs, pace(Goods::One, "hot"), pace(Goods::Spread(50_000), "wide"))?;
    Ok(pace_rows(
        &format!("ledger, {lines} lines: one SKU against 50,000"),
        "orders",
        &hot,
        &spread,
        Some(1.0),
        &plan.config("one worker, each order accepted, claimed, released, pinned and asked for"),
    ))
}

/// Rows a second that the sink writes, against `COPY` of the same rows into the same tables.
pub fn sink(plan: &Plan, handle: &Handle, lines: usize) -> Result<Vec<Row>> {
    let (mut ours, mut copied) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        let decided = decide(plan, handle, Goods::Spread(5_000), lines, &format!("sink{run}_"))?;
        let took = drive_sink(&decided, handle)?;
        let (rows, copy) = handle.block_on(copy_back(&decided.plan))?;
        ours.push(Pace::of(rows, took));
        copied.push(Pace::of(rows, copy));
        handle.block_on(decided.forget())?;
    }
    Ok(pace_rows(
        &format!("read model, {lines} lines: against COPY of the same rows"),
        "rows",
        &ours,
        &copied,
        Some(0.5),
        &plan.config("events of accepted, released and requested orders; same tables and indexes"),
    ))
}

impl Decided {
    async fn forget(self) -> Result<()> {
        self.topics.delete().await?;
        drop_all(&self.plan.postgres, &Prefix::new(&self.plan.prefix)?).await?;
        Ok(())
    }
}

fn reference() -> Reference {
    let mut reference = Reference::default();
    let place = Location {
        location_id: WAREHOUSE.into(),
        name: "Warehouse".into(),
        kind: "warehouse".into(),
        country: "NL".into(),
        priority: 1,
        active: true,
    };
    reference.locations.insert(WAREHOUSE.into(), place);
    reference
}

fn decide(plan: &Plan, handle: &Handle, goods: Goods, lines: usize, tag: &str) -> Result<Decided> {
    let plan = Plan { prefix: format!("{}{tag}", plan.prefix), ..plan.clone() };
    let codec = Arc::new(offline());
    let made = handle.block_on(async {
        migrate(&plan.postgres, &Prefix::new(&plan.prefix)?).await?;
        plan.topics(Topic::ALL).await
    })?;
    let skus = goods.all();
    let stock = skus.iter().map(|sku| {
        let count = StockCounted {
            sku: sku.clone(),
            location_id: WAREHOUSE.into(),
            condition: Condition::Sellable,
            count_id: format!("bench-{sku}"),
            kind: StockKind::Receipt,
            quantity: 100_000_000,
            at: Micros(1),
            source: "feed".into(),
        };
        (sku.clone(), codec.encode(&count).expect("a count fits").bytes())
    });
    topics::fill(&plan.brokers, &plan.name(Topic::StockCounted), stock)?;
    let driven = drive_ledger(&plan, handle, &codec)?;
    let counted = Arc::clone(&driven.counters);
    driven.wait_for(skus.len())?;
    let records = (0..plan.orders).map(|number| {
        let order = orders::validated(orders::enriched(number, lines, goods));
        (order.order.order_id.to_string(), codec.encode(&order).expect("an order of the bench fits").bytes())
    });
    topics::fill(&plan.brokers, &plan.name(Topic::OrdersValidated), records)?;
    let driven = drive_ledger(&plan, handle, &codec)?;
    let counters = Arc::clone(&driven.counters);
    let took = driven.seconds_for(plan.orders)?;
    let events = [counted, counters].iter().map(|it| it.events.load(std::sync::atomic::Ordering::Relaxed)).sum();
    Ok(Decided { plan, topics: made, took, events })
}

fn kafka(plan: &Plan, group: &str, topics: &[Topic]) -> KafkaSettings {
    KafkaSettings {
        brokers: plan.brokers.clone(),
        prefix: plan.prefix.clone(),
        group: format!("{}{group}", plan.prefix),
        transactional_id: format!("{}{group}.0", plan.prefix),
        topics: topics.to_vec(),
        properties: Default::default(),
    }
}

fn stopped(error: impl std::fmt::Display) -> Stopped {
    Stopped { step: "bench".into(), reason: error.to_string() }
}

fn drive_ledger(plan: &Plan, handle: &Handle, codec: &Arc<Codec>) -> Result<Driven> {
    let (plan, codec) = (plan.clone(), Arc::clone(codec));
    let (counters, stop) = (Arc::default(), Arc::default());
    let (their_counters, their_stop) = (Arc::clone(&counters), Arc::clone(&stop));
    let thread = run_on_own_thread("ledger", handle.clone(), move || async move {
        let prefix = Prefix::new(&plan.prefix).map_err(stopped)?;
        let ledger = PgLedger::connect(&plan.postgres, &prefix, "ledger").await.map_err(stopped)?;
        let log = KafkaLog::new(kafka(&plan, "ledger", Topic::LEDGER_INPUTS)).map_err(stopped)?;
        let log = log.with_batch_bytes(ledger_step::BATCH_BYTES);
        let reference = Arc::new(reference());
        let mut driver = LedgerStep::new(
            log,
            ledger,
            Shipped,
            Fixed(codec),
            Box::new(move || Arc::clone(&reference)),
            plan.settings("ledger"),
        );
        driver.counters = their_counters;
        driver.stop = their_stop;
        driver.run().await
    })
    .context("thread")?;
    Ok(Driven { counters, stop, thread: Some(thread) })
}

fn drive_sink(decided: &Decided, handle: &Handle) -> Result<Took> {
    let plan = decided.plan.clone();
    let (counters, stop) = (Arc::default(), Arc::default());
    let (their_counters, their_stop) = (Arc::clone(&counters), Arc::clone(&stop));
    let thread = run_on_own_thread("read", handle.clone(), move || async move {
        let prefix = Prefix::new(&plan.prefix).map_err(stopped)?;
        let sink = PgSink::connect(&plan.postgres, &prefix).await.map_err(stopped)?;
        let log = KafkaLog::new(kafka(&plan, "read", &kept_runtime::service::read_topics())).map_err(stopped)?;
        let log = log.with_batch_bytes(sink_step::BATCH_BYTES);
        let mut driver = SinkStep::new(log, sink, Fixed(Arc::new(offline())), plan.settings("read"));
        driver.counters = their_counters;
        driver.stop = their_stop;
        driver.run().await
    })
    .context("thread")?;
    let records = usize::try_from(decided.events).context("events")?;
    Driven { counters, stop, thread: Some(thread) }.seconds_for(records)
}

/// Takes what the sink wrote and copies it into tables of the same form. Rows, and what the copy alone took.
async fn copy_back(plan: &Plan) -> Result<(usize, Took)> {
    let prefix = Prefix::new(&plan.prefix)?;
    let mut client = connect(&plan.postgres, &prefix.read(), Purpose::Command).await?;
    // drop_all takes it away with the rest.
    let into = prefix.read_new().to_string();
    let tables = copy_rows::take_rows(&client, &prefix.read().to_string(), &into).await?;
    let (mut rows, mut seconds) = (0, 0.0);
    let before = cpu::own_seconds()?;
    for table in &tables {
        let name = format!("{into}.{}", table.name);
        rows += table.rows.len();
        seconds += copy_rows::copy(&mut client, &name, &table.columns, &table.rows, plan.batch).await?;
    }
    let cpu_seconds = cpu::own_seconds()? - before;
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok((rows, Took { seconds, cpu_seconds }))
}
