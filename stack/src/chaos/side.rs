//! A topic that is made anew under a running step, in a deployment of its own on the same servers, so that the one
//! under test is not spoiled. The ledger step must stop and say why, it must not skip or begin again silently, neither
//! then nor when it is started again; after what an operator does about it, it goes on with nothing lost or doubled.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kept_runtime::{
    kafka::{KafkaOutbox, client_config},
    log::Outgoing,
};
use kept_schemas::{
    Codec, EventId, Headers, OrderId, Topic,
    inputs::{PaymentKind, PaymentReceived},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use super::{
    eyes::Eyes,
    fleet::{Launcher, Plan, free_port, log_says},
    schedule::Part,
    sender::{now, store},
};
use crate::processes::Process;

const PARTITIONS: i32 = 2;
/// Payments before the topic is made anew, and after it.
const BEFORE: u32 = 20;
const AFTER: u32 = 5;
/// Servers are hit meanwhile, so everything here may take a while.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the step says.
const WORDS: &str = "deleted and made anew";

/// What a side deployment needs to be told.
pub struct Side {
    pub number: u32,
    /// Past the proxy.
    pub kafka: String,
    pub postgres: String,
    pub codec: Arc<Codec>,
    pub outbox: KafkaOutbox,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// From the topic's new life to the step's end.
    pub seconds: f64,
    /// How often it stopped instead of going on: at once, and when it was started again.
    pub stops: u64,
}

/// Runs it to its end; an error says what did not hold.
pub async fn topic_made_anew(mut side: Side, launcher: &Launcher) -> Result<Stopped> {
    let prefix = format!("side{}_", side.number);
    let env = vec![
        ("KEPT_PREFIX".to_owned(), prefix.clone()),
        ("KEPT_KAFKA".to_owned(), side.kafka.clone()),
        ("KEPT_POSTGRES".to_owned(), side.postgres.clone()),
    ];
    for command in [&["migrate"][..], &["topics", "apply"][..]] {
        again(async || tokio::task::block_in_place(|| launcher.command(command, &env))).await?;
    }
    let plan = Plan {
        name: format!("side-ledger-{}", side.number),
        part: Part::Ledger,
        args: ["run", "ledger", "--wait", "120"].map(str::to_owned).to_vec(),
        env: [env, vec![("KEPT_OPS".to_owned(), format!("127.0.0.1:{}", free_port()?))]].concat(),
        ops: None,
    };
    let mut eyes = Eyes::new(side.postgres.clone());
    let topic = format!("{prefix}{}", Topic::PaymentsReceived);
    let mut process = launcher.start(&plan)?;
    let result = watched(&mut side, launcher, &plan, &mut process, &mut eyes, &prefix, &topic).await;
    process.kill()?;
    result
}

async fn watched(
    side: &mut Side,
    launcher: &Launcher,
    plan: &Plan,
    process: &mut Process,
    eyes: &mut Eyes,
    prefix: &str,
    topic: &str,
) -> Result<Stopped> {
    pay(side, prefix, topic, 0..BEFORE).await?;
    until("the first payments are decided", async || known(eyes, prefix).await, u64::from(BEFORE)).await?;
    let decided = progress(eyes, prefix).await?;

    make_anew(&side.kafka, topic).await?;
    let anew = Instant::now();
    pay(side, prefix, topic, BEFORE..BEFORE + AFTER).await?;
    ended(process).await.context("the step did not stop though its topic was made anew")?;
    let seconds = anew.elapsed().as_secs_f64();
    ensure!(
        log_says(&process.log, process.log_from, WORDS),
        "the step stopped without saying that a topic was made anew"
    );
    // Started again it must not do what it did not do the first time.
    *process = launcher.start(plan)?;
    ended(process).await.context("the step was started again on a topic made anew, and went on")?;
    ensure!(log_says(&process.log, process.log_from, WORDS), "started again, it stopped without saying why");
    ensure!(known(eyes, prefix).await? == u64::from(BEFORE), "it decided about records of the new topic");
    ensure!(progress(eyes, prefix).await? == decided, "it moved its place in the new topic");

    recover(eyes, prefix).await?;
    *process = launcher.start(plan)?;
    until("the payments on the new topic are decided", async || known(eyes, prefix).await, u64::from(BEFORE + AFTER))
        .await?;
    let doubled = format!("SELECT count(*) - count(DISTINCT event_id) FROM {prefix}ledger.journal");
    let rows = ask(eyes, &doubled).await?;
    ensure!(rows == 0, "{rows} events are doubled");
    // What was decided of the old topic can still be told and checked.
    let order = OrderId::of(topic, "0").to_string();
    for command in [&["explain", &order][..], &["check"]] {
        again(async || tokio::task::block_in_place(|| launcher.command(command, &plan.env))).await?;
    }
    Ok(Stopped { seconds, stops: 2 })
}

/// What an operator does: the step's old place in the topic is put aside, under a name that no topic has, so that it
/// begins anew at the new topic's beginning, and what it decided of the old one keeps its own place.
async fn recover(eyes: &mut Eyes, prefix: &str) -> Result<()> {
    let moved = format!(
        "UPDATE {prefix}ledger.progress SET topic = topic || ' until ' || now()::text
         WHERE step = 'ledger' AND topic = $1"
    );
    let topic = Topic::PaymentsReceived.name();
    let until = Instant::now() + PATIENCE;
    while let Err(error) = eyes.ask(&moved, &[&topic]).await {
        if Instant::now() > until {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Orders that the ledger has heard of.
async fn known(eyes: &mut Eyes, prefix: &str) -> Result<u64> {
    ask(eyes, &format!("SELECT count(*) FROM {prefix}ledger.orders")).await
}

async fn progress(eyes: &mut Eyes, prefix: &str) -> Result<BTreeMap<i32, i64>> {
    let text =
        format!("SELECT partition_no, next_offset FROM {prefix}ledger.progress WHERE step = 'ledger' AND topic = $1");
    let topic = Topic::PaymentsReceived.name();
    let until = Instant::now() + PATIENCE;
    loop {
        match eyes.ask(&text, &[&topic]).await {
            Ok(rows) => return rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect(),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn ask(eyes: &mut Eyes, question: &str) -> Result<u64> {
    let until = Instant::now() + PATIENCE;
    loop {
        match eyes.ask(question, &[]).await {
            Ok(rows) => {
                let count: i64 = rows.first().context("a count has a row")?.try_get(0)?;
                return u64::try_from(count).context("a count is not negative");
            }
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Payments of orders that nobody knows: each leaves a trace of its own in the ledger.
async fn pay(side: &mut Side, prefix: &str, topic: &str, numbers: std::ops::Range<u32>) -> Result<()> {
    let mut records = Vec::new();
    for number in numbers {
        let payment = PaymentReceived {
            order_id: OrderId::of(topic, &number.to_string()),
            payment_id: format!("{prefix}{number}"),
            kind: PaymentKind::Captured,
            amount_minor: 100,
            currency: "EUR".into(),
            at: now(),
            source: "chaos".into(),
            ..Default::default()
        };
        let headers = Headers {
            event_id: Some(EventId::of_input("chaos", &payment.payment_id, b"")),
            subject: Some(Topic::PaymentsReceived.subject().into()),
            ..Default::default()
        };
        let wire = side.codec.encode(&payment).context("encode a payment")?;
        records.push(Outgoing::new(Topic::PaymentsReceived, &payment.order_id.to_string(), &wire, headers));
    }
    store(&mut side.outbox, records, &AtomicU64::new(0)).await
}

async fn make_anew(kafka: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(kafka, &BTreeMap::new()).create().context("make an admin client")?;
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let until = Instant::now() + PATIENCE;
    let mut deleted = false;
    loop {
        if !deleted {
            deleted = match admin.delete_topics(&[topic], &options).await {
                Ok(results) => results.iter().all(Result::is_ok),
                Err(_) => false,
            };
        } else if let Ok(results) = admin.create_topics([&new], &options).await
            && results.iter().all(Result::is_ok)
        {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("topic {topic} could not be made anew");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn ended(process: &Process) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while process.is_alive() {
        ensure!(Instant::now() < until, "it still runs after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn until(what: &str, mut count: impl AsyncFnMut() -> Result<u64>, wanted: u64) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let seen = count().await?;
        if seen == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{what}: {seen} of {wanted} after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A server may be down at this moment.
async fn again<T>(mut work: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(2)).await,
        }
    }
}
