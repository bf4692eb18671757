//! The driver of steps without memory against a bare transactional loop that decodes and encodes the same records
//! with the same batching; and against one that only copies the bytes.

use std::sync::Arc;

use anyhow::{Context, Result};
use kept_benches::{
    plain_loop::{self, Work},
    report::Row,
    topics,
};
use kept_runtime::{
    kafka::{KafkaLog, KafkaSettings},
    ledger_step::Stopped,
    schemas::Fixed,
    stateless::{Inward, Made, Stateless, StatelessStep, Unread},
    threads::run_on_own_thread,
};
use kept_schemas::{Codec, Topic, codec::offline, inbound::OrderEnriched};
use tokio::runtime::Handle;

use super::{Driven, Plan, alternate, orders};

/// Decodes, hands on, encodes: what the engine costs besides deciding.
pub const PASS: StatelessStep =
    StatelessStep { name: "pass", inputs: &[Topic::OrdersEnriched], outputs: &[Topic::OrdersValidated], decide: pass };

fn pass(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let order = inward.read::<OrderEnriched>()?.into_owned();
    let key = order.order.order_id.to_string();
    Ok(vec![Made::of(inward.codec, key, orders::validated(order))?])
}

/// Measures `PASS` and gives its rows: against decoding and encoding (the goal), and against copying.
pub fn pass_rows(plan: &Plan, handle: &Handle, lines: usize) -> Result<Vec<Row>> {
    let codec = Arc::new(offline());
    let made = handle.block_on(plan.topics(&[Topic::OrdersEnriched, Topic::OrdersValidated, Topic::DeadLetters]))?;
    let records = (0..plan.orders).map(|number| {
        let order = orders::enriched(number, lines, orders::Goods::Spread(5_000));
        let wire = codec.encode(&order).expect("an order of the bench fits");
        (order.order.order_id.to_string(), wire.bytes())
    });
    topics::fill(&plan.brokers, &plan.name(Topic::OrdersEnriched), records)?;
    let rate = |seconds: f64| plan.orders as f64 / seconds;
    let ours = |tag: &'static str| {
        let codec = &codec;
        move |run| drive(plan, handle, codec, PASS, &format!("{tag}{lines}-{run}")).map(rate)
    };
    let recode = |value: &[u8]| plain_loop::recode::<OrderEnriched>(&codec, value);
    let (left, right) =
        alternate(plan.runs, ours("pass"), |run| bare(plan, &format!("recode{lines}-{run}"), &recode).map(rate))?;
    let (again, copied) = alternate(plan.runs, ours("again"), |run| {
        bare(plan, &format!("copy{lines}-{run}"), &plain_loop::copy).map(rate)
    })?;
    handle.block_on(made.delete())?;
    let config = plan.config(&format!("{lines} lines an order, one thread"));
    Ok(vec![
        Row::ratio(
            &format!("step, {lines} lines: against decode+encode"),
            "records/s",
            &left,
            &right,
            Some(0.8),
            config.clone(),
        ),
        Row::ratio(&format!("step, {lines} lines: against copying bytes"), "records/s", &again, &copied, None, config),
    ])
}

/// One run of a step over its whole input, as a group of its own.
pub fn drive(plan: &Plan, handle: &Handle, codec: &Arc<Codec>, step: StatelessStep, run: &str) -> Result<f64> {
    let settings = KafkaSettings {
        brokers: plan.brokers.clone(),
        prefix: plan.prefix.clone(),
        group: format!("{}{run}", plan.prefix),
        transactional_id: format!("{}{run}", plan.prefix),
        topics: step.inputs.to_vec(),
        properties: Default::default(),
    };
    let (how, codec) = (plan.settings(step.name), Arc::clone(codec));
    let (counters, stop) = (Arc::default(), Arc::default());
    let (their_counters, their_stop) = (Arc::clone(&counters), Arc::clone(&stop));
    let group = settings.group.clone();
    let thread = run_on_own_thread(step.name, handle.clone(), move || async move {
        let log =
            KafkaLog::new(settings).map_err(|error| Stopped { step: "bench".into(), reason: error.to_string() })?;
        let reference = Box::new(Arc::default);
        let mut driver = Stateless::new(log, (), Fixed(codec), reference, vec![step], &group, how);
        driver.counters = their_counters;
        driver.stop = their_stop;
        driver.run().await
    })
    .context("thread")?;
    Driven { counters, stop, thread: Some(thread) }.seconds_for(plan.orders)
}

fn bare(plan: &Plan, run: &str, work: Work<'_>) -> Result<f64> {
    let ran = plain_loop::run(
        &plain_loop::Plan {
            brokers: plan.brokers.clone(),
            group: format!("{}{run}", plan.prefix),
            input: plan.name(Topic::OrdersEnriched),
            output: plan.name(Topic::OrdersValidated),
            records: plan.orders,
            batch: plan.batch,
            linger: plan.window,
        },
        work,
    )?;
    Ok(ran.seconds)
}
