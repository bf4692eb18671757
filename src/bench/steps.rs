//! The driver of steps without memory against a bare transactional loop that decodes and encodes the same records
//! with the same batching; and against one that only copies the bytes.

use std::sync::Arc;

use anyhow::{Context, Result};
use kept_benches::{
    plain_loop::{self, Work},
    report::Row,
    topics,
};
use kept_processors::reference::Reference;
use kept_runtime::{
    kafka::{KafkaLog, KafkaSettings},
    ledger_step::Stopped,
    schemas::Fixed,
    stateless::{Inward, Made, Stateless, StatelessStep, Unread},
    steps::{ENRICH, NORMALISE, VALIDATE},
    threads::run_on_own_thread,
};
use kept_schemas::{
    Codec, Topic,
    codec::offline,
    inbound::{Inbound, OrderEnriched, OrderReceived},
    own::OrderForm,
    topics::Record,
};
use tokio::runtime::Handle;

use super::{Driven, Pace, Plan, Took, alternate, orders, pace_rows};

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
    let ours = |tag: &'static str| {
        let codec = &codec;
        move |run| drive(plan, handle, codec, &Arc::default(), PASS, &format!("{tag}{lines}-{run}"))
    };
    let recode = |value: &[u8]| plain_loop::recode::<OrderEnriched>(&codec, value);
    let places = [Topic::OrdersEnriched, Topic::OrdersValidated];
    let (left, right) =
        alternate(plan.runs, ours("pass"), |run| bare(plan, places, &format!("recode{lines}-{run}"), &recode))?;
    let (again, copied) = alternate(plan.runs, ours("again"), |run| {
        bare(plan, places, &format!("copy{lines}-{run}"), &plain_loop::copy)
    })?;
    handle.block_on(made.delete())?;
    let config = plan.config(&format!("{lines} lines an order, one thread"));
    let recoded = format!("step, {lines} lines: against decode+encode");
    let mut rows = pace_rows(&recoded, "records", &left, &right, Some(0.8), &config);
    let copying = format!("step, {lines} lines: against copying bytes");
    rows.extend(pace_rows(&copying, "records", &again, &copied, None, &config));
    Ok(rows)
}

/// Measures normalise: against a bare loop that decodes the same raw records, parses the same JSON and encodes an order
/// of the same size.
pub fn normalise_rows(plan: &Plan, handle: &Handle, lines: usize) -> Result<Vec<Row>> {
    let codec = Arc::new(offline());
    let inputs = [Topic::ChannelsInbound, Topic::OrdersReceived, Topic::CommandsReceived];
    let made = handle.block_on(plan.topics(&[&inputs[..], &[Topic::PaymentsReceived, Topic::DeadLetters]].concat()))?;
    let records = (0..plan.orders).map(|number| orders::inbound(&codec, number, lines));
    topics::fill(&plan.brokers, &plan.name(Topic::ChannelsInbound), records)?;
    let reference = orders::reference();
    let (order, party) = orders::order(0, lines, orders::Goods::Spread(5_000));
    let received = OrderReceived { order, party, ..Default::default() };
    let parse = |value: &[u8]| {
        let raw: Inbound = codec.decode(value)?.context("a schema that is not ours")?;
        std::hint::black_box(OrderForm::parse(&raw.body).ok().context("an order form")?);
        Ok(codec.encode(&received)?.bytes())
    };
    let (ours, theirs) = alternate(
        plan.runs,
        |run| drive(plan, handle, &codec, &reference, NORMALISE, &format!("normalise{lines}-{run}")),
        |run| {
            let places = [Topic::ChannelsInbound, Topic::OrdersReceived];
            bare(plan, places, &format!("parse{lines}-{run}"), &parse)
        },
    )?;
    handle.block_on(made.delete())?;
    Ok(pace_rows(
        &format!("normalise, {lines} lines: against decode+parse+encode"),
        "records",
        &ours,
        &theirs,
        Some(0.8),
        &plan.config(&format!("{lines} lines an order, one thread, JSON bodies")),
    ))
}

/// Measures enrich and validate, each against a bare loop that decodes what the step reads and encodes what it gives.
pub fn stage_rows(plan: &Plan, handle: &Handle, lines: usize) -> Result<Vec<Row>> {
    let enriched = |number| orders::enriched(number, lines, orders::Goods::Spread(orders::SKUS));
    let received = |number| {
        let OrderEnriched { order, party, received_at, .. } = enriched(number);
        OrderReceived { order, party, received_at, ..Default::default() }
    };
    let enrich = [Topic::OrdersReceived, Topic::OrdersEnriched, Topic::OrdersRevised];
    let validate = [Topic::OrdersEnriched, Topic::OrdersValidated];
    let mut rows = stage(plan, handle, (ENRICH, &enrich, lines), &received, &enriched(0))?;
    rows.extend(stage(plan, handle, (VALIDATE, &validate, lines), &enriched, &orders::validated(enriched(0)))?);
    Ok(rows)
}

/// Measures one step; its topics are what it reads, what it gives, and what else it may read.
fn stage<I: Record, O: Record>(
    plan: &Plan,
    handle: &Handle,
    (step, topics, lines): (StatelessStep, &[Topic], usize),
    input: &dyn Fn(usize) -> I,
    output: &O,
) -> Result<Vec<Row>> {
    let codec = Arc::new(offline());
    let made = handle.block_on(plan.topics(&[topics, &[Topic::DeadLetters]].concat()))?;
    let records = (0..plan.orders).map(|number| {
        let wire = codec.encode(&input(number)).expect("an order of the bench fits");
        (number.to_string(), wire.bytes())
    });
    topics::fill(&plan.brokers, &plan.name(topics[0]), records)?;
    let reference = orders::reference();
    let work = |value: &[u8]| {
        let read: I = codec.decode(value)?.context("a schema that is not ours")?;
        std::hint::black_box(read);
        Ok(codec.encode(output)?.bytes())
    };
    let name = step.name;
    let (ours, theirs) = alternate(
        plan.runs,
        |run| drive(plan, handle, &codec, &reference, step, &format!("{name}{lines}-{run}")),
        |run| bare(plan, [topics[0], topics[1]], &format!("bare-{name}{lines}-{run}"), &work),
    )?;
    handle.block_on(made.delete())?;
    let what = format!("{name}, {lines} lines: against decode+encode");
    let config = plan.config(&format!("{lines} lines an order, one thread"));
    // The loop decides nothing, so no goal holds for the ratio: `pass` has the goal for what the engine costs.
    Ok(pace_rows(&what, "records", &ours, &theirs, None, &config))
}

/// One run of a step over its whole input, as a group of its own.
fn drive(
    plan: &Plan,
    handle: &Handle,
    codec: &Arc<Codec>,
    reference: &Arc<Reference>,
    step: StatelessStep,
    run: &str,
) -> Result<Pace> {
    let settings = KafkaSettings {
        brokers: plan.brokers.clone(),
        prefix: plan.prefix.clone(),
        group: format!("{}{run}", plan.prefix),
        transactional_id: format!("{}{run}", plan.prefix),
        topics: step.inputs.to_vec(),
        properties: Default::default(),
    };
    let (how, codec, reference) = (plan.settings(step.name), Arc::clone(codec), Arc::clone(reference));
    let (counters, stop) = (Arc::default(), Arc::default());
    let (their_counters, their_stop) = (Arc::clone(&counters), Arc::clone(&stop));
    let group = settings.group.clone();
    let thread = run_on_own_thread(step.name, handle.clone(), move || async move {
        let log =
            KafkaLog::new(settings).map_err(|error| Stopped { step: "bench".into(), reason: error.to_string() })?;
        let source = Box::new(move || Arc::clone(&reference));
        let mut driver = Stateless::new(log, (), Fixed(codec), source, vec![step], &group, how);
        driver.counters = their_counters;
        driver.stop = their_stop;
        driver.run().await
    })
    .context("thread")?;
    let took = Driven { counters, stop, thread: Some(thread) }.seconds_for(plan.orders)?;
    Ok(Pace::of(plan.orders, took))
}

fn bare(plan: &Plan, [input, output]: [Topic; 2], run: &str, work: Work<'_>) -> Result<Pace> {
    let its = plain_loop::Plan {
        brokers: plan.brokers.clone(),
        group: format!("{}{run}", plan.prefix),
        input: plan.name(input),
        output: plan.name(output),
        records: plan.orders,
        batch: plan.batch,
        linger: plan.window,
    };
    let ran = plain_loop::run(&its, work)?;
    Ok(Pace::of(plan.orders, Took { seconds: ran.seconds, cpu_seconds: ran.cpu_seconds }))
}
