//! A deployment of a test's own on real servers: its prefix, its verbs, its processes.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime},
};

use kept_schemas::{
    Codec, Micros, OrderId, Topic,
    inbound::{Inbound, InboundKind},
};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls, Row};

/// The bearer key of account `web`.
pub const KEY: &str = "a-key-of-this-test-only";
/// Account `web`'s shop.
pub const SHOP: &str = "shop.example";

pub struct Deployment {
    pub prefix: String,
    pub folder: PathBuf,
    pub http: String,
    pub ops: String,
    pub runtime: tokio::runtime::Runtime,
    children: Vec<(String, Child)>,
}

fn address(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `./kept test`, or start servers with `./kept up`"))
}

fn free() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    format!("127.0.0.1:{}", listener.local_addr().expect("its address").port())
}

/// Waits until `there` gives something, at most a minute and a half.
pub fn wait_for<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(it) = there() {
            return it;
        }
        assert!(Instant::now() < give_up, "waited 90 s for {what}");
        std::thread::sleep(Duration::from_millis(150));
    }
}

impl Deployment {
    /// Topics, tables, reference data and stock; nothing runs yet.
    pub fn new(name: &str) -> Self {
        let deployment = Self::bare(name);
        deployment.ok(&["migrate"]);
        deployment.ok(&["topics", "apply"]);
        deployment.reference();
        deployment
    }

    /// Names and folders only.
    pub fn bare(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("e{}_{}_{name}_", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&prefix);
        fs::create_dir_all(&folder).expect("a folder for the test");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        Self { prefix, folder, http: free(), ops: free(), runtime, children: Vec::new() }
    }

    fn reference(&self) {
        let hash = sha256(KEY.as_bytes());
        let mut lines = vec![
            json!({"topic": "accounts", "value": {"account_id": "web", "channel": "storefront", "shop": SHOP,
                   "key_hashes": [hash], "active": true}}),
            json!({"topic": "accounts", "value": {"account_id": "files", "channel": "import", "shop": SHOP,
                   "key_hashes": [], "active": true}}),
            json!({"topic": "locations", "value": {"location_id": "WH", "name": "Warehouse", "kind": "warehouse",
                   "country": "NL", "priority": 1, "active": true}}),
        ];
        for sku in ["MUG", "PLATE", "RARE"] {
            lines
                .push(json!({"topic": "products", "value": {"sku": sku, "description": "made up", "weight_grams": 350,
                              "vat_class": "standard", "active": true}}));
        }
        let file = self.file("reference.jsonl", &lines);
        self.ok(&["reference", "apply", &file]);
        let stock: Vec<Value> = [("MUG", 1_000), ("PLATE", 1_000), ("RARE", 1)]
            .iter()
            .map(|(sku, quantity)| {
                json!({"sku": sku, "location_id": "WH", "condition": "sellable", "count_id": format!("first-{sku}"),
                       "kind": "receipt", "quantity": quantity, "at": "2026-01-01T00:00:00Z", "source": "feed"})
            })
            .collect();
        let file = self.file("stock.jsonl", &stock);
        self.ok(&["stock", "receive", &file]);
    }

    /// Writes JSON lines; gives the path.
    pub fn file(&self, name: &str, lines: &[Value]) -> String {
        let path = self.folder.join(name);
        let mut file = fs::File::create(&path).expect("a file of the test");
        for line in lines {
            writeln!(file, "{line}").expect("a line");
        }
        path.display().to_string()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.beside(env!("CARGO_BIN_EXE_kept"));
        command.args(arguments);
        command
    }

    /// A program that is told where everything is.
    pub fn beside(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env("KEPT_KAFKA", address("KEPT_KAFKA"))
            .env("KEPT_REGISTRY", address("KEPT_REGISTRY"))
            .env("KEPT_POSTGRES", address("KEPT_POSTGRES"))
            .env("KEPT_PREFIX", &self.prefix)
            .env("KEPT_HTTP", &self.http)
            .env("KEPT_OPS", &self.ops)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kept starts")
    }

    /// Runs a verb that must succeed; gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kept {}: {}\n{out}{err}", arguments.join(" "), output.status);
        out.into_owned()
    }

    /// Starts a process that goes on; its output is in `<name>.log`.
    pub fn start(&mut self, name: &str, arguments: &[&str]) {
        let command = self.command(arguments);
        self.spawn(name, command);
    }

    pub fn spawn(&mut self, name: &str, mut command: Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path(name)).expect("a log");
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("kept starts");
        self.children.push((name.to_owned(), child));
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap_or_default()
    }

    /// True when it ended by itself; it is forgotten then.
    pub fn ended(&mut self, name: &str) -> bool {
        let at = self.children.iter().position(|(it, _)| it == name).expect("it was started");
        let ended = self.children[at].1.try_wait().expect("it can be looked at").is_some();
        if ended {
            self.children.remove(at);
        }
        ended
    }

    /// Ends a process at once, as a power cut would.
    pub fn kill(&mut self, name: &str) {
        let at = self.children.iter().position(|(it, _)| it == name).expect("it was started");
        let (_, mut child) = self.children.remove(at);
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// Everything runs, and is ready.
    pub fn start_all(&mut self) {
        self.start("run", &["run", "all"]);
        self.wait_ready();
        // Made-up mishaps are for the demo; a journey must not end by chance.
        let rates = ["--rate", "short=0", "--rate", "refused=0", "--rate", "delivery-failed=0"];
        self.start("simulate", &[&["simulate", "--speed", "36000"][..], &rates[..]].concat());
    }

    pub fn wait_ready(&self) {
        wait_for("kept run to be ready", || self.get_ops("/readyz").filter(|(status, _)| *status == 200));
    }

    pub fn get_ops(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.ops);
        self.runtime.block_on(async {
            let response = client().get(url).send().await.ok()?;
            Some((response.status().as_u16(), response.text().await.ok()?))
        })
    }

    /// A request to the API with the account's key.
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let url = format!("http://{}{path}", self.http);
        self.runtime.block_on(async {
            let mut request = client().request(method.parse().expect("a method"), url).bearer_auth(KEY);
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_owned());
            }
            let response = request.send().await.expect("the API answers");
            (response.status().as_u16(), response.text().await.expect("a body"))
        })
    }

    /// Rows of the read model.
    pub fn read(&self, sql: &str) -> Vec<Row> {
        self.rows(&format!("{}read", self.prefix), sql)
    }

    /// Rows of the ledger.
    pub fn ledger(&self, sql: &str) -> Vec<Row> {
        self.rows(&format!("{}ledger", self.prefix), sql)
    }

    fn rows(&self, schema: &str, sql: &str) -> Vec<Row> {
        self.runtime.block_on(async {
            let client = postgres().await;
            client.batch_execute(&format!("SET search_path = {schema}")).await.expect("the schema is there");
            client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
        })
    }

    /// Changes the tables behind everybody's back.
    pub fn tamper(&self, schema: &str, sql: &str) {
        self.runtime.block_on(async {
            let client = postgres().await;
            let schema = format!("{}{schema}", self.prefix);
            client.batch_execute(&format!("SET search_path = {schema}; {sql}")).await.expect("it can be tampered with");
        });
    }

    /// What writes a record of `topic` as the registry has it today.
    pub fn codec(&self, topic: Topic) -> Codec {
        let mut codec = Codec::default();
        codec.register(topic, self.schema_id(topic.name())).expect("a schema of ours");
        codec
    }

    /// The id under which the registry has the topic's schema of today.
    fn schema_id(&self, topic: &str) -> u32 {
        let url = format!("{}/subjects/{}{topic}-value/versions/latest", address("KEPT_REGISTRY"), self.prefix);
        let answer: Value = self.runtime.block_on(async {
            client().get(url).send().await.expect("the registry answers").json().await.expect("JSON")
        });
        answer["id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id")
    }

    /// Puts bytes on a topic with kcat, a client that is not ours.
    pub fn kcat(&self, topic: &str, key: &str, bytes: &[u8], headers: &[(&str, &str)]) {
        let file = self.folder.join("record");
        fs::write(&file, bytes).expect("a file");
        let output = Command::new("kcat")
            .args(["-P", "-b", &address("KEPT_KAFKA"), "-t", &format!("{}{topic}", self.prefix), "-k", key])
            .args(["-X", "topic.partitioner=murmur2_random"])
            .args(headers.iter().flat_map(|(name, value)| ["-H".to_owned(), format!("{name}={value}")]))
            .arg(&file)
            .output()
            .expect("kcat is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Sends an order's body as a record of channels.inbound, as an account of the shop, with a client that is not ours.
    pub fn by_topic(&self, account: &str, number: &str, body: &str) {
        let raw = Inbound {
            account: account.into(),
            kind: InboundKind::Order,
            format: "kept.order.v1".into(),
            shop: SHOP.into(),
            external_id: number.into(),
            received_at: now(),
            body: body.as_bytes().to_vec(),
            ..Default::default()
        };
        let bytes = self.codec(Topic::ChannelsInbound).encode(&raw).expect("it fits").bytes();
        self.kcat("channels.inbound", &OrderId::of(SHOP, number).to_string(), &bytes, &[]);
    }

    /// The status of an order by its number; none while it is not on the books.
    pub fn status(&self, number: &str) -> Option<String> {
        self.read(&format!("SELECT status FROM orders WHERE channel_order_id = '{number}'"))
            .first()
            .map(|row| row.get(0))
    }

    pub fn wait_status(&self, number: &str, status: &str) {
        let mut last = None;
        let reached = || {
            last = self.status(number);
            (last.as_deref() == Some(status)).then_some(())
        };
        wait_for(&format!("order {number} to be {status}"), reached);
    }
}

async fn postgres() -> Client {
    let (client, connection) = tokio_postgres::connect(&address("KEPT_POSTGRES"), NoTls).await.expect("postgres");
    tokio::spawn(connection);
    client
}

pub fn client() -> reqwest::Client {
    // Whoever comes second finds it done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client")
}

/// SHA-256 in hex, by the system's own program: a second reading of what the account's hash is.
fn sha256(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum is there");
    child.stdin.take().expect("its input").write_all(bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a hash").to_owned()
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // Already ended is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for log in ["run", "simulate"] {
                let text = self.log(log);
                let tail: Vec<&str> = text.lines().rev().take(25).collect();
                for line in tail.iter().rev() {
                    eprintln!("{log}: {line}");
                }
            }
            return;
        }
        let (prefix, folder) = (self.prefix.clone(), self.folder.clone());
        self.runtime.block_on(async {
            let client = postgres().await;
            for schema in ["ledger", "read", "read_new", "read_old"] {
                client
                    .batch_execute(&format!("DROP SCHEMA IF EXISTS {prefix}{schema} CASCADE"))
                    .await
                    .expect("the test's tables can be dropped");
            }
        });
        fs::remove_dir_all(folder).expect("the test's folder can be removed");
    }
}

/// This machine's clock.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Micros(i64::try_from(since.as_micros()).expect("an instant"))
}

/// An order in our own form.
pub fn order(number: &str, lines: &[(&str, i64)]) -> Value {
    let total: i64 = lines.iter().map(|(_, quantity)| quantity * 1_250).sum();
    let total = format!("{}.{:02}", total / 100, total % 100);
    json!({
        "order_number": number, "placed_at": "2026-11-20T10:00:00Z", "currency": "EUR", "total": total,
        "customer_number": "C1", "language": "nl",
        "ship_to": {"name": "J. de Vries", "street": "Langestraat", "house_number": "12", "postcode": "3811 AB",
                    "city": "Amersfoort", "country": "NL"},
        "email": "someone@mail.example",
        "lines": lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity, "unit_price": "12.50"}))
            .collect::<Vec<_>>(),
        "payment": {"method": "channel", "captured": total},
    })
}
