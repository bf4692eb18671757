//! The sender against an outbox that fails, and a log that must tell the truth whatever happens.

use std::{cell::RefCell, rc::Rc};

use kept_runtime::log::Outgoing;
use kept_schemas::{
    Micros, Topic,
    inbound::{Inbound, InboundKind},
};
use serde_json::value::RawValue;

use super::*;

/// Fails as often as told, then stores.
struct Flaky {
    failures: usize,
    stored: Rc<RefCell<Vec<Outgoing>>>,
}

impl Outbox for Flaky {
    async fn send(&mut self, outgoing: Vec<Outgoing>) -> Result<(), LogError> {
        if self.failures > 0 {
            self.failures -= 1;
            // Some of it may have been stored all the same.
            self.stored.borrow_mut().extend(outgoing.into_iter().take(1));
            return Err(LogError::Retry("broker away".into()));
        }
        self.stored.borrow_mut().extend(outgoing);
        Ok(())
    }
}

fn codec() -> Codec {
    let mut codec = Codec::default();
    codec.register(Topic::ChannelsInbound, 1).unwrap();
    codec
}

fn item(number: &str) -> Item {
    let body = format!(
        r#"{{"order_number":"{number}","placed_at":"2026-11-25T10:00:00Z","currency":"EUR","lines":[{{"sku":"A","quantity":2,"unit_price":"1.25"}}]}}"#
    );
    Item {
        at: Micros(0),
        way: Way::Topic,
        account: "erp".into(),
        shop: "shop".into(),
        kind: InboundKind::Order,
        order_number: number.into(),
        body: Some(RawValue::from_string(body).unwrap()),
        raw: None,
        trouble: None,
    }
}

fn place(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("kept-sender-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn what_fails_is_sent_again_under_the_same_event_id_and_logged_once_as_accepted() {
    let dir = place("again");
    let stored = Rc::new(RefCell::new(Vec::new()));
    let outbox = Flaky { failures: 2, stored: Rc::clone(&stored) };
    let log = SentLog::open(&dir, "test").unwrap();
    let mut sender = Sender::new(outbox, log, None, Manners::default());
    let items = ["1", "2", "3"].map(|n| Ok::<_, SendError>(item(n)));
    run(sender.items(&codec(), items, |_| {})).unwrap();
    assert_eq!((sender.sendings().orders, sender.sendings().repeated), (3, 2));
    let stored = stored.borrow();
    assert_eq!(stored.len(), 5);
    assert_eq!(stored[0].headers.event_id, stored[2].headers.event_id);
    let inbound: Inbound = codec().decode(&stored[4].value).unwrap().unwrap();
    assert_eq!((inbound.external_id.as_str(), inbound.body.as_slice()), ("3", item("3").bytes()));
    let text = std::fs::read_to_string(dir.join("sent-test.jsonl")).unwrap();
    let lines: Vec<Sent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|it| it.accepted).collect::<Vec<_>>(), [false, false, false, true, true, true]);
    assert_eq!((lines[0].lines, lines[0].units, lines[0].total_minor), (Some(1), Some(2), Some(250)));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn patience_ends_and_the_log_claims_nothing() {
    let dir = place("patience");
    let outbox = Flaky { failures: usize::MAX, stored: Rc::default() };
    let log = SentLog::open(&dir, "test").unwrap();
    let manners = Manners { patience: Duration::from_millis(50), ..Manners::default() };
    let mut sender = Sender::new(outbox, log, None, manners);
    let error = run(sender.items(&codec(), [Ok::<_, SendError>(item("1"))], |_| {})).unwrap_err();
    assert!(matches!(error, SendError::GaveUp(_, _)), "{error}");
    let text = std::fs::read_to_string(dir.join("sent-test.jsonl")).unwrap();
    assert!(text.contains("\"accepted\":false") && !text.contains("\"accepted\":true"));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_item_reads_back_as_it_was_written() {
    let one = item("7");
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), one);
    let broken = Item { body: None, raw: Some("{\"order".into()), trouble: Some("not JSON".into()), ..one };
    let text = serde_json::to_string(&broken).unwrap();
    assert_eq!(serde_json::from_str::<Item>(&text).unwrap().bytes(), b"{\"order");
}
