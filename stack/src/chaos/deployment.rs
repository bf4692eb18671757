//! The deployment under chaos: servers behind proxies, Kept's processes, senders; and how each fault is made.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kept_runtime::{chaos_hook, config::Config, log::Outgoing, registry::Registry, timers::Outbox};
use kept_schemas::{
    Codec, EventId, Headers, OrderId, Topic, UnitPrice,
    ids::derive,
    inputs::{PaymentKind, PaymentReceived},
    own::{OrderForm, PaymentTermsForm},
};
use tokio::task::{JoinHandle, block_in_place};

use super::{
    Settings,
    eyes::Eyes,
    fleet::{Fleet, Launcher, Plan, free_port},
    schedule::{Fault, Part, Planned, Who},
    sender::{self, Accepted, Flags, SentLog, first_stock, key_hash, now, send_one, store},
    shop::{self, Made},
    side::{Side, Stopped, topic_made_anew},
    tally::Tally,
};
use crate::{
    proxy::{Mode, Proxy, Speech},
    servers::{self, Home, Native, SERVERS, Say, Server},
};

/// Orders that must be through for a fault to count as got over.
const CANARIES: usize = 8;
const CANARIES_BY_HTTP: usize = 2;
/// The longest that getting over a fault may take.
const RECOVERY: Duration = Duration::from_secs(180);
const START: Duration = Duration::from_secs(180);
/// A late end is delivered this long after it was kept back: its repetition went through by then, and the next
/// transaction is under way.
const LATE: Duration = Duration::from_secs(9);
/// Longer than a lease lasts.
const OTHER_OWNER: Duration = Duration::from_secs(75);
/// Six hours of the simulated warehouse's work in a second.
const SPEED: &str = "21600";
/// As many slots as processes of a part, so that another one must take over a slot that was in use.
const SLOTS: &str = "2";
/// A record that ends a process is parked when it is met for the third careful start. Its first meeting was one too if
/// the partition was still being worked on record by record after an earlier kill.
const ENDS: [usize; 2] = [2, 3];

pub struct Deployment {
    pub eyes: Eyes,
    pub fleet: Arc<Mutex<Fleet>>,
    pub tally: Arc<Mutex<Tally>>,
    pub accepted: Arc<Accepted>,
    pub flags: Arc<Flags>,
    /// How often the step in a deployment beside stopped as it must.
    pub side_stops: u64,
    native: Native,
    proxies: BTreeMap<Server, Proxy>,
    launcher: Launcher,
    /// Past the proxies.
    direct: Config,
    codec: Arc<Codec>,
    http: reqwest::Client,
    seed: u64,
    sender: Option<JoinHandle<Result<()>>>,
    sides: Vec<(usize, JoinHandle<Result<Stopped>>)>,
    trouble: Arc<Mutex<Vec<String>>>,
    /// Look after the processes and read their metrics until the end.
    helpers: Vec<JoinHandle<()>>,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let sender = self.sender.iter().map(JoinHandle::abort_handle);
        self.helpers.iter().map(JoinHandle::abort_handle).chain(sender).for_each(|it| it.abort());
    }
}

fn held<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deployment {
    /// Starts everything and waits until it works.
    pub async fn build(settings: &Settings, planned: &[Planned], say: Say<'_>) -> Result<Self> {
        let home = Home::at(&settings.home)?;
        let logs = home.logs();
        let (native, proxies) = start_servers(&home, settings.seed, say).await?;
        let addresses = native.addresses()?;
        let at = |server: Server| proxies[&server].address();
        let proxied = |text: &str, server: Server, native: &Native| {
            text.replace(&format!("127.0.0.1:{}", native.port(server)), &at(server).to_string())
        };
        let direct_env: Vec<(String, String)> = [
            ("KEPT_KAFKA", native.kafka_direct()),
            ("KEPT_REGISTRY", addresses.registry.clone()),
            ("KEPT_POSTGRES", addresses.postgres.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let api = format!("127.0.0.1:{}", free_port()?);
        let env = [
            ("KEPT_HOME", home.root().display().to_string()),
            ("KEPT_KAFKA", at(Server::Kafka).to_string()),
            ("KEPT_REGISTRY", proxied(&addresses.registry, Server::Registry, &native)),
            ("KEPT_POSTGRES", proxied(&addresses.postgres, Server::Postgres, &native)),
            ("KEPT_HTTP", api.clone()),
            ("KEPT_SLOTS", SLOTS.into()),
            (chaos_hook::VARIABLE, killing_ids(settings.seed, planned, 0)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let launcher = Launcher {
            processes: home.processes(),
            program: settings.program.clone(),
            folder: home.root().to_owned(),
            logs: logs.clone(),
            env,
        };
        let key = derive("key", &[&settings.seed.to_be_bytes()]).to_string();
        let reference = home.root().join("reference.jsonl");
        let lines: String = shop::reference(&key_hash(&key)).iter().map(|it| format!("{it}\n")).collect();
        fs::write(&reference, lines).with_context(|| format!("write {}", reference.display()))?;
        say("making tables, topics, schemas and reference data");
        let reference = reference.display().to_string();
        for command in [&["migrate"][..], &["topics", "apply"][..], &["reference", "apply", &reference][..]] {
            block_in_place(|| launcher.command(command, &direct_env))?;
        }

        let direct = Config::of(&direct_env.iter().cloned().collect()).context("make a configuration")?;
        let codec = Registry::open(&direct).await.context("ask the registry")?.codec();
        let mut outbox = kept_runtime::outbox(&direct).context("make a producer")?;
        outbox.send(first_stock(&codec)?).await.context("send the first stock")?;

        let mut fleet = Fleet::new(launcher.clone());
        say("starting Kept's processes");
        for part in Part::ALL {
            for which in 0..part.processes() {
                fleet.start(plan(part, Fleet::name(part, which), settings.seed, &logs.display().to_string())?)?;
            }
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_millis(800))
            .build()
            .context("make an HTTP client")?;
        let mut it = Self {
            eyes: Eyes::new(addresses.postgres.clone()),
            fleet: Arc::new(Mutex::new(fleet)),
            tally: Arc::default(),
            accepted: Arc::default(),
            flags: Arc::default(),
            side_stops: 0,
            native,
            proxies,
            launcher,
            direct,
            codec,
            http,
            seed: settings.seed,
            sender: None,
            sides: Vec::new(),
            trouble: Arc::default(),
            helpers: Vec::new(),
        };
        it.helpers = it.help();
        it.wait_ready().await?;
        let to_send = sender::Settings {
            seed: settings.seed,
            per_second: settings.per_second,
            http: format!("http://{api}"),
            key,
        };
        let (codec, accepted, flags) = (Arc::clone(&it.codec), Arc::clone(&it.accepted), Arc::clone(&it.flags));
        it.sender =
            Some(tokio::spawn(async move { sender::send(to_send, codec, outbox, &logs, accepted, flags).await }));
        say(&format!("{} orders a second flow", settings.per_second));
        Ok(it)
    }

    /// Tasks beside: one starts again what ended, one reads the counters.
    fn help(&self) -> Vec<JoinHandle<()>> {
        let (fleet, tally, trouble) = (Arc::clone(&self.fleet), Arc::clone(&self.tally), Arc::clone(&self.trouble));
        let looks_after = tokio::spawn(async move {
            loop {
                match block_in_place(|| held(&fleet).look_after()) {
                    Ok(began) => began.iter().for_each(|name| held(&tally).began(name)),
                    Err(error) => held(&trouble).push(format!("a process could not be started again: {error:#}")),
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        let (fleet, tally, http) = (Arc::clone(&self.fleet), Arc::clone(&self.tally), self.http.clone());
        let reads = tokio::spawn(async move {
            loop {
                scrape(&fleet, &tally, &http).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        vec![looks_after, reads]
    }

    async fn wait_ready(&self) -> Result<()> {
        let until = Instant::now() + START;
        loop {
            let mut waits = Vec::new();
            let pages = held(&self.fleet).pages();
            for (name, port) in pages {
                match page(&self.http, port, "readyz").await {
                    Some((200, _)) => {}
                    Some((_, why)) => waits.push(format!("{name}: {}", why.trim())),
                    None => waits.push(format!("{name} does not answer")),
                }
            }
            if waits.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "not ready after {} s: {}", START.as_secs(), waits.join("; "));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Waits; from `all_paid` on no order stays unpaid.
    pub async fn wait_until(&self, when: Instant, all_paid: Option<Instant>) {
        while Instant::now() < when {
            if all_paid.is_none_or(|it| Instant::now() >= it) {
                self.flags.all_paid.store(true, Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(200).min(when - Instant::now())).await;
        }
    }

    pub fn sender_ended(&self) -> bool {
        self.sender.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub async fn sender(&mut self) -> Result<Result<()>, tokio::task::JoinError> {
        match &mut self.sender {
            Some(sender) => sender.await,
            None => Ok(Ok(())),
        }
    }

    pub fn take_sides(&mut self) -> Vec<(usize, JoinHandle<Result<Stopped>>)> {
        std::mem::take(&mut self.sides)
    }

    /// True when the fault at this place goes on beside.
    pub fn goes_on_beside(&self, at: usize) -> bool {
        self.sides.iter().any(|it| it.0 == at)
    }

    pub fn leave_alone(&self) {
        self.flags.all_paid.store(true, Relaxed);
        self.proxies.values().for_each(|proxy| proxy.set(Mode::Pass));
    }

    pub fn late_ends(&self) -> u64 {
        self.proxies.values().map(|it| it.acted().ends_late.load(Relaxed)).sum()
    }

    pub fn trouble(&self) -> Vec<String> {
        let mut trouble = held(&self.trouble).clone();
        trouble.dedup();
        trouble.truncate(5);
        trouble
    }

    /// Reads every process's counters now.
    pub async fn scrape(&self) {
        scrape(&self.fleet, &self.tally, &self.http).await;
    }

    /// What `kept check` says. It may be too early for the last of it, so it is asked again until the time is over.
    pub async fn check(&self, patience: Duration, say: Say<'_>) -> (String, bool) {
        let until = Instant::now() + patience;
        let logs = self.launcher.logs.display().to_string();
        let env = [("KEPT_KAFKA".to_owned(), self.direct.kafka.clone())];
        loop {
            match block_in_place(|| self.launcher.command(&["check", "--settled", "--logs", &logs], &env)) {
                Ok(said) => return (said, true),
                Err(error) if Instant::now() > until => return (format!("{error:#}"), false),
                Err(error) => {
                    say(&format!("  not yet, so it is asked again: {error:#}"));
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
            }
        }
    }

    /// Makes a fault and waits until it is got over: after how many seconds, and what else there is to say. `at`: its
    /// place among all of them, for one that goes on beside.
    pub async fn make(&mut self, fault: Fault, at: usize) -> Result<(Option<f64>, String)> {
        let since = match fault {
            Fault::Kill(Who::Part(part, which)) => {
                self.scrape().await;
                let since = Instant::now();
                block_in_place(|| held(&self.fleet).kill(&Fleet::name(part, which)))?;
                return Ok((self.through(since, part == Part::Http).await, String::new()));
            }
            Fault::Kill(Who::Server(server)) => {
                let since = Instant::now();
                block_in_place(|| self.native.kill(server))?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                block_in_place(|| self.native.start(server, &|_| ()))?;
                follow_ports(&self.native, &self.proxies);
                since
            }
            Fault::Pause(Who::Part(part, which), seconds) => {
                let name = Fleet::name(part, which);
                held(&self.fleet).signal(&name, libc::SIGSTOP)?;
                sleep(seconds).await;
                held(&self.fleet).signal(&name, libc::SIGCONT)?;
                Instant::now()
            }
            Fault::Pause(Who::Server(server), seconds) => {
                self.native.pause(server)?;
                sleep(seconds).await;
                self.native.resume(server)?;
                Instant::now()
            }
            Fault::TwoOwners(part, which) => return self.two_owners(part, which).await,
            Fault::TakenLate(part) => return self.taken_late(part).await,
            Fault::Cut(server) => {
                self.proxies[&server].cut();
                Instant::now()
            }
            Fault::Refuse(server, seconds) => self.for_a_while(server, Mode::Refuse, seconds).await,
            Fault::Stall(server, seconds) => self.for_a_while(server, Mode::Stall, seconds).await,
            Fault::Delay(server, most, seconds) => {
                self.for_a_while(server, Mode::Delay(Duration::from_millis(u64::from(most))), seconds).await
            }
            Fault::LateEnd(part) => return self.late_end(part).await,
            Fault::TopicMadeAnew => {
                let mut config = self.direct.clone();
                config.prefix = format!("side{}_", at + 1);
                let side = Side {
                    number: u32::try_from(at + 1).context("so many faults")?,
                    kafka: self.direct.kafka.clone(),
                    postgres: self.direct.postgres.expose().to_owned(),
                    codec: Arc::clone(&self.codec),
                    outbox: kept_runtime::outbox(&config).context("make a producer")?,
                };
                let launcher = self.launcher.clone();
                // It waits for processes and commands a lot, so it has a thread of its own.
                let handle = tokio::runtime::Handle::current();
                let beside = tokio::task::spawn_blocking(move || handle.block_on(topic_made_anew(side, &launcher)));
                self.sides.push((at, beside));
                return Ok((None, "it did not end".into()));
            }
            Fault::KillingRecord(number) => return self.killing_record(number).await,
            Fault::UnreadableRecords => return self.unreadable(at).await,
        };
        Ok((self.through(since, false).await, String::new()))
    }

    async fn for_a_while(&self, server: Server, mode: Mode, seconds: u32) -> Instant {
        self.proxies[&server].set(mode);
        sleep(seconds).await;
        self.proxies[&server].set(Mode::Pass);
        Instant::now()
    }

    /// Seconds from `since` until orders accepted after it are in the read model. `None`: they were not in time.
    async fn through(&mut self, since: Instant, by_http: bool) -> Option<f64> {
        let wanted = if by_http { CANARIES_BY_HTTP } else { CANARIES };
        let until = Instant::now() + RECOVERY;
        while Instant::now() < until {
            let canaries = self.accepted.after(since, wanted, by_http);
            if canaries.len() == wanted && matches!(self.eyes.shown(&canaries).await, Ok(shown) if shown == wanted) {
                return Some(since.elapsed().as_secs_f64());
            }
            if self.sender_ended() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// The paused process's lease runs out, a spare takes its slot, and then it goes on.
    async fn two_owners(&mut self, part: Part, which: u8) -> Result<(Option<f64>, String)> {
        let name = Fleet::name(part, which);
        let spare = format!("{name}-spare");
        let mut plan = held(&self.fleet).plan(&name)?;
        plan.name.clone_from(&spare);
        let port = free_port()?;
        plan.ops = Some(port);
        plan.env = vec![("KEPT_OPS".to_owned(), format!("127.0.0.1:{port}"))];
        held(&self.fleet).signal(&name, libc::SIGSTOP)?;
        let began = Instant::now();
        block_in_place(|| held(&self.fleet).start(plan))?;
        let owns = loop {
            let running = format!("kept_running{{step=\"{}\"}} 1", part.name());
            match page(&self.http, port, "metrics").await {
                Some((200, text)) if text.contains(&running) => break true,
                _ if began.elapsed() > OTHER_OWNER => break false,
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        let took = began.elapsed().as_secs_f64();
        held(&self.fleet).signal(&name, libc::SIGCONT)?;
        let recovered = self.through(Instant::now(), false).await;
        sleep(5).await;
        block_in_place(|| held(&self.fleet).let_go(&spare))?;
        sleep(10).await;
        block_in_place(|| held(&self.fleet).forget(&spare))?;
        if owns {
            Ok((recovered, format!("the other had the slot after {took:.0} s")))
        } else {
            Ok((None, "nobody else got its slot".into()))
        }
    }

    /// What taking a partition writes, without what follows it; so the owner learns of it from its next batch only.
    async fn taken_late(&mut self, part: Part) -> Result<(Option<f64>, String)> {
        let taking = match part {
            Part::Ledger => {
                "UPDATE ledger.progress SET owner_epoch = owner_epoch + 1 WHERE step = 'ledger' RETURNING 1"
            }
            Part::Read => "UPDATE read.sink_progress SET owner_epoch = owner_epoch + 1 RETURNING 1",
            other => bail!("{other:?} has no partitions in Postgres"),
        };
        let mut taken = 0;
        let answered = self
            .wait_for(RECOVERY, async |eyes| {
                taken = eyes.ask(taking, &[]).await?.len();
                Ok(true)
            })
            .await;
        let recovered = self.through(Instant::now(), false).await;
        Ok((recovered.filter(|_| answered && taken > 0), format!("{taken} partitions were taken")))
    }

    async fn late_end(&mut self, part: Part) -> Result<(Option<f64>, String)> {
        let proxy = &self.proxies[&Server::Kafka];
        proxy.hold_next_end(&format!("{}.", part.name()));
        let Some(end) = proxy.held_end(Duration::from_secs(30)).await else {
            return Ok((None, "no transaction ended".into()));
        };
        let since = Instant::now();
        tokio::time::sleep(LATE).await;
        let note = match proxy.deliver(&end).await {
            Ok(0) => format!("the end of {} was taken {} s late", end.transactional_id, LATE.as_secs()),
            Ok(code) => {
                format!("the end of {} came {} s late and was refused ({code})", end.transactional_id, LATE.as_secs())
            }
            Err(error) => format!("the late end got no answer: {error}"),
        };
        Ok((self.through(since, false).await, note))
    }

    /// A payment that ends every ledger process that decides about it: parked at the third start, everyone else goes
    /// on; released once the fault is mended, it is decided after all.
    async fn killing_record(&mut self, number: u8) -> Result<(Option<f64>, String)> {
        let made = waiting_order(self.seed, number);
        let mut outbox = kept_runtime::outbox(&self.direct).context("make a producer")?;
        let mut log = SentLog::open(&self.launcher.logs, &format!("chaos-killing-{number}"))?;
        send_one(&mut outbox, &self.codec, &mut log, &made, &self.accepted).await?;
        let order = made.order_id;
        if !self.wait_for(RECOVERY, async |eyes| Ok(eyes.status(order).await?.as_deref() == Some("held"))).await {
            return Ok((None, "the order that was to be paid is not held".into()));
        }
        let before = held(&self.fleet).deaths_of(Part::Ledger);
        store(&mut outbox, vec![self.killing_payment(&made, number)?], &self.accepted.tries_again).await?;
        if !self.wait_for(2 * RECOVERY, async |eyes| eyes.parked(order).await).await {
            return Ok((None, "the record was not parked".into()));
        }
        let ends = held(&self.fleet).deaths_of(Part::Ledger) - before;
        let recovered = self.through(Instant::now(), false).await;

        // The fault is mended: the processes are started without it, and the order is let go.
        held(&self.fleet).set_env(chaos_hook::VARIABLE, &later_ids(self.seed, number));
        let ledgers = held(&self.fleet).of(Part::Ledger);
        for name in ledgers {
            held(&self.fleet).restart(&name)?;
            sleep(15).await;
        }
        let env = [("KEPT_KAFKA".to_owned(), self.direct.kafka.clone())];
        let id = order.to_string();
        let patience = RECOVERY.as_secs().to_string();
        let replay = ["parked", "replay", &id, "--by", "chaos", "--wait", &patience];
        let replayed = block_in_place(|| self.launcher.command(&replay, &env));
        let paid =
            self.wait_for(RECOVERY, async |eyes| Ok(eyes.status(order).await?.is_some_and(|it| it != "held"))).await;
        let note = format!("{ends} processes ended, then it was parked");
        if !paid {
            let standing = match self.eyes.in_words(order).await {
                Ok(words) => words,
                Err(error) => format!("where it stands could not be asked: {error:#}"),
            };
            let said = replayed.err().map(|error| format!("; {error:#}")).unwrap_or_default();
            return Ok((None, format!("{note}, but sent again it was not decided: {standing}{said}")));
        }
        if let Err(error) = replayed {
            return Ok((None, format!("{note}; it went on, but replay did not say so: {error:#}")));
        }
        if !ENDS.contains(&ends) {
            return Ok((None, format!("{note}, which should be at the third start that meets it")));
        }
        Ok((recovered, note))
    }

    fn killing_payment(&self, made: &Made, number: u8) -> Result<Outgoing> {
        let payment = PaymentReceived {
            order_id: made.order_id,
            payment_id: format!("pay-{}", made.number),
            kind: PaymentKind::Captured,
            amount_minor: made.total_minor,
            currency: "EUR".into(),
            at: now(),
            source: "chaos".into(),
            ..Default::default()
        };
        let headers = Headers {
            event_id: Some(killing_id(self.seed, number)),
            subject: Some(Topic::PaymentsReceived.subject().into()),
            ..Default::default()
        };
        let wire = self.codec.encode(&payment).context("encode a payment")?;
        Ok(Outgoing::new(Topic::PaymentsReceived, &made.order_id.to_string(), &wire, headers))
    }

    async fn unreadable(&mut self, at: usize) -> Result<(Option<f64>, String)> {
        // Postgres may be away at this moment; a count that is not known proves nothing.
        let mut before = None;
        let known = self.wait_for(RECOVERY, async |eyes| Ok(eyes.dead_letters().await.is_ok())).await;
        if known {
            before = self.eyes.dead_letters().await.ok();
        }
        let Some(before) = before else {
            return Ok((None, "the dead letters there are already could not be counted".into()));
        };
        let (records, count) = unreadable_records(at);
        let mut outbox = kept_runtime::outbox(&self.direct).context("make a producer")?;
        let since = Instant::now();
        store(&mut outbox, records, &self.accepted.tries_again).await?;
        let there = self.wait_for(RECOVERY, async |eyes| Ok(eyes.dead_letters().await? >= before + count)).await;
        let recovered = self.through(since, false).await;
        let note = match self.eyes.dead_letters().await {
            Ok(now) => format!("{} of {count} are dead letters", now - before),
            Err(error) => format!("the dead letters could not be counted: {error:#}"),
        };
        Ok((recovered.filter(|_| there), note))
    }

    async fn wait_for(&mut self, patience: Duration, mut what: impl AsyncFnMut(&mut Eyes) -> Result<bool>) -> bool {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            // Postgres may be away at this moment.
            if matches!(what(&mut self.eyes).await, Ok(true)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }
}

/// Servers, each behind a proxy.
async fn start_servers(home: &Home, seed: u64, say: Say<'_>) -> Result<(Native, BTreeMap<Server, Proxy>)> {
    say(&format!("starting servers of its own in {}", home.root().display()));
    block_in_place(|| servers::down(home, true, &|_| ()))?;
    // The broker tells its clients the proxy's address, so the proxy is there first.
    let ports = Native::open(home.clone(), servers::Settings::default())?;
    let mut proxies = BTreeMap::new();
    for (server, salt) in SERVERS.into_iter().zip(0..) {
        let (speech, to) = match server {
            Server::Kafka => (Speech::Kafka { rename: false }, ports.kafka_behind_proxy()),
            other => (Speech::Plain, format!("127.0.0.1:{}", ports.port(other))),
        };
        let proxy = Proxy::start("127.0.0.1:0", &to, speech, seed.wrapping_add(salt)).await;
        proxies.insert(server, proxy.with_context(|| format!("start the proxy before {server}"))?);
    }
    let advertised = Some(proxies[&Server::Kafka].address().to_string());
    let mut native = Native::open(home.clone(), servers::Settings { durable: true, advertised_kafka: advertised })?;
    block_in_place(|| {
        native.install(&SERVERS, say)?;
        native.launch(Server::Postgres, say)?;
        native.launch(Server::Kafka, say)?;
        native.wait_ready(Server::Postgres, say)?;
        native.launch(Server::Registry, say)?;
        native.wait_ready(Server::Kafka, say)?;
        native.wait_ready(Server::Registry, say)
    })?;
    follow_ports(&native, &proxies);
    Ok((native, proxies))
}

/// A server that had to take another port is found there by its proxy.
fn follow_ports(native: &Native, proxies: &BTreeMap<Server, Proxy>) {
    for (server, proxy) in proxies {
        match server {
            Server::Kafka => proxy.lead_to(&native.kafka_behind_proxy()),
            other => proxy.lead_to(&format!("127.0.0.1:{}", native.port(*other))),
        }
    }
}

fn plan(part: Part, name: String, seed: u64, logs: &str) -> Result<Plan> {
    let seed = seed.to_string();
    if part == Part::World {
        let args = ["simulate", "--speed", SPEED, "--seed", &seed, "--logs", logs];
        return Ok(Plan { name, part, args: args.map(str::to_owned).to_vec(), env: Vec::new(), ops: None });
    }
    let port = free_port()?;
    Ok(Plan {
        name,
        part,
        args: ["run", part.name(), "--wait", "600"].map(str::to_owned).to_vec(),
        env: vec![("KEPT_OPS".to_owned(), format!("127.0.0.1:{port}"))],
        ops: Some(port),
    })
}

async fn scrape(fleet: &Mutex<Fleet>, tally: &Mutex<Tally>, http: &reqwest::Client) {
    let pages = held(fleet).pages();
    for (name, port) in pages {
        // One that is down, stopped or just starting has nothing to say now.
        if let Some((200, text)) = page(http, port, "metrics").await {
            held(tally).take(&name, &text);
        }
    }
}

async fn page(http: &reqwest::Client, port: u16, page: &str) -> Option<(u16, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = http.get(format!("http://{address}/{page}")).send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.text().await.ok()?))
}

async fn sleep(seconds: u32) {
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
}

/// The event that ends a process: the n-th of them.
fn killing_id(seed: u64, number: u8) -> EventId {
    EventId::of_input("chaos", &format!("killing-{seed}-{number}"), b"")
}

fn killing_ids(seed: u64, planned: &[Planned], from: u8) -> String {
    let numbers = planned.iter().filter_map(|it| match it.fault {
        Fault::KillingRecord(number) if number >= from => Some(number),
        _ => None,
    });
    numbers.map(|number| killing_id(seed, number).to_string()).collect::<Vec<_>>().join(",")
}

/// Those after `number`; there may be more than will come, which does no harm.
fn later_ids(seed: u64, number: u8) -> String {
    (number + 1..=number.saturating_add(20)).map(|it| killing_id(seed, it).to_string()).collect::<Vec<_>>().join(",")
}

/// An order that waits for its payment.
fn waiting_order(seed: u64, number: u8) -> Made {
    let mut made = shop::order(seed, u64::MAX - u64::from(number), now(), false);
    let read = OrderForm::parse(&made.body).map(|it| it.form).unwrap_or_default();
    let name = format!("K{seed}-killing-{number}");
    let lines = vec![kept_schemas::own::LineForm {
        sku: shop::sku(shop::SCARCE),
        quantity: 1,
        unit_price: UnitPrice { amount: 1_000, scale: 2 },
        ..Default::default()
    }];
    let form = OrderForm {
        order_number: name.clone(),
        ship_to: Some(shop::plain_address()),
        lines,
        charges: Vec::new(),
        total: Some(UnitPrice { amount: 1_000, scale: 2 }),
        payment: PaymentTermsForm { captured: UnitPrice { amount: 0, scale: 2 }, ..Default::default() },
        ..read
    };
    made.order_id = OrderId::of(shop::SHOP, &name);
    made.body = form.to_json();
    (made.lines, made.units, made.total_minor) = (1, 1, 1_000);
    made.number = name;
    made.follow_ups = Vec::new();
    made
}

/// Five bytes, another magic byte, a schema that nobody knows: on every kind of input.
fn unreadable_records(salt: usize) -> (Vec<Outgoing>, i64) {
    let values: [&[u8]; 3] = [&[0, 0, 0, 0, 1], b"{\"not\":\"ours\"}", &[0, 0x7f, 0xff, 0xff, 0xf0, 1, 2, 3]];
    let records: Vec<Outgoing> = Topic::FROM_OTHERS
        .iter()
        .flat_map(|&topic| values.iter().zip(0..).map(move |(value, at)| (topic, value.to_vec(), at)))
        .map(|(topic, value, at)| Outgoing {
            topic,
            key: format!("unreadable-{salt}-{at}").into_bytes(),
            value,
            headers: Headers::default(),
        })
        .collect();
    let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
    (records, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::schedule::{Profile, schedule};

    #[test]
    fn the_order_that_waits_for_its_payment_is_whole_and_unpaid() {
        let made = waiting_order(3, 1);
        let read = OrderForm::parse(&made.body).expect("it reads");
        assert_eq!(read.form.order_number, "K3-killing-1");
        assert_eq!((read.form.total_minor(), read.form.payment.captured.amount), (Some(1_000), 0));
        assert_eq!(made.order_id, OrderId::of(shop::SHOP, "K3-killing-1"));
        assert_ne!(made.order_id, waiting_order(3, 2).order_id);
    }

    #[test]
    fn processes_are_told_of_every_record_that_is_to_end_them_and_later_of_fewer() {
        let planned = schedule(5, 120, Profile::Full, None);
        let all = killing_ids(5, &planned, 0);
        assert!(all.contains(&killing_id(5, 0).to_string()));
        let later = later_ids(5, 0);
        assert!(!later.contains(&killing_id(5, 0).to_string()));
        assert!(later.contains(&killing_id(5, 1).to_string()));
    }

    #[test]
    fn no_unreadable_record_can_be_read() {
        let codec = kept_schemas::codec::offline();
        let (records, count) = unreadable_records(1);
        assert_eq!(count, 18);
        for record in records {
            let read = codec.decode::<kept_schemas::inbound::Inbound>(&record.value);
            assert!(!matches!(read, Ok(Some(_))), "{:?}", record.value);
        }
    }
}
