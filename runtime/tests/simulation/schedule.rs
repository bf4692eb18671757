//! One seeded schedule: workers polled in a random order, killed, stopped and woken at any await, while records
//! arrive; then calm, until nothing is left to do; then the oracle.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use kept_processors::{
    ledger::{Facts, LedgerInput, OrderState},
    reference::Reference,
};
use kept_runtime::{
    counters::Counters,
    ledger_step::{Broken, LedgerStep, StepSettings, Stopped},
    log::{LogRecord, Outgoing},
    schemas::Fixed,
    sink_step::SinkStep,
    stateless::Stateless,
};
use kept_schemas::{
    Codec, EventId, Headers, OrderId, Topic,
    codec::offline,
    events::DeadLetter,
    inbound::{Inbound, OrderReceived},
    inputs::{CommandReceived, PaymentReceived},
};
use kept_store::seam::{Ends, Rules, TopicPartition};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    misfit::Misfit,
    store::{Book, ModelSink, ModelStore, REFUSE, captured},
    toy::{NO_LOCK, PANIC, STEPS, ToyRules},
    world::{ModelLog, Nasty, PARTITIONS, Shared, World},
};

/// What a schedule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// Ledger step and sink behind it.
    Ledger,
    /// Stateless steps, fused and apart.
    Stateless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ledger,
    Sink,
    Fused,
    Apart(usize),
}

pub const INPUTS: [Topic; 2] = [Topic::PaymentsReceived, Topic::CommandsReceived];
pub const OUTPUTS: [Topic; 3] = [Topic::OrdersPaid, Topic::OrdersNoted, Topic::DeadLetters];
const MIDDLE: [Topic; 4] =
    [Topic::ChannelsInbound, Topic::OrdersReceived, Topic::OrdersEnriched, Topic::OrdersValidated];

/// What may happen to servers and processes at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing: everybody notes what it committed and passed.
    Quiet,
    /// The broker comes back with older offsets than it had confirmed, and everybody starts again.
    Forget,
    /// Every record is older than its topic keeps it.
    Expire,
    /// Everybody starts again, and more records come.
    More,
    /// A person lets every parked order go, one record of each, and more records come.
    LetGo,
    /// Everybody starts again, and finds that database, group and topic do not fit: whoever minds must stop.
    Misfit(Misfit),
}

struct Running {
    id: usize,
    future: Pin<Box<dyn Future<Output = Result<(), Stopped>>>>,
    stop: Arc<AtomicBool>,
    paused_until: u64,
}

struct Slot {
    kind: Kind,
    name: String,
    running: Vec<Running>,
    restart_at: u64,
    stopped: Option<String>,
}

/// What came of a schedule.
pub struct Report {
    pub counters: BTreeMap<&'static str, u64>,
    pub late_applied: usize,
    pub ends_lost: usize,
    pub kills: usize,
    pub pauses: usize,
    /// Workers that stopped because a topic was made anew.
    pub anew: usize,
}

pub struct Schedule {
    seed: u64,
    scene: Scene,
    broken: Option<Broken>,
    world: Shared,
    codec: Arc<Codec>,
    rng: ChaCha8Rng,
    slots: Vec<Slot>,
    counters: Arc<Counters>,
    next_worker: usize,
    arrivals: Vec<(u64, Outgoing)>,
    anew_at: Option<u64>,
    /// What happens once everything is at rest, one after the other, with a minute after each.
    rests: VecDeque<Rest>,
    /// Where everything ended when a long quiet rest began.
    quiet: Option<Ends>,
    /// The version of reference data; another one every few seconds, but where `plain`.
    reference: Arc<AtomicI64>,
    plain: bool,
    /// Somebody gives records the keys of other orders now and then; then nobody promises in which order the events of
    /// one order become visible.
    wrong_keys: bool,
    /// What has happened that must stop somebody.
    misfit: Option<Misfit>,
    /// How often more records were made.
    mores: i64,
    kills: usize,
    pauses: usize,
}

thread_local! {
    static CODEC: Arc<Codec> = Arc::new(offline());
}

/// So long is a quiet rest, in milliseconds: steps that have nothing to do look and note now and then.
const QUIET: u64 = 150_000;

/// No schedule has as many records.
const FAR: i64 = 1_000_000;

/// Every partition of some topics.
pub fn places(topics: &[Topic]) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|&topic| (0..PARTITIONS).map(move |partition| TopicPartition { topic, partition }))
}

impl Schedule {
    pub fn new(seed: u64, broken: Option<Broken>, trace: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
        let scene = if rng.random_bool(0.7) { Scene::Ledger } else { Scene::Stateless };
        let nasty = Nasty {
            late_end: *[0.0, 0.02, 0.1].choose(&mut rng).expect("some"),
            give_up: *[0.0, 0.01, 0.03].choose(&mut rng).expect("some"),
            network: *[0.0, 0.002, 0.02].choose(&mut rng).expect("some"),
            slow: *[0.0, 0.01, 0.04].choose(&mut rng).expect("some"),
            unwritten: *[0.0, 0.02, 0.1].choose(&mut rng).expect("some"),
        };
        let world: Shared = Rc::new(std::cell::RefCell::new(World::new(seed, nasty)));
        world.borrow_mut().trace = trace;
        let topics: &[Topic] = match scene {
            Scene::Ledger => &[INPUTS[0], INPUTS[1], OUTPUTS[0], OUTPUTS[1], OUTPUTS[2]],
            Scene::Stateless => &[MIDDLE[0], MIDDLE[1], MIDDLE[2], MIDDLE[3], Topic::DeadLetters],
        };
        for &topic in topics {
            world.borrow_mut().create(topic);
        }
        let kinds: Vec<Kind> = match scene {
            Scene::Ledger => vec![Kind::Ledger, Kind::Ledger, Kind::Sink, Kind::Sink],
            Scene::Stateless => vec![Kind::Fused, Kind::Fused, Kind::Apart(0), Kind::Apart(1), Kind::Apart(2)],
        };
        let slots = kinds
            .into_iter()
            .enumerate()
            .map(|(position, kind)| Slot {
                kind,
                name: format!("slot-{position}"),
                running: Vec::new(),
                restart_at: rng.random_range(0..5_000),
                stopped: None,
            })
            .collect();
        let until = rng.random_range(20_000..70_000);
        let anew_at = (scene == Scene::Ledger && rng.random_bool(0.06)).then(|| rng.random_range(5_000..until));
        let mut schedule = Self {
            seed,
            scene,
            broken,
            world,
            codec: CODEC.with(Arc::clone),
            rng,
            slots,
            counters: Arc::default(),
            next_worker: 0,
            arrivals: Vec::new(),
            anew_at,
            quiet: None,
            rests: match seed % 8 {
                0 if anew_at.is_none() && broken.is_none() => VecDeque::from([Rest::Quiet, Rest::Forget]),
                2 if broken.is_none() => std::iter::repeat_n(Rest::LetGo, 6).collect(),
                4 if anew_at.is_none() && broken.is_none() => {
                    VecDeque::from([Rest::Quiet, Rest::Expire, Rest::More, Rest::Quiet])
                }
                _ => VecDeque::new(),
            },
            reference: Arc::default(),
            plain: false,
            wrong_keys: seed % 24 == 18 && broken.is_none(),
            misfit: None,
            mores: 0,
            kills: 0,
            pauses: 0,
        };
        schedule.write_arrivals(until);
        schedule
    }

    fn write_arrivals(&mut self, until: u64) {
        let count = self.rng.random_range(10..60);
        let spoiled = self.rng.random_bool(0.3);
        let mut sent: Vec<Outgoing> = Vec::new();
        for n in 0..count {
            let at = self.rng.random_range(0..until);
            let again = !sent.is_empty() && self.rng.random_bool(0.15);
            let record = if again {
                sent.choose(&mut self.rng).expect("some").clone()
            } else {
                match self.scene {
                    Scene::Ledger => self.ledger_input(n, spoiled),
                    Scene::Stateless => self.raw(n, spoiled),
                }
            };
            sent.push(record.clone());
            self.arrivals.push((at, record));
        }
        self.arrivals.sort_by_key(|(at, _)| *at);
        self.arrivals.reverse();
    }

    fn ledger_input(&mut self, n: i64, spoiled: bool) -> Outgoing {
        let order = OrderId::of("shop", &self.rng.random_range(0..6).to_string());
        let payment_id = format!("p{n}");
        let event_id = Some(EventId::of_input("test", &payment_id, b""));
        let headers = Headers { event_id, ..Default::default() };
        let wrong = self.wrong_keys && self.rng.random_bool(0.1);
        let key = if wrong { OrderId::of("shop", &self.rng.random_range(0..6).to_string()) } else { order }.to_string();
        if spoiled && self.rng.random_bool(0.05) {
            let value = vec![9, 0, 0, 0, 1, 2];
            return Outgoing { topic: INPUTS[0], key: key.into_bytes(), value, headers };
        }
        if self.rng.random_bool(0.3) {
            // What comes of it makes the sink panic.
            let by = if spoiled && self.rng.random_bool(0.1) { PANIC.to_owned() } else { String::new() };
            let command = CommandReceived { order_id: order, command_id: payment_id, by, ..Default::default() };
            let wire = self.codec.encode(&command).expect("it fits");
            return Outgoing::new(INPUTS[1], &key, &wire, headers);
        }
        let currency = match (spoiled, self.rng.random_range(0..20)) {
            (true, 0) => PANIC,
            (true, 1) => REFUSE,
            (true, 2) => NO_LOCK,
            _ => "EUR",
        };
        let payment = PaymentReceived {
            order_id: order,
            payment_id,
            amount_minor: self.rng.random_range(1..30),
            currency: currency.into(),
            ..Default::default()
        };
        let wire = self.codec.encode(&payment).expect("it fits");
        Outgoing::new(INPUTS[0], &key, &wire, headers)
    }

    fn raw(&mut self, n: i64, spoiled: bool) -> Outgoing {
        let event_id = Some(EventId::of_input("test", &n.to_string(), b""));
        let headers = Headers { event_id, ..Default::default() };
        let key = n.to_string();
        if spoiled && self.rng.random_bool(0.1) {
            return Outgoing { topic: MIDDLE[0], key: key.into_bytes(), value: vec![0, 0, 0], headers };
        }
        if self.rng.random_bool(0.3) {
            // Somebody else may write to a middle topic.
            let mut it = OrderReceived::default();
            it.order.order_id = OrderId::of("other", &key);
            it.order.channel_order_id = n.to_string();
            let wire = self.codec.encode(&it).expect("it fits");
            let mut headers = headers;
            if self.rng.random_bool(0.2) {
                // Copied from a deployment that has done more.
                headers.step = Some(STEPS[0].name.into());
                headers.cause = Some((MIDDLE[0].name().into(), self.rng.random_range(0..PARTITIONS), FAR + n));
                headers.cause_id = Some(EventId::of_input("elsewhere", &key, b""));
            }
            return Outgoing::new(MIDDLE[1], &key, &wire, headers);
        }
        let shop = if spoiled && self.rng.random_bool(0.1) { PANIC } else { "shop" };
        let it = Inbound { shop: shop.into(), external_id: n.to_string(), ..Default::default() };
        let wire = self.codec.encode(&it).expect("it fits");
        Outgoing::new(MIDDLE[0], &key, &wire, headers)
    }

    fn start(&mut self, slot: usize) {
        self.next_worker += 1;
        let id = self.next_worker;
        let stop: Arc<AtomicBool> = Arc::default();
        let (kind, name) = (self.slots[slot].kind, self.slots[slot].name.clone());
        let mut settings = StepSettings::new("ledger");
        settings.max_records = self.rng.random_range(1..12);
        settings.window = Duration::from_millis(self.rng.random_range(10..200));
        settings.hand_over = self.rng.random_range(1..6);
        settings.chunk = self.rng.random_range(1..10);
        settings.careful = self.rng.random_range(1..5);
        let schemas = Fixed(Arc::clone(&self.codec));
        let world = &self.world;
        let (broken, counters) = (self.broken, Arc::clone(&self.counters));
        let halt = Arc::clone(&stop);
        let future: Pin<Box<dyn Future<Output = Result<(), Stopped>>>> = match kind {
            Kind::Ledger => {
                let log = ModelLog::new(world, id, "ledger", &name, &INPUTS);
                let store = ModelStore::new(world, Book::Ledger);
                let version = Arc::clone(&self.reference);
                let reference = move || {
                    let versions = BTreeMap::from([(Topic::ReferenceProducts, version.load(Ordering::Relaxed))]);
                    Arc::new(Reference { versions, ..Default::default() })
                };
                let mut step = LedgerStep::new(log, store, ToyRules, schemas, Box::new(reference), settings);
                (step.broken, step.counters, step.stop) = (broken, counters, halt);
                Box::pin(async move { step.run().await })
            }
            Kind::Sink => {
                settings.step = "sink".into();
                let log = ModelLog::new(world, id, "sink", &name, &OUTPUTS);
                let mut step = SinkStep::new(log, ModelSink(ModelStore::new(world, Book::Sink)), schemas, settings);
                (step.broken, step.counters, step.stop) = (broken, counters, halt);
                Box::pin(async move { step.run().await })
            }
            Kind::Fused | Kind::Apart(_) => {
                settings.step = "prepare".into();
                let steps = match kind {
                    Kind::Apart(position) => vec![STEPS[position]],
                    _ => STEPS.to_vec(),
                };
                let topics: Vec<Topic> = steps.iter().flat_map(|step| step.inputs.iter().copied()).collect();
                let log = ModelLog::new(world, id, "prepare", &name, &topics);
                let store = ModelStore::new(world, Book::Stateless);
                let mut step = Stateless::new(log, store, schemas, Box::new(Arc::default), steps, "prepare", settings);
                step.family = STEPS.to_vec();
                (step.broken, step.counters, step.stop) = (broken, counters, halt);
                Box::pin(async move { step.run().await })
            }
        };
        self.world.borrow_mut().wake.insert(id, 0);
        self.slots[slot].running.push(Running { id, future, stop, paused_until: 0 });
    }

    fn drop_worker(&mut self, slot: usize, position: usize) {
        let gone = self.slots[slot].running.remove(position);
        let mut world = self.world.borrow_mut();
        world.paused.remove(&gone.id);
        world.wake.remove(&gone.id);
        world.current = gone.id;
        world.say(|| "gone".into());
        drop(world);
        drop(gone);
    }

    /// Runs it to its end; `Err` says what is wrong.
    pub fn run(&mut self) -> Result<Report, String> {
        let faults_until = self.rng.random_range(20_000..90_000);
        let kill_rate = *[0.0, 0.0005, 0.003].choose(&mut self.rng).expect("some");
        let pause_rate = *[0.0, 0.0005, 0.003].choose(&mut self.rng).expect("some");
        let mut calm_since = None;
        let mut looked = 0;
        loop {
            let now = self.world.borrow().now;
            if !self.plain {
                self.reference.store(i64::try_from(now / 3_000).expect("small"), Ordering::Relaxed);
            }
            if calm_since.is_none() && now >= faults_until {
                calm_since = Some(now);
                self.calm_down(now);
            }
            if let Some(since) = calm_since {
                if now >= looked + 500 {
                    looked = now;
                    if self.arrivals.is_empty() && self.anew_at.is_none() && self.settled() {
                        self.judge_quiet()?;
                        let Some(next) = self.rests.pop_front() else {
                            break;
                        };
                        // Topics keep records for weeks: the sink has passed the last marker by then.
                        if next == Rest::Expire && !self.sink_is_at_the_end() {
                            self.rests.push_front(next);
                            continue;
                        }
                        self.rest(next, now);
                        looked = now + if self.quiet.is_some() { QUIET } else { 60_000 };
                    }
                }
                if now > since + 600_000 {
                    return Err(format!("it never settles: {}", self.standing()));
                }
            }
            self.arrive(now);
            if self.broken.is_none() && calm_since.is_none() {
                self.release();
            }
            self.restart(now, calm_since.is_some());
            self.turn(now, kill_rate, pause_rate, calm_since.is_some())?;
        }
        let world = self.world.borrow();
        if world.unfenced > 0 && self.broken != Some(Broken::OffsetsBeforeOutput) {
            return Err(format!("{} transactions had records and no offset", world.unfenced));
        }
        if world.left_open > 0 {
            return Err(format!("{} times a step went on while its own transaction was open", world.left_open));
        }
        match self.scene {
            // What is gone cannot be judged.
            _ if self.misfit.is_some() => {}
            Scene::Ledger => self.judge_ledger(&world)?,
            Scene::Stateless => self.judge_stateless(&world)?,
        }
        Ok(Report {
            counters: self.counters.all().into_iter().map(|(name, _, value)| (name, value)).collect(),
            late_applied: world.late_applied,
            ends_lost: world.ends_lost,
            kills: self.kills,
            pauses: self.pauses,
            anew: if self.misfit.is_none() { self.slots.iter().filter(|it| it.stopped.is_some()).count() } else { 0 },
        })
    }

    fn calm_down(&mut self, now: u64) {
        self.world.borrow_mut().calm = true;
        self.world.borrow().say(|| "calm".into());
        for slot in 0..self.slots.len() {
            while self.slots[slot].running.len() > 1 {
                self.drop_worker(slot, 0);
            }
            for it in &mut self.slots[slot].running {
                it.paused_until = now;
            }
            self.slots[slot].restart_at = now;
        }
    }

    /// After a long quiet time nobody must look for what it sent among what others sent before it.
    fn judge_quiet(&mut self) -> Result<(), String> {
        let Some(ends) = self.quiet.take() else {
            return Ok(());
        };
        if self.broken.is_some() || self.misfit.is_some() || self.slots.iter().any(|it| it.stopped.is_some()) {
            return Ok(());
        }
        for (row, it) in &self.world.borrow().store.progress {
            let behind = it.sent_from.iter().find(|(at, from)| ends.get(at).is_some_and(|end| *from < end));
            if let Some((at, from)) = behind {
                return Err(format!("{row:?} looks on {}/{} from {from} on, of {}", at.topic, at.partition, ends[at]));
            }
        }
        Ok(())
    }

    fn rest(&mut self, what: Rest, now: u64) {
        self.world.borrow().say(|| format!("at rest: {what:?}"));
        match what {
            Rest::Quiet => {
                let world = self.world.borrow();
                let all = places(Topic::ALL).filter(|at| world.topics.contains_key(&at.topic));
                self.quiet = Some(all.map(|at| (at, world.extent(at).1)).collect());
            }
            Rest::Forget => {
                self.world.borrow_mut().forget();
                if self.seed.is_multiple_of(16) {
                    // Nothing is known of what stands either: all of it is looked for.
                    for row in self.world.borrow_mut().store.progress.values_mut() {
                        row.emitted_floor = 0;
                        row.sent_from.values_mut().for_each(|from| *from = 0);
                    }
                }
                self.start_again(now);
            }
            Rest::Expire => self.world.borrow_mut().expire(),
            Rest::More => {
                self.start_again(now);
                let more = self.more();
                self.arrivals.extend(more.into_iter().map(|it| (now, it)));
            }
            Rest::LetGo => {
                let orders: BTreeSet<OrderId> =
                    self.world.borrow().store.parked.values().map(|it| it.order_id).collect();
                orders.into_iter().for_each(|order| self.let_go(order));
                let more = self.more();
                self.arrivals.extend(more.into_iter().map(|it| (now + self.rng.random_range(0..5_000), it)));
                self.arrivals.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            }
            Rest::Misfit(misfit) => {
                self.start_again(now);
                let more = self.more();
                misfit.apply(&mut self.world.borrow_mut(), more);
                self.misfit = Some(misfit);
            }
        }
    }

    /// A person lets the first record of a parked order go: it is sent to its topic again.
    fn let_go(&mut self, order: OrderId) {
        let mut world = self.world.borrow_mut();
        if world.store.made_anew || self.anew_at.is_some() {
            return;
        }
        let Some(first) = world.store.let_go(order) else {
            return;
        };
        let headers = Headers { event_id: Some(first.cause.event_id), ..Headers::default() };
        let again = Outgoing { topic: first.cause.topic, key: first.key, value: first.payload, headers };
        let (at, offset) = world.put(again);
        world.say(|| format!("let go: {}/{}/{offset}", at.topic, at.partition));
    }

    fn more(&mut self) -> Vec<Outgoing> {
        self.mores += 1;
        let first = 1_000 * self.mores;
        (first..first + 10)
            .map(|n| match self.scene {
                Scene::Ledger => self.ledger_input(n, false),
                Scene::Stateless => self.raw(n, false),
            })
            .collect()
    }

    fn start_again(&mut self, now: u64) {
        for slot in 0..self.slots.len() {
            while !self.slots[slot].running.is_empty() {
                self.drop_worker(slot, 0);
            }
            self.slots[slot].restart_at = now;
        }
    }

    fn arrive(&mut self, now: u64) {
        let mut world = self.world.borrow_mut();
        while self.arrivals.last().is_some_and(|(at, _)| *at <= now) {
            let (_, record) = self.arrivals.pop().expect("it is there");
            if self.rng.random_bool(0.1) {
                world.hole(World::place(record.topic, &record.key));
            }
            let (at, offset) = world.put(record);
            world.say(|| format!("arrived {}/{}/{offset}", at.topic, at.partition));
        }
        let worked_on = places(&INPUTS[..1]).all(|at| world.store.next_offset(Book::Ledger, at).is_some());
        if self.anew_at.is_some_and(|at| at <= now) && !worked_on {
            self.anew_at = Some(now + 500);
        }
        if self.anew_at.is_some_and(|at| at <= now) {
            self.anew_at = None;
            world.make_anew(INPUTS[0]);
            world.store.made_anew = true;
        }
    }

    /// Now and then a person lets an order go while servers and processes fail.
    fn release(&mut self) {
        let waiting: Vec<OrderId> = self.world.borrow().store.parked.values().map(|it| it.order_id).collect();
        if let Some(&order) = waiting.choose(&mut self.rng)
            && self.rng.random_bool(0.002)
        {
            self.let_go(order);
        }
    }

    fn restart(&mut self, now: u64, calm: bool) {
        for slot in 0..self.slots.len() {
            let it = &self.slots[slot];
            if it.running.is_empty() && it.restart_at <= now && it.stopped.is_none() {
                self.start(slot);
                continue;
            }
            let it = &self.slots[slot];
            // Its supervisor takes a stopped process for dead now and then, and starts another on its slot.
            let stuck = it.running.len() == 1 && it.running[0].paused_until > now;
            if !calm && stuck && self.rng.random_bool(0.0005) {
                self.start(slot);
            }
        }
    }

    fn turn(&mut self, now: u64, kill_rate: f64, pause_rate: f64, calm: bool) -> Result<(), String> {
        let mut able: Vec<(usize, usize)> = Vec::new();
        let mut next = self.arrivals.last().map_or(u64::MAX, |(at, _)| *at);
        if let Some(at) = self.anew_at {
            next = next.min(at);
        }
        {
            let mut world = self.world.borrow_mut();
            for (slot, it) in self.slots.iter_mut().enumerate() {
                if it.running.is_empty() && it.stopped.is_none() {
                    next = next.min(it.restart_at);
                }
                for (position, running) in it.running.iter_mut().enumerate() {
                    if running.paused_until > now {
                        next = next.min(running.paused_until);
                        continue;
                    }
                    world.paused.remove(&running.id);
                    let wake = world.wake.get(&running.id).copied().unwrap_or(0);
                    if wake <= now { able.push((slot, position)) } else { next = next.min(wake) }
                }
            }
            world.tick();
        }
        let Some(&(slot, position)) = able.choose(&mut self.rng) else {
            // Nobody can go on before then; members fall silent and late things arrive in small steps.
            let mut world = self.world.borrow_mut();
            world.now = next.clamp(now + 1, now + 250);
            return Ok(());
        };
        if !calm && self.rng.random_bool(kill_rate) {
            self.kills += 1;
            self.drop_worker(slot, position);
            self.slots[slot].restart_at = now + self.rng.random_range(0..15_000);
            return Ok(());
        }
        if !calm && self.rng.random_bool(pause_rate) {
            self.pauses += 1;
            let length = *[1_000u64, 6_000, 12_000, 20_000, 45_000].choose(&mut self.rng).expect("some");
            let running = &mut self.slots[slot].running[position];
            running.paused_until = now + length;
            let mut world = self.world.borrow_mut();
            world.paused.insert(running.id);
            world.current = running.id;
            world.say(|| format!("stopped for {length}"));
            return Ok(());
        }
        if !calm && self.rng.random_bool(0.0003) {
            self.slots[slot].running[position].stop.store(true, Ordering::Relaxed);
        }
        let running = &mut self.slots[slot].running[position];
        {
            let mut world = self.world.borrow_mut();
            world.current = running.id;
            world.wake.insert(running.id, u64::MAX);
        }
        let polled = running.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let std::task::Poll::Ready(result) = polled {
            self.drop_worker(slot, position);
            self.slots[slot].restart_at = now + self.rng.random_range(0..5_000);
            if let Err(stopped) = result {
                let made_anew = self.world.borrow().store.made_anew;
                self.world.borrow().say(|| stopped.to_string());
                // Deleting a topic deletes the group's offsets of it; either may be noticed first.
                let reasons = ["another topic of the same name", "committed offset of payments.received"];
                let anew = made_anew && reasons.iter().any(|it| stopped.reason.contains(it));
                if !anew && self.misfit.is_none_or(|it| !stopped.reason.contains(it.reason())) {
                    return Err(stopped.to_string());
                }
                self.slots[slot].stopped = Some(stopped.reason);
            }
        }
        if self.rng.random_bool(0.2) {
            self.world.borrow_mut().now += 1;
        }
        Ok(())
    }

    fn sink_is_at_the_end(&self) -> bool {
        let world = self.world.borrow();
        let passed = |at| world.store.next_offset(Book::Sink, at) == Some(world.extent(at).1);
        self.scene != Scene::Ledger || places(&OUTPUTS).all(passed)
    }

    fn settled(&self) -> bool {
        self.standing().is_empty()
    }

    /// What is still to be done.
    fn standing(&self) -> String {
        let world = self.world.borrow();
        let mut open = Vec::new();
        if let Some(misfit) = self.misfit {
            let minds = |kind| match misfit {
                Misfit::Emptied | Misfit::Restored => kind == Kind::Ledger,
                Misfit::CutOff => matches!(kind, Kind::Ledger | Kind::Fused),
                Misfit::SinkBehind => kind == Kind::Sink,
            };
            let goes_on = self.slots.iter().filter(|it| minds(it.kind) && it.stopped.is_none());
            return goes_on.map(|it| format!("{} has not stopped", it.name)).collect::<Vec<_>>().join("; ");
        }
        let all_stopped = self.slots.iter().all(|it| it.kind != Kind::Ledger || it.stopped.is_some());
        // Who has stopped ends nothing any more.
        if world.transaction_open() && !(self.scene == Scene::Ledger && all_stopped) {
            open.push("a transaction is open".to_owned());
        }
        match self.scene {
            Scene::Ledger => {
                for at in places(&INPUTS) {
                    if world.store.made_anew {
                        if !all_stopped {
                            open.push("a ledger worker has not stopped".to_owned());
                        }
                        continue;
                    }
                    let next = world.store.next_offset(Book::Ledger, at).unwrap_or(-1);
                    let noted = world.store.noted(Book::Ledger, at).unwrap_or(-1);
                    if next < 0 || noted < next || !world.committed(at, next, 1).0.is_empty() {
                        open.push(format!("{}/{} decided {next} noted {noted}", at.topic, at.partition));
                    }
                }
                for at in places(&OUTPUTS) {
                    let next = world.store.next_offset(Book::Sink, at).unwrap_or(-1);
                    if next < 0 || !world.committed(at, next, 1).0.is_empty() {
                        open.push(format!("sink {}/{} at {next}", at.topic, at.partition));
                    }
                }
            }
            Scene::Stateless => {
                for at in places(&MIDDLE[..3]) {
                    let next = world.store.noted(Book::Stateless, at).unwrap_or(0);
                    if !world.committed(at, next, 1).0.is_empty() {
                        open.push(format!("{}/{} at {next}", at.topic, at.partition));
                    }
                }
            }
        }
        open.join("; ")
    }

    fn judge_ledger(&self, world: &World) -> Result<(), String> {
        let store = &world.store;
        let inputs: Vec<LogRecord> = INPUTS.iter().flat_map(|&topic| world.all_committed(topic)).collect();
        let by_place: BTreeMap<(TopicPartition, i64), &LogRecord> =
            inputs.iter().map(|it| ((it.at, it.offset), it)).collect();
        let mut journal = store.journal.clone();
        journal.sort_by_key(|row| row.journal_id);
        // What was decided is what the rules decide, once for each cause, in journal order.
        let mut orders: BTreeMap<OrderId, OrderState> = BTreeMap::new();
        let mut seen: BTreeSet<EventId> = BTreeSet::new();
        let mut position = 0;
        while position < journal.len() {
            let row = &journal[position];
            let upto = position + journal[position..].iter().take_while(|it| it.cause == row.cause).count();
            let rows = &journal[position..upto];
            position = upto;
            let place = (TopicPartition { topic: row.cause.topic, partition: row.cause.partition }, row.cause.offset);
            if row.topic == Topic::DeadLetters {
                continue;
            }
            if !seen.insert(row.cause.event_id) {
                return Err(format!("decided twice: cause at {place:?}"));
            }
            if store.made_anew && place.0.topic == INPUTS[0] {
                continue;
            }
            let input = by_place.get(&place).ok_or_else(|| format!("decided what never came: {place:?}"))?;
            let read = LedgerInput::decode(&self.codec, input.at.topic, input.value.as_deref().unwrap_or_default())
                .map_err(|error| format!("decided the unreadable at {place:?}: {error}"))?
                .ok_or("schema unknown")?;
            let order_id = read.order_id().ok_or("no order")?;
            let mut facts = Facts::default();
            let state = orders.get(&order_id).cloned();
            facts.orders.insert(order_id, state.unwrap_or_else(|| OrderState { order_id, ..Default::default() }));
            let with = store.with.range(..=place).next_back().filter(|((at, _), _)| *at == place.0);
            let Some((_, versions)) = with else {
                return Err(format!("what was decided at {place:?} was made with, nobody noted"));
            };
            let reference = Reference { versions: versions.clone(), ..Default::default() };
            let events = ToyRules.decide(&read, &row.cause, &mut facts, &reference);
            orders.append(&mut facts.orders);
            if store.made_anew {
                continue;
            }
            if events.len() != rows.len() {
                return Err(format!("{} events of {place:?}, not {}", rows.len(), events.len()));
            }
            for (event, row) in events.iter().zip(rows) {
                if event.encode(&self.codec).map_err(|error| error.to_string())? != row.wire {
                    return Err(format!("another decision for {place:?}: {event:?}"));
                }
            }
        }
        // What is visible is what was decided, each event once.
        let mut visible: BTreeMap<EventId, Vec<u8>> = BTreeMap::new();
        let mut last: BTreeMap<(Vec<u8>, Topic), u32> = BTreeMap::new();
        let mut seqs: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
        for &topic in &OUTPUTS {
            for record in world.all_committed(topic) {
                let id = record.headers.event_id.ok_or("output without an event id")?;
                let value = record.value.unwrap_or_default();
                if topic != Topic::DeadLetters {
                    let event = kept_processors::ledger::LedgerEvent::decode(&self.codec, topic, &value)
                        .map_err(|error| error.to_string())?
                        .ok_or("schema unknown")?;
                    let (_, seq) = event.place().ok_or("event without a place")?;
                    let key = record.key.unwrap_or_default();
                    seqs.entry(key.clone()).or_default().push(seq);
                    let number = u32::try_from(seq).map_err(|error| error.to_string())?;
                    let before = last.insert((key, topic), number).unwrap_or(0);
                    if before >= number && !self.wrong_keys {
                        return Err(format!("on {topic}, event {seq} of an order comes after {before}"));
                    }
                }
                if visible.insert(id, value).is_some() {
                    return Err(format!("visible twice on {topic}: {id}"));
                }
            }
        }
        let rows: BTreeMap<EventId, &kept_store::seam::JournalRow> =
            journal.iter().filter_map(|row| row.headers.event_id.map(|id| (id, row))).collect();
        for (id, value) in &visible {
            if rows.get(id).is_none_or(|row| row.wire.bytes() != *value) {
                return Err(format!("visible but not decided: {id}"));
            }
        }
        self.judge_sink(world)?;
        if store.made_anew {
            return Ok(());
        }
        if let Some((_, row)) = rows.iter().find(|(id, _)| !visible.contains_key(id)) {
            return Err(format!("decided but not visible: {:?} event {}", row.cause, row.index));
        }
        for (key, mut all) in seqs {
            all.sort_unstable();
            if all.iter().zip(1..).any(|(have, want)| *have != want) {
                return Err(format!("events of {} are not dense: {all:?}", String::from_utf8_lossy(&key)));
            }
        }
        self.judge_inputs(world, &inputs)?;
        self.judge_queues(world)?;
        for (id, state) in &orders {
            if store.orders.get(id) != Some(state) {
                return Err(format!("state of {id} is not the fold of its events"));
            }
        }
        Ok(())
    }

    /// Every input is decided, parked, or a dead letter.
    fn judge_inputs(&self, world: &World, inputs: &[LogRecord]) -> Result<(), String> {
        let store = &world.store;
        let letters: Vec<DeadLetter> = world
            .all_committed(Topic::DeadLetters)
            .iter()
            .filter_map(|it| self.codec.decode(it.value.as_deref().unwrap_or_default()).ok().flatten())
            .collect();
        let events_at = |is: &dyn Fn(&LogRecord) -> bool| -> BTreeSet<EventId> {
            inputs.iter().filter(|it| is(it)).map(LogRecord::event_id).collect()
        };
        let dead = events_at(&|input| {
            letters.iter().any(|it| {
                (it.topic.as_str(), it.partition, it.offset)
                    == (input.at.topic.name(), input.at.partition, input.offset)
            })
        });
        for input in inputs {
            let read = LedgerInput::decode(&self.codec, input.at.topic, input.value.as_deref().unwrap_or_default());
            let found = letters
                .iter()
                .filter(|it| {
                    it.topic == input.at.topic.name() && it.partition == input.at.partition && it.offset == input.offset
                })
                .count();
            let parked: Vec<_> = store
                .parked
                .values()
                .filter(|it| {
                    (it.cause.topic, it.cause.partition, it.cause.offset)
                        == (input.at.topic, input.at.partition, input.offset)
                })
                .collect();
            if parked.len() > 1 || found > 1 {
                return Err(format!("{:?}/{} is put aside more than once", input.at, input.offset));
            }
            // It was parked and let go: it is where its copy is.
            let left = store.left.contains(&(input.at, input.offset));
            let waits = store.parked.values().any(|it| it.cause.event_id == input.event_id());
            match read {
                Err(_) => {
                    // One that met three unclean starts is parked by its key; else it is a dead letter.
                    let once = found + parked.len() == 1;
                    if if left { !waits && !dead.contains(&input.event_id()) } else { !once } {
                        return Err(format!("{:?}/{} cannot be read and is no dead letter", input.at, input.offset));
                    }
                }
                Ok(None) => return Err("schema unknown".into()),
                Ok(Some(read)) => {
                    let mark = (read.order_id(), input.event_id());
                    let acted = store.acted.contains(&mark);
                    let spoiled = matches!(&read, LedgerInput::Payment(it) if it.currency == NO_LOCK
                        || it.currency != "EUR" && it.amount_minor % 7 != 0);
                    if !acted && parked.is_empty() && !(left && waits) {
                        return Err(format!("{:?}/{} is lost", input.at, input.offset));
                    }
                    if acted && spoiled {
                        return Err(format!("{:?}/{} was stored although it cannot be", input.at, input.offset));
                    }
                    if found != 0 {
                        return Err(format!("{:?}/{} can be read and is a dead letter", input.at, input.offset));
                    }
                }
            }
        }
        Ok(())
    }

    /// What was parked is decided in the order it came, and before all that came after it: of an order's records in one
    /// partition, none is decided while an earlier one waits.
    fn judge_queues(&self, world: &World) -> Result<(), String> {
        let store = &world.store;
        let mut journal: Vec<&kept_store::seam::JournalRow> = store.journal.iter().collect();
        journal.sort_by_key(|row| row.journal_id);
        let mut decided: BTreeMap<EventId, usize> = BTreeMap::new();
        for (position, row) in journal.iter().enumerate() {
            decided.entry(row.cause.event_id).or_insert(position);
        }
        let mut last: BTreeMap<OrderId, usize> = BTreeMap::new();
        let mut rank: BTreeMap<EventId, usize> = BTreeMap::new();
        for (position, queued) in store.queued.iter().enumerate() {
            if rank.contains_key(&queued.cause.event_id) {
                continue;
            }
            rank.insert(queued.cause.event_id, position);
            let waits = store.parked.values().any(|it| it.cause.event_id == queued.cause.event_id);
            // Of a record that came twice the second one may wait still.
            let at = decided.get(&queued.cause.event_id).copied().or(waits.then_some(usize::MAX));
            let Some(at) = at else {
                // Nothing came of it.
                continue;
            };
            let before = last.insert(queued.order_id, at).unwrap_or(0);
            if at < before {
                return Err(format!("{:?} was decided before what queued before it", queued.cause));
            }
            let place = |it: &kept_processors::ledger::Cause| (it.topic, it.partition);
            let ahead = journal.iter().take(at).find(|row| {
                let order = row.order.map(|(order, _)| order);
                order == Some(queued.order_id)
                    && place(&row.cause) == place(&queued.cause)
                    && row.cause.offset > queued.cause.offset
                    && !rank.contains_key(&row.cause.event_id)
            });
            if let Some(row) = ahead {
                return Err(format!("{:?} was decided while {:?} was parked before it", row.cause, queued.cause));
            }
        }
        Ok(())
    }

    fn judge_sink(&self, world: &World) -> Result<(), String> {
        let store = &world.store;
        let mut want: Vec<(TopicPartition, i64)> =
            OUTPUTS.iter().flat_map(|&topic| world.all_committed(topic)).map(|it| (it.at, it.offset)).collect();
        let mut have: Vec<(TopicPartition, i64)> = store.applied.iter().map(|it| (it.at, it.offset)).collect();
        want.sort_unstable();
        have.sort_unstable();
        if want != have {
            return Err(format!("the sink took {} records, {} are visible", have.len(), want.len()));
        }
        for (order, totals) in captured(&store.applied) {
            if !totals.is_sorted() && !self.wrong_keys {
                return Err(format!("the sink saw totals of {order} out of order: {totals:?}"));
            }
        }
        Ok(())
    }

    fn judge_stateless(&self, world: &World) -> Result<(), String> {
        // A record met at three unclean starts is put aside, guilty or not.
        let put_aside: BTreeSet<(String, i32, i64)> = world
            .all_committed(Topic::DeadLetters)
            .iter()
            .filter_map(|it| self.codec.decode::<DeadLetter>(it.value.as_deref().unwrap_or_default()).ok().flatten())
            .filter(|it| it.reason.contains("ended the process"))
            .map(|it| (it.topic, it.partition, it.offset))
            .collect();
        // For every record a step could read, apart or fused: exactly what the step makes of it, once.
        let mut want: Vec<(EventId, Topic, Vec<u8>)> = Vec::new();
        let mut letters = 0;
        for (position, step) in STEPS.iter().enumerate() {
            for input in world.all_committed(MIDDLE[position]) {
                let place = (input.at.topic.name().to_owned(), input.at.partition, input.offset);
                let made = if put_aside.contains(&place) { None } else { made(step, &self.codec, &input) };
                match made {
                    None => letters += 1,
                    Some(made) => {
                        for (index, (topic, value)) in made.into_iter().enumerate() {
                            let index = u32::try_from(index).map_err(|error| error.to_string())?;
                            want.push((EventId::of_step(step.name, input.event_id(), index), topic, value));
                        }
                    }
                }
            }
        }
        let mut have: Vec<(EventId, Topic, Vec<u8>)> = Vec::new();
        for &topic in &MIDDLE[1..] {
            for record in world.all_committed(topic) {
                if made_here(&record) {
                    have.push((record.event_id(), topic, record.value.unwrap_or_default()));
                }
            }
        }
        want.sort();
        have.sort();
        if want != have {
            let missing = want.iter().find(|it| have.binary_search(it).is_err());
            let extra = have.iter().find(|it| want.binary_search(it).is_err());
            let twice = have.windows(2).find(|it| it[0].0 == it[1].0).map(|it| &it[0]);
            let tell = |(id, topic, _): &(EventId, Topic, Vec<u8>)| {
                let places: Vec<String> = world
                    .all_committed(*topic)
                    .iter()
                    .filter(|it| it.event_id() == *id)
                    .map(|it| format!("{}/{} of {:?}", it.at.partition, it.offset, it.headers.cause))
                    .collect();
                format!("{topic} {id}: {places:?}")
            };
            return Err(format!(
                "{} records were made, {} should be; missing {:?}; extra {:?}; twice {:?}; dead letters: {:?}",
                have.len(),
                want.len(),
                missing.map(tell),
                extra.map(tell),
                twice.map(tell),
                world
                    .all_committed(Topic::DeadLetters)
                    .iter()
                    .filter_map(|it| {
                        self.codec.decode::<DeadLetter>(it.value.as_deref().unwrap_or_default()).ok().flatten()
                    })
                    .map(|it| format!("{}/{}/{} {}", it.topic, it.partition, it.offset, it.reason))
                    .collect::<Vec<_>>()
            ));
        }
        let dead = world.all_committed(Topic::DeadLetters);
        if dead.len() != letters {
            return Err(format!("{} dead letters, {letters} should be", dead.len()));
        }
        self.judge_places(world)
    }

    /// Each dead letter is of one record, the one that stands where it says.
    fn judge_places(&self, world: &World) -> Result<(), String> {
        let mut records: BTreeMap<(String, i32, i64), Option<Vec<u8>>> = MIDDLE
            .iter()
            .flat_map(|&topic| world.all_committed(topic))
            .map(|it| ((it.at.topic.name().to_owned(), it.at.partition, it.offset), it.value))
            .collect();
        for letter in world.all_committed(Topic::DeadLetters) {
            let letter = self.codec.decode::<DeadLetter>(letter.value.as_deref().unwrap_or_default());
            let letter = letter.map_err(|error| error.to_string())?.ok_or("a dead letter of another schema")?;
            let place = (letter.topic, letter.partition, letter.offset);
            match records.remove(&place) {
                Some(value) if value == letter.payload => {}
                Some(_) => return Err(format!("the dead letter of {place:?} has another record's bytes")),
                None => return Err(format!("a second dead letter of {place:?}, or of none that is there")),
            }
        }
        Ok(())
    }

    /// A schedule of the ledger without unreadable or unstorable records, so that what comes out is the same however
    /// inputs of different topics interleave; with its records, as they arrive.
    pub fn plain(seed: u64) -> (Self, Vec<Outgoing>) {
        let mut it = (0..)
            .map(|more| Self::new(seed + 1_000_000 * (more + 1), None, false))
            .find(|it| it.scene == Scene::Ledger && !it.wrong_keys)
            .expect("most are of the ledger");
        it.anew_at = None;
        it.rests.clear();
        it.plain = true;
        it.arrivals.retain(|(_, record)| match LedgerInput::decode(&it.codec, record.topic, &record.value) {
            Ok(Some(LedgerInput::Payment(payment))) => payment.currency == "EUR",
            Ok(Some(_)) => true,
            _ => false,
        });
        let records = it.arrivals.iter().rev().map(|(_, record)| record.clone()).collect();
        (it, records)
    }

    /// A schedule that ends in a misfit, and how many records were visible before and after it.
    pub fn misfit(seed: u64, what: Misfit) -> Result<(usize, usize), String> {
        let mut it = Self::new(seed, None, false);
        let concerned = it.scene == Scene::Ledger || what == Misfit::CutOff;
        if !concerned || it.anew_at.is_some() {
            return Ok((0, 0));
        }
        it.rests = VecDeque::from([Rest::Quiet]);
        it.run()?;
        let before = it.made();
        it.rests = VecDeque::from([Rest::Misfit(what), Rest::Quiet]);
        it.run()?;
        Ok((before, it.made()))
    }

    /// How many records the steps made.
    fn made(&self) -> usize {
        let world = self.world.borrow();
        let topics = world.topics.keys();
        topics.flat_map(|&topic| world.all_committed(topic)).filter(made_here).count()
    }

    /// Everything visible on the output topics.
    pub fn visible(&self) -> Vec<LogRecord> {
        let world = self.world.borrow();
        OUTPUTS.iter().flat_map(|&topic| world.all_committed(topic)).collect()
    }

    pub fn codec(&self) -> Arc<Codec> {
        Arc::clone(&self.codec)
    }

    pub fn describe(&self) -> String {
        format!("seed {} ({:?})", self.seed, self.scene)
    }
}

/// By a step of ours, and not elsewhere.
fn made_here(record: &LogRecord) -> bool {
    record.headers.cause.as_ref().is_some_and(|(.., offset)| *offset < FAR)
}

/// What a step makes of a record; `None`: a dead letter.
fn made(
    step: &kept_runtime::stateless::StatelessStep,
    codec: &Codec,
    input: &LogRecord,
) -> Option<Vec<(Topic, Vec<u8>)>> {
    let reference = Reference::default();
    let inward = kept_runtime::stateless::Inward::new(input, codec, &reference);
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (step.decide)(&inward))).ok()?.ok()?;
    Some(made.into_iter().map(|it| (it.topic, it.wire().bytes())).collect())
}
