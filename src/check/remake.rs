//! The steps that remember nothing, done again: from a record and the reference data that its result names, the same
//! pure function must give the same result.

use std::collections::HashMap;

use kept_processors::{
    enrich,
    normalise::{self, Normalised},
    validate,
};
use kept_schemas::{
    Codec, EventId, Micros, Topic,
    inbound::{Inbound, OrderEnriched, OrderReceived, OrderRevised, OrderValidated},
    inputs::{CommandReceived, PaymentReceived},
    topics::Record,
};

use super::{
    facts::{Place, Step},
    references::References,
};

/// Where a result goes, the clock it was made by, and its bytes.
type Due = (Topic, Micros, Box<[u8]>);

/// Records that wait for their result to be read. A result is read after what it was made from.
#[derive(Default)]
pub struct Remake {
    waiting: HashMap<(Step, Place, EventId), Due>,
}

impl Remake {
    /// A record that `step` reads. `origin`: where its transaction began.
    pub fn input(&mut self, step: Step, origin: Place, event_id: EventId, topic: Topic, at: Micros, value: &[u8]) {
        self.waiting.insert((step, origin, event_id), (topic, at, value.into()));
    }

    /// Done again it gives the same. `None`: what it was made from is not at hand.
    pub fn same(
        &mut self,
        codec: &Codec,
        references: &mut References,
        step: Step,
        cause: (Place, EventId),
        topic: Topic,
        value: &[u8],
    ) -> Option<bool> {
        let (input_topic, at, input) = self.waiting.remove(&(step, cause.0, cause.1))?;
        match step {
            Step::Normalise => normalised(codec, references, cause.1, at, &input, topic, value),
            Step::Enrich => {
                let result: OrderEnriched = read(codec, value)?;
                let reference = references.of(codec, &result.enrichment.versions);
                let again = match input_topic {
                    Topic::OrdersRevised => enrich::revised(read::<OrderRevised>(codec, &input)?, &reference),
                    _ => enrich::received(read::<OrderReceived>(codec, &input)?, &reference),
                };
                Some(again == Ok(result))
            }
            Step::Validate => {
                let result: OrderValidated = read(codec, value)?;
                let reference = references.of(codec, &result.enrichment.versions);
                let mut again = validate::decide(read::<OrderEnriched>(codec, &input)?, &reference);
                // It records what it looked up; the snapshot was made from that.
                again.enrichment.versions.clone_from(&result.enrichment.versions);
                Some(again == result)
            }
            _ => None,
        }
    }
}

/// Which version of the channel accounts was known is not recorded: any since the record came will do.
fn normalised(
    codec: &Codec,
    references: &mut References,
    event_id: EventId,
    at: Micros,
    input: &[u8],
    topic: Topic,
    value: &[u8],
) -> Option<bool> {
    let inbound: Inbound = read(codec, input)?;
    let known = [references.at(codec, Micros(i64::MAX)), references.at(codec, at)];
    let mut same = false;
    for reference in known {
        same |= match (topic, normalise::decide(&inbound, event_id, &reference)) {
            (Topic::OrdersReceived, Ok(Normalised::Order(it))) => *it == read::<OrderReceived>(codec, value)?,
            (Topic::CommandsReceived, Ok(Normalised::Command(it))) => *it == read::<CommandReceived>(codec, value)?,
            (Topic::PaymentsReceived, Ok(Normalised::Payment(it))) => *it == read::<PaymentReceived>(codec, value)?,
            _ => false,
        };
    }
    Some(same)
}

fn read<T: Record>(codec: &Codec, value: &[u8]) -> Option<T> {
    codec.decode(value).ok().flatten()
}

#[cfg(test)]
mod tests {
    use kept_schemas::{codec::offline, inbound::InboundKind, reference::Account};

    use super::{super::references::Version, *};

    const PLACE: Place = Place { topic: Topic::ChannelsInbound, partition: 0, offset: 7 };

    /// What comes of a body, step by step; each result with its topic and bytes.
    fn through(spoil: impl Fn(&mut OrderReceived, &mut OrderEnriched, &mut OrderValidated)) -> Vec<Option<bool>> {
        let codec = offline();
        let account = Account {
            account_id: "shop-1".into(),
            channel: "storefront".into(),
            shop: "shop.example".into(),
            active: true,
            ..Default::default()
        };
        let value = Some(codec.encode(&account).expect("it fits").bytes());
        let version = Version { key: "shop-1".into(), value, at: Micros(0) };
        let mut references = References::default();
        references.add(Topic::ReferenceAccounts, 0, version);
        let body = br#"{"order_number":"1001","placed_at":"2026-11-25T10:00:00Z","currency":"EUR",
            "lines":[{"sku":"A","quantity":2,"unit_price":"1.25"}]}"#;
        let inbound = Inbound {
            account: "shop-1".into(),
            kind: InboundKind::Order,
            format: "kept.order.v1".into(),
            shop: "shop.example".into(),
            external_id: "1001".into(),
            body: body.to_vec(),
            ..Default::default()
        };
        let first = EventId::of_input("shop-1", "1001", b"");
        let ids = [first, EventId::of_step("normalise", first, 0)];
        let ids = [ids[0], ids[1], EventId::of_step("enrich", ids[1], 0)];
        let reference = references.at(&codec, Micros(i64::MAX));
        let Ok(Normalised::Order(received)) = normalise::decide(&inbound, first, &reference) else {
            panic!("an order");
        };
        let mut received = *received;
        let empty = references.of(&codec, &[]);
        let mut enriched = enrich::received(received.clone(), &empty).expect("it is sound");
        let mut validated = validate::decide(enriched.clone(), &empty);
        let inputs = [codec.encode(&inbound), codec.encode(&received), codec.encode(&enriched)];
        spoil(&mut received, &mut enriched, &mut validated);
        let results = [codec.encode(&received), codec.encode(&enriched), codec.encode(&validated)];
        let topics = [Topic::ChannelsInbound, Topic::OrdersReceived, Topic::OrdersEnriched, Topic::OrdersValidated];
        let mut remake = Remake::default();
        let mut answers = Vec::new();
        for (n, step) in [Step::Normalise, Step::Enrich, Step::Validate].into_iter().enumerate() {
            let input = inputs[n].as_ref().expect("it fits").bytes();
            let result = results[n].as_ref().expect("it fits").bytes();
            remake.input(step, PLACE, ids[n], topics[n], Micros(1), &input);
            answers.push(remake.same(&codec, &mut references, step, (PLACE, ids[n]), topics[n + 1], &result));
        }
        answers
    }

    #[test]
    fn done_again_each_step_gives_the_same() {
        assert_eq!(through(|_, _, _| {}), [Some(true); 3]);
    }

    #[test]
    fn a_result_that_says_something_else_is_noticed_at_its_step() {
        assert_eq!(through(|it, _, _| it.order.total_minor += 1), [Some(false), Some(true), Some(true)]);
        assert_eq!(through(|_, it, _| it.enrichment.vat_country = "NL".into()), [Some(true), Some(false), Some(true)]);
        assert_eq!(through(|_, _, it| _ = it.problems.pop()), [Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn without_what_it_was_made_from_nothing_is_said() {
        let same = Remake::default().same(
            &offline(),
            &mut References::default(),
            Step::Enrich,
            (PLACE, EventId::default()),
            Topic::OrdersEnriched,
            &[],
        );
        assert_eq!(same, None);
    }
}
