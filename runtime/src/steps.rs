//! The three steps without memory, as values the driver runs, apart or fused. The deciding is in `processors/`; here
//! a record is read, decided on and written.

use kept_processors::{
    enrich,
    normalise::{self, Normalised},
    validate,
};
use kept_schemas::{
    Micros, Topic,
    inbound::{Inbound, OrderEnriched, OrderReceived, OrderRevised},
};

use crate::stateless::{Inward, Made, StatelessStep, Unread};

/// Raw bodies become orders, commands and payments.
pub const NORMALISE: StatelessStep = StatelessStep {
    name: "normalise",
    inputs: &[Topic::ChannelsInbound],
    outputs: &[Topic::OrdersReceived, Topic::CommandsReceived, Topic::PaymentsReceived],
    decide: normalise,
};

/// Orders get what reference data says of them.
pub const ENRICH: StatelessStep = StatelessStep {
    name: "enrich",
    inputs: &[Topic::OrdersReceived, Topic::OrdersRevised],
    outputs: &[Topic::OrdersEnriched],
    decide: enrich,
};

/// Orders get every problem they have.
pub const VALIDATE: StatelessStep = StatelessStep {
    name: "validate",
    inputs: &[Topic::OrdersEnriched],
    outputs: &[Topic::OrdersValidated],
    decide: validate,
};

/// All of them, in the order a record meets them.
pub const FUSED: [StatelessStep; 3] = [NORMALISE, ENRICH, VALIDATE];

fn normalise(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let mut inbound = inward.read::<Inbound>()?;
    if untold(inbound.received_at) {
        inbound.to_mut().received_at = inward.at;
    }
    let made = match normalise::decide(&inbound, inward.event_id, inward.reference).map_err(Unread::Poison)? {
        Normalised::Order(it) => Made::of(inward.codec, it.order.order_id.to_string(), *it)?,
        Normalised::Command(it) => Made::of(inward.codec, it.order_id.to_string(), *it)?,
        Normalised::Payment(it) => Made::of(inward.codec, it.order_id.to_string(), *it)?,
    };
    Ok(vec![made])
}

/// The producer left it at 0: then it came in when the broker stored it.
fn untold(received_at: Micros) -> bool {
    received_at.0 <= 0
}

fn enrich(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let enriched = match inward.topic {
        Topic::OrdersReceived => {
            let mut received = inward.read::<OrderReceived>()?.into_owned();
            if untold(received.received_at) {
                received.received_at = inward.at;
            }
            enrich::received(received, inward.reference)
        }
        Topic::OrdersRevised => enrich::revised(inward.read::<OrderRevised>()?.into_owned(), inward.reference),
        other => Err(format!("enrich does not read {other}")),
    }
    .map_err(Unread::Poison)?;
    Ok(vec![Made::of(inward.codec, enriched.order.order_id.to_string(), enriched)?])
}

fn validate(inward: &Inward<'_>) -> Result<Vec<Made>, Unread> {
    let validated = validate::decide(inward.read::<OrderEnriched>()?.into_owned(), inward.reference);
    Ok(vec![Made::of(inward.codec, validated.order.order_id.to_string(), validated)?])
}

#[cfg(test)]
mod tests {
    use kept_processors::reference::Reference;
    use kept_schemas::{
        Codec, Headers, OrderId, OrderLine,
        codec::offline,
        inbound::{HoldReason, InboundKind, OrderValidated},
        inputs::{CommandReceived, PaymentReceived},
        order::MAX_RECORD_BYTES,
        own::{MAX_LONG_TEXT, OrderForm},
        reference::Account,
        topics::Record,
    };
    use kept_store::seam::TopicPartition;

    use super::*;
    use crate::log::LogRecord;

    fn reference() -> Reference {
        let account = Account {
            account_id: "shop-1".into(),
            channel: "storefront".into(),
            shop: "shop.example".into(),
            active: true,
            ..Default::default()
        };
        Reference { accounts: [("shop-1".to_owned(), account)].into(), ..Default::default() }
    }

    fn inbound(kind: InboundKind, body: &str) -> Inbound {
        Inbound {
            account: "shop-1".into(),
            kind,
            format: format!("kept.{kind}.v1"),
            shop: "shop.example".into(),
            external_id: "1001".into(),
            received_at: Micros(1_795_600_800_000_000),
            body: body.as_bytes().to_vec(),
            ..Default::default()
        }
    }

    const STORED: Micros = Micros(1_795_600_900_000_000);

    fn record<T: Record>(codec: &Codec, value: &T) -> LogRecord {
        LogRecord {
            at: TopicPartition { topic: T::TOPIC, partition: 0 },
            offset: 7,
            timestamp: STORED,
            key: None,
            value: Some(codec.encode(value).expect("it fits").bytes()),
            headers: Headers::default(),
        }
    }

    fn run<T: Record>(step: StatelessStep, codec: &Codec, value: &T) -> Result<Made, Unread> {
        let (record, reference) = (record(codec, value), reference());
        assert!(step.inputs.contains(&record.at.topic));
        let mut made = (step.decide)(&Inward::new(&record, codec, &reference))?;
        assert_eq!(made.len(), 1);
        let made = made.remove(0);
        assert!(step.outputs.contains(&made.topic));
        assert_eq!(made.key, OrderId::of("shop.example", "1001").to_string());
        Ok(made)
    }

    fn read<T: Record>(codec: &Codec, made: &Made) -> T {
        codec.decode(&made.wire().bytes()).expect("it reads").expect("known")
    }

    const ORDER: &str = r#"{"order_number":"1001","placed_at":"2026-11-25T10:00:00Z","currency":"EUR",
        "lines":[{"sku":"A","quantity":2,"unit_price":"1.25"}]}"#;

    #[test]
    fn a_body_becomes_a_validated_order_step_by_step() {
        let codec = offline();
        let made = run(NORMALISE, &codec, &inbound(InboundKind::Order, ORDER)).expect("an order");
        let made = run(ENRICH, &codec, &read::<OrderReceived>(&codec, &made)).expect("enriched");
        let made = run(VALIDATE, &codec, &read::<OrderEnriched>(&codec, &made)).expect("validated");
        let validated: OrderValidated = read(&codec, &made);
        assert_eq!(validated.order.total_minor, 250);
        assert_eq!(validated.order.channel, "storefront");
        let reasons: Vec<HoldReason> = validated.problems.iter().map(|it| it.reason).collect();
        assert!(reasons.contains(&HoldReason::UnknownSku) && reasons.contains(&HoldReason::AddressInvalid));
    }

    #[test]
    fn what_a_producer_did_not_date_came_in_when_the_broker_stored_it() {
        let codec = offline();
        let undated = Inbound { received_at: Micros(0), ..inbound(InboundKind::Order, ORDER) };
        let mut received: OrderReceived = read(&codec, &run(NORMALISE, &codec, &undated).expect("an order"));
        assert_eq!(received.received_at, STORED);
        received.received_at = Micros(0);
        let enriched: OrderEnriched = read(&codec, &run(ENRICH, &codec, &received).expect("enriched"));
        assert_eq!(enriched.received_at, STORED);
    }

    #[test]
    fn a_revised_order_goes_through_the_same_checks() {
        let codec = offline();
        let made = run(NORMALISE, &codec, &inbound(InboundKind::Order, ORDER)).expect("an order");
        let received: OrderReceived = read(&codec, &made);
        let order_id = received.order.order_id;
        let revised = OrderRevised { order_id, revision: 3, order: received.order, ..Default::default() };
        let enriched: OrderEnriched = read(&codec, &run(ENRICH, &codec, &revised).expect("enriched"));
        assert_eq!((enriched.revision, enriched.order.order_id), (3, order_id));
    }

    #[test]
    fn cancellations_and_payments_become_commands_and_facts() {
        let codec = offline();
        let made = run(NORMALISE, &codec, &inbound(InboundKind::Cancellation, "{}")).expect("a command");
        let command: CommandReceived = read(&codec, &made);
        assert_eq!((command.by.as_str(), command.lines.len()), ("shop-1", 0));
        let body =
            r#"{"payment_id":"p","kind":"captured","amount":"2.50","currency":"EUR","at":"2026-11-25T10:00:00Z"}"#;
        let made = run(NORMALISE, &codec, &inbound(InboundKind::Payment, body)).expect("a payment");
        assert_eq!(read::<PaymentReceived>(&codec, &made).amount_minor, 250);
    }

    #[test]
    fn what_cannot_be_read_is_a_dead_letter_with_its_reason() {
        let codec = offline();
        let poison = |value: &Inbound| match run(NORMALISE, &codec, value) {
            Err(Unread::Poison(why)) => why,
            Err(other) => panic!("{other:?}"),
            Ok(made) => panic!("{}", made.topic),
        };
        let order = inbound(InboundKind::Order, ORDER);
        let broken = Inbound { body: b"{".to_vec(), ..order.clone() };
        assert!(
            poison(&broken).starts_with("body is not a kept.order.v1: the body is not JSON"),
            "{}",
            poison(&broken)
        );
        let stranger = Inbound { account: "nobody".into(), ..order };
        assert!(poison(&stranger).contains("\"nobody\" is not in reference.accounts"));
        let reference = reference();
        let tombstone = LogRecord { value: None, ..record(&codec, &stranger) };
        let made = (NORMALISE.decide)(&Inward::new(&tombstone, &codec, &reference));
        assert_eq!(made.err(), Some(Unread::Poison("it has no value".into())));
    }

    #[test]
    fn an_order_too_large_for_its_record_is_a_dead_letter_that_says_so() {
        let codec = offline();
        let made = run(NORMALISE, &codec, &inbound(InboundKind::Order, ORDER)).expect("an order");
        let mut large: OrderReceived = read(&codec, &made);
        let first = large.order.lines[0].clone();
        large.order.lines = (1..=2_000).map(|line_no| OrderLine { line_no, ..first.clone() }).collect();
        let mut left = MAX_RECORD_BYTES - codec.encode(&large).expect("it fits").len() - 10;
        for line in &mut large.order.lines {
            // Two bytes say how long it is.
            let more = left.saturating_sub(2).min(MAX_LONG_TEXT);
            line.description = (more > 0).then(|| "x".repeat(more));
            left = left.saturating_sub(more + 2);
        }
        let why = match run(ENRICH, &codec, &large) {
            Err(Unread::Poison(why)) => why,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("what enrich adds fits as well"),
        };
        assert!(why.starts_with("record for orders.enriched has ") && why.ends_with("more than 900000"), "{why}");
    }

    #[test]
    fn the_largest_order_that_is_taken_fits_the_records_of_every_step() {
        let codec = offline();
        let line = r#"{"sku":"SKU-THAT-NOBODY-KNOWS","quantity":-1,"unit_price":"-1.25","ship_by":"2026-11-24T10:00:00Z","description":"#;
        let description = "y".repeat(270);
        let lines: Vec<String> = (0..2_000).map(|_| format!("{line}\"{description}\"}}")).collect();
        let body = format!(
            r#"{{"order_number":"1001","placed_at":"2026-11-25T10:00:00Z","currency":"EUR","total":"7","lines":[{}]}}"#,
            lines.join(",")
        );
        assert!(OrderForm::parse(body.as_bytes()).is_ok() && body.len() > 760_000, "{}", body.len());
        let made = run(NORMALISE, &codec, &inbound(InboundKind::Order, &body)).expect("an order");
        let made = run(ENRICH, &codec, &read::<OrderReceived>(&codec, &made)).expect("enriched");
        let made = run(VALIDATE, &codec, &read::<OrderEnriched>(&codec, &made)).expect("validated");
        let problems = read::<OrderValidated>(&codec, &made).problems;
        assert!(problems.len() < 100 && problems.iter().any(|it| it.detail == "and 1980 more of the same kind"));
    }
}
