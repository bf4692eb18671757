//! A proxy between a client and a server that does to connections what networks do: passes, delays, stops passing
//! without a word (half open), cuts, refuses. Before a Kafka broker it can also keep back one end of a transaction and
//! deliver it late, from elsewhere, while the client's second try goes through.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// Kafka's number for the request that ends a transaction.
const END_TXN: i16 = 26;
/// A frame longer than this is not Kafka's; the broker's own limit is 100 MiB.
const MOST_FRAME: usize = 128 * 1024 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
const LATE_ANSWER: Duration = Duration::from_secs(10);

/// What is done to every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each piece waits up to this long, in each direction.
    Delay(Duration),
    /// Nothing passes and nothing is said; what was sent meanwhile passes later.
    Stall,
    /// Every connection is cut and no new one is taken.
    Refuse,
}

/// What is spoken over the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// Bytes.
    Plain,
    /// Kafka's protocol, without TLS. With `rename`, answers name the proxy instead of the broker, so that clients
    /// stay with it; for a broker that does not advertise the proxy itself.
    Kafka { rename: bool },
}

/// How often the proxy acted.
#[derive(Debug, Default)]
pub struct Acted {
    pub connections: AtomicU64,
    pub cuts: AtomicU64,
    pub refused: AtomicU64,
    /// Ends of transactions kept back, and of those the ones delivered late.
    pub ends_held: AtomicU64,
    pub ends_late: AtomicU64,
}

/// An end of a transaction that was kept back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEnd {
    pub transactional_id: String,
    frame: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Now {
    mode: Mode,
    /// Raised by each cut; a connection ends when it is not what it was when it began.
    cuts: u64,
}

struct Shared {
    server: Mutex<String>,
    speech: Speech,
    seed: u64,
    /// Our address and the server's, as Kafka writes them in its answers: host, then port.
    names: (Vec<u8>, Vec<u8>),
    now: watch::Sender<Now>,
    /// The next end of a transaction whose id contains this is kept back.
    armed: Mutex<Option<String>>,
    held: watch::Sender<Option<HeldEnd>>,
    acted: Acted,
}

/// A running proxy; it ends, and with it every connection, when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Mode::Refuse);
    }
}

impl Proxy {
    /// Listens on `listen` (port 0: any free one) for clients of `server` (`host:port`). The same seed gives the
    /// same delays to the same traffic.
    pub async fn start(listen: &str, server: &str, speech: Speech, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{server}: {why}"));
        let (host, port) = server.rsplit_once(':').ok_or_else(|| wrong("is not host:port"))?;
        let port: u16 = port.parse().map_err(|_| wrong("has no port"))?;
        let ours = address.ip().to_string();
        if speech == (Speech::Kafka { rename: true }) && ours.len() != host.len() {
            return Err(wrong("must be as long as the proxy's own address to be renamed in answers"));
        }
        let name = |host: &str, port: u16| [host.as_bytes(), &i32::from(port).to_be_bytes()].concat();
        let shared = Arc::new(Shared {
            server: Mutex::new(server.to_owned()),
            speech,
            seed,
            names: (name(&ours, address.port()), name(host, port)),
            now: watch::Sender::new(Now { mode: Mode::Pass, cuts: 0 }),
            armed: Mutex::default(),
            held: watch::Sender::new(None),
            acted: Acted::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server is elsewhere from now on; what is connected stays so. Answers are renamed as at the start.
    pub fn lead_to(&self, server: &str) {
        *self.shared.server.lock().unwrap_or_else(PoisonError::into_inner) = server.to_owned();
    }

    /// From now on, until something else is said.
    pub fn set(&self, mode: Mode) {
        self.shared.now.send_modify(|now| now.mode = mode);
    }

    /// Cuts every connection there is; new ones are taken.
    pub fn cut(&self) {
        self.shared.now.send_modify(|now| now.cuts += 1);
    }

    /// Keeps back the next end of a transaction whose transactional id contains `id`.
    pub fn hold_next_end(&self, id: &str) {
        self.shared.held.send_replace(None);
        *self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
    }

    /// Waits until an end was kept back. `None`: none came in time, and none is kept back any more.
    pub async fn held_end(&self, patience: Duration) -> Option<HeldEnd> {
        let mut held = self.shared.held.subscribe();
        let found = timeout(patience, held.wait_for(Option::is_some)).await;
        let end = found.ok().and_then(Result::ok).and_then(|it| it.clone());
        if end.is_none() {
            *self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        end
    }

    /// Delivers an end that was kept back, over a connection of its own. The broker's error code in answer; 0: it
    /// was taken.
    pub async fn deliver(&self, end: &HeldEnd) -> io::Result<i16> {
        let late = async {
            let mut server = TcpStream::connect(self.shared.server()).await?;
            server.write_all(&end.frame).await?;
            let answer = frame(&mut server).await?;
            // Length, correlation id, throttle time, error code: versions 0 to 2, all that the client library speaks.
            match answer.get(12..14) {
                Some(code) => Ok(i16::from_be_bytes([code[0], code[1]])),
                None => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too short")),
            }
        };
        let code = timeout(LATE_ANSWER, late).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.shared.acted.ends_late.fetch_add(1, Relaxed);
        Ok(code)
    }

    /// How often it acted.
    pub fn acted(&self) -> &Acted {
        &self.shared.acted
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for number in 0.. {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            // Out of descriptors, or a client that went away: the next one may do.
            Err(error) => {
                tracing::warn!("the fault proxy cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if shared.now.borrow().mode == Mode::Refuse {
            shared.acted.refused.fetch_add(1, Relaxed);
            continue;
        }
        shared.acted.connections.fetch_add(1, Relaxed);
        tokio::spawn(connection(client, number, Arc::clone(&shared)));
    }
}

async fn connection(client: TcpStream, number: u64, shared: Arc<Shared>) {
    let mut now = shared.now.subscribe();
    let born = now.borrow().cuts;
    let both = async {
        let Ok(Ok(server)) = timeout(CONNECT, TcpStream::connect(shared.server())).await else {
            return;
        };
        // Ours is not to gather: the delays are those we are told to make.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // One side's end ends both.
        tokio::select! {
            _ = pump(from_client, to_server, Towards::Server, number, &shared) => {}
            _ = pump(from_server, to_client, Towards::Client, number, &shared) => {}
        }
    };
    tokio::select! {
        () = both => {}
        _ = now.wait_for(|now| now.cuts != born || now.mode == Mode::Refuse) => {
            shared.acted.cuts.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Server,
    Client,
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    towards: Towards,
    number: u64,
    shared: &Shared,
) -> io::Result<()> {
    let mut now = shared.now.subscribe();
    let direction = u64::from(towards == Towards::Client);
    let mut rng = ChaCha8Rng::seed_from_u64(shared.seed ^ (number * 2 + direction).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let framed;
        let piece: &[u8] = match &shared.speech {
            Speech::Plain => match from.read(&mut buffer).await? {
                0 => return Ok(()),
                length => &buffer[..length],
            },
            Speech::Kafka { rename } => {
                let mut whole = frame(&mut from).await?;
                if towards == Towards::Server && shared.keep_back(&whole) {
                    continue;
                }
                if *rename && towards == Towards::Client {
                    replace(&mut whole, &shared.names.1, &shared.names.0);
                }
                framed = whole;
                &framed
            }
        };
        let most = match now.borrow_and_update().mode {
            Mode::Delay(most) => most,
            _ => Duration::ZERO,
        };
        if !most.is_zero() {
            tokio::time::sleep(most.mul_f64(rng.random_range(0.0..=1.0))).await;
        }
        if now.wait_for(|now| now.mode != Mode::Stall).await.is_err() {
            return Ok(());
        }
        to.write_all(piece).await?;
    }
}

impl Shared {
    fn server(&self) -> String {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when this request is an end of a transaction that was waited for; then it is ours now.
    fn keep_back(&self, frame: &[u8]) -> bool {
        let Some(id) = end_of(frame) else { return false };
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if !armed.as_deref().is_some_and(|wanted| id.contains(wanted)) {
            return false;
        }
        *armed = None;
        self.acted.ends_held.fetch_add(1, Relaxed);
        self.held.send_replace(Some(HeldEnd { transactional_id: id, frame: frame.to_vec() }));
        true
    }
}

/// The transactional id, if this request ends a transaction (versions 0 to 2, before the compact encoding).
fn end_of(frame: &[u8]) -> Option<String> {
    let two = |at: usize| frame.get(at..at + 2).map(|it| i16::from_be_bytes([it[0], it[1]]));
    if two(4)? != END_TXN || two(6)? > 2 {
        return None;
    }
    // Length 4, key 2, version 2, correlation id 4, client id (−1: none), transactional id.
    let client = usize::try_from(two(12)?).unwrap_or(0);
    let length = usize::try_from(two(14 + client)?).ok()?;
    let id = frame.get(16 + client..16 + client + length)?;
    Some(String::from_utf8_lossy(id).into_owned())
}

/// One frame of Kafka's protocol with its length before it.
async fn frame(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let body = usize::try_from(i32::from_be_bytes(length)).ok().filter(|&it| it <= MOST_FRAME);
    let body = body.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a frame of Kafka's protocol"))?;
    let mut whole = length.to_vec();
    whole.resize(4 + body, 0);
    from.read_exact(&mut whole[4..]).await?;
    Ok(whole)
}

/// Both are of one length.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while at + old.len() <= bytes.len() {
        if bytes[at..at + old.len()] == *old {
            bytes[at..at + old.len()].copy_from_slice(new);
            at += old.len();
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A server that sends back what it gets, and counts its connections.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = client.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn proxied(speech: Speech) -> (Proxy, TcpStream) {
        let proxy = Proxy::start("127.0.0.1:0", &echo().await, speech, 1).await.expect("it listens");
        let client = TcpStream::connect(proxy.address()).await.expect("it accepts");
        (proxy, client)
    }

    async fn said(client: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(text).await?;
        let mut back = vec![0; text.len()];
        timeout(Duration::from_secs(5), client.read_exact(&mut back))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(back)
    }

    #[tokio::test]
    async fn it_passes_what_is_said() {
        let (proxy, mut client) = proxied(Speech::Plain).await;
        assert_eq!(said(&mut client, b"good day").await.expect("an answer"), b"good day");
        let large = vec![7; 1_000_000];
        let (mut from, mut to) = client.split();
        let mut back = vec![0; large.len()];
        let (sent, read) = tokio::join!(to.write_all(&large), from.read_exact(&mut back));
        assert!(sent.is_ok() && read.is_ok() && back == large);
        assert_eq!(proxy.acted().connections.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_cut_ends_the_connections_there_are_and_takes_new_ones() {
        let (proxy, mut client) = proxied(Speech::Plain).await;
        said(&mut client, b"a").await.expect("an answer");
        proxy.cut();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "it was cut");
        let mut again = TcpStream::connect(proxy.address()).await.expect("it accepts");
        assert_eq!(said(&mut again, b"b").await.expect("an answer"), b"b");
        assert_eq!(proxy.acted().cuts.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_server_that_moved_is_found_by_new_connections() {
        let (proxy, mut client) = proxied(Speech::Plain).await;
        said(&mut client, b"a").await.expect("an answer");
        proxy.lead_to("127.0.0.1:1");
        let mut nobody = TcpStream::connect(proxy.address()).await.expect("the system accepts");
        assert!(said(&mut nobody, b"b").await.is_err());
        proxy.lead_to(&echo().await);
        let mut again = TcpStream::connect(proxy.address()).await.expect("it accepts");
        assert_eq!(said(&mut again, b"c").await.expect("an answer"), b"c");
        assert_eq!(said(&mut client, b"d").await.expect("the old one stays"), b"d");
    }

    #[tokio::test]
    async fn refusing_lasts_until_it_is_told_otherwise() {
        let (proxy, mut client) = proxied(Speech::Plain).await;
        said(&mut client, b"a").await.expect("an answer");
        proxy.set(Mode::Refuse);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "it was cut");
        let mut refused = TcpStream::connect(proxy.address()).await.expect("the system accepts");
        assert!(said(&mut refused, b"b").await.is_err());
        proxy.set(Mode::Pass);
        let mut again = TcpStream::connect(proxy.address()).await.expect("it accepts");
        assert_eq!(said(&mut again, b"c").await.expect("an answer"), b"c");
    }

    #[tokio::test]
    async fn a_stalled_connection_says_nothing_and_loses_nothing() {
        let (proxy, mut client) = proxied(Speech::Plain).await;
        said(&mut client, b"a").await.expect("an answer");
        proxy.set(Mode::Stall);
        client.write_all(b"bcd").await.expect("the system takes it");
        let silence = timeout(Duration::from_millis(200), client.read(&mut [0])).await;
        assert!(silence.is_err(), "nothing passes, and nothing says so");
        proxy.set(Mode::Pass);
        let mut back = [0; 3];
        client.read_exact(&mut back).await.expect("it passes now");
        assert_eq!(&back, b"bcd");
    }

    #[tokio::test]
    async fn a_delay_makes_things_later_not_fewer() {
        let (proxy, mut client) = proxied(Speech::Plain).await;
        proxy.set(Mode::Delay(Duration::from_millis(40)));
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(said(&mut client, b"x").await.expect("an answer"), b"x");
        }
        // Twenty waits of 20 ms in the mean.
        assert!(began.elapsed() > Duration::from_millis(150), "{:?}", began.elapsed());
    }

    /// A request of Kafka's protocol: key, version, correlation id, client id, and a text.
    fn request(key: i16, correlation: i32, text: &str) -> Vec<u8> {
        let mut body = key.to_be_bytes().to_vec();
        body.extend_from_slice(&1i16.to_be_bytes());
        body.extend_from_slice(&correlation.to_be_bytes());
        for it in ["kept", text] {
            body.extend_from_slice(&i16::try_from(it.len()).expect("short").to_be_bytes());
            body.extend_from_slice(it.as_bytes());
        }
        [&i32::try_from(body.len()).expect("short").to_be_bytes()[..], &body].concat()
    }

    #[tokio::test]
    async fn one_end_of_a_transaction_is_kept_back_and_the_next_one_passes() {
        let (proxy, mut client) = proxied(Speech::Kafka { rename: false }).await;
        proxy.hold_next_end("ledger");
        let other = request(END_TXN, 1, "steps.0");
        assert_eq!(said(&mut client, &other).await.expect("not the one waited for"), other);
        let produce = request(0, 2, "ledger.0");
        assert_eq!(said(&mut client, &produce).await.expect("not an end"), produce);
        let first = request(END_TXN, 3, "ledger.0");
        client.write_all(&first).await.expect("the system takes it");
        let end = proxy.held_end(Duration::from_secs(5)).await.expect("it is kept back");
        assert_eq!(end.transactional_id, "ledger.0");
        let second = request(END_TXN, 4, "ledger.0");
        assert_eq!(said(&mut client, &second).await.expect("the second try passes"), second, "and nothing before it");
        // The echo's answer is the request; where an answer has its error code, a request has its client id's length.
        assert_eq!(proxy.deliver(&end).await.expect("delivered"), 4);
        assert_eq!((proxy.acted().ends_held.load(Relaxed), proxy.acted().ends_late.load(Relaxed)), (1, 1));
    }

    #[tokio::test]
    async fn an_end_that_does_not_come_in_time_is_not_kept_back_later() {
        let (proxy, mut client) = proxied(Speech::Kafka { rename: false }).await;
        proxy.hold_next_end("ledger");
        assert_eq!(proxy.held_end(Duration::from_millis(50)).await, None);
        let end = request(END_TXN, 1, "ledger.0");
        assert_eq!(said(&mut client, &end).await.expect("it passes"), end);
    }

    #[tokio::test]
    async fn answers_name_the_proxy_instead_of_the_broker() {
        let server = echo().await;
        let proxy = Proxy::start("127.0.0.1:0", &server, Speech::Kafka { rename: true }, 1).await.expect("it listens");
        let mut client = TcpStream::connect(proxy.address()).await.expect("it accepts");
        let name = |address: &str| {
            let (host, port) = address.rsplit_once(':').expect("host:port");
            [host.as_bytes(), &port.parse::<i32>().expect("a port").to_be_bytes()].concat()
        };
        let wrapped = |middle: &[u8]| {
            let body = [b"before", middle, b"after"].concat();
            [&i32::try_from(body.len()).expect("short").to_be_bytes()[..], &body].concat()
        };
        let answer = said(&mut client, &wrapped(&name(&server))).await.expect("an answer");
        assert_eq!(answer, wrapped(&name(&proxy.address().to_string())));
    }

    #[tokio::test]
    async fn what_is_not_kafka_ends_the_connection_instead_of_filling_memory() {
        let (_proxy, mut client) = proxied(Speech::Kafka { rename: false }).await;
        assert!(said(&mut client, &[0xff; 64]).await.is_err());
    }
}
