//! Record headers: where a record comes from and what made it.

use std::borrow::Cow;

use crate::{ids::EventId, topics::Topic};

pub const EVENT_ID: &str = "kept-event-id";
pub const CAUSE_ID: &str = "kept-cause-id";
pub const TRACEPARENT: &str = "traceparent";
pub const SUBJECT: &str = "kept-subject";
pub const STEP: &str = "kept-step";
pub const CAUSE: &str = "kept-cause";
pub const INDEX: &str = "kept-index";
/// The fused instance that already did the next steps for this record.
pub const FUSED_BY: &str = "kept-fused-by";

/// The headers of one record. Ledger events carry all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    pub event_id: Option<EventId>,
    pub cause_id: Option<EventId>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    pub subject: Option<Cow<'static, str>>,
    pub step: Option<Cow<'static, str>>,
    /// Where the cause was read: topic, partition, offset.
    pub cause: Option<(Cow<'static, str>, i32, i64)>,
    /// Which of the cause's events this is, from 0.
    pub index: Option<u32>,
    pub fused_by: Option<String>,
}

impl Headers {
    /// As many as there can be.
    pub const MOST: usize = 8;

    /// Gives name and value of each header that is set, in a fixed order.
    pub fn each(&self, mut give: impl FnMut(&'static str, &[u8])) {
        let mut id = |name, id: Option<EventId>| {
            if let Some(EventId(id)) = id {
                give(name, id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            }
        };
        id(EVENT_ID, self.event_id);
        id(CAUSE_ID, self.cause_id);
        let mut text = |name, text: Option<&str>| {
            if let Some(text) = text {
                give(name, text.as_bytes());
            }
        };
        text(TRACEPARENT, self.traceparent.as_deref());
        text(SUBJECT, self.subject.as_deref());
        text(STEP, self.step.as_deref());
        let cause = self.cause.as_ref().map(|(topic, partition, offset)| format!("{topic}/{partition}/{offset}"));
        text(CAUSE, cause.as_deref());
        text(INDEX, self.index.map(|index| index.to_string()).as_deref());
        text(FUSED_BY, self.fused_by.as_deref());
    }

    /// Name and value of each header that is set, in a fixed order.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::with_capacity(Self::MOST);
        self.each(|name, value| pairs.push((name, String::from_utf8_lossy(value).into_owned())));
        pairs
    }

    /// Takes one header in; what is not ours or does not parse is ignored, for others may add their own.
    pub fn take(&mut self, name: &str, value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        match name {
            EVENT_ID => self.event_id = EventId::parse(text),
            CAUSE_ID => self.cause_id = EventId::parse(text),
            TRACEPARENT if is_traceparent(text) => self.traceparent = Some(text.to_owned()),
            SUBJECT => self.subject = Some(text.to_owned().into()),
            STEP => self.step = Some(text.to_owned().into()),
            CAUSE => {
                let mut parts = text.rsplitn(3, '/');
                if let (Some(offset), Some(partition), Some(topic)) = (parts.next(), parts.next(), parts.next())
                    && let (Ok(offset), Ok(partition)) = (offset.parse(), partition.parse())
                {
                    self.cause = Some((topic.to_owned().into(), partition, offset));
                }
            }
            INDEX => self.index = text.parse().ok(),
            FUSED_BY => self.fused_by = Some(text.to_owned()),
            _ => {}
        }
    }

    /// The event id of the record, or one made from its place when the producer set none: the same record read
    /// twice has the same id either way.
    pub fn id_or_place(&self, topic: Topic, partition: i32, offset: i64) -> EventId {
        self.event_id.unwrap_or_else(|| {
            EventId(crate::ids::derive(
                "place",
                &[topic.name().as_bytes(), &partition.to_be_bytes(), &offset.to_be_bytes()],
            ))
        })
    }
}

/// W3C trace context, version 00: `00-` 32 hex digits `-` 16 hex digits `-` 2 hex digits, lower case, ids not all zero.
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut next = || parts.next().unwrap_or_default();
    let (version, trace, span, flags) = (next(), next(), next(), next());
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|byte| byte != b'0');
    parts.next().is_none()
        && version == "00"
        && (hex(trace, 32) && some(trace))
        && (hex(span, 16) && some(span))
        && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_of_another_form_is_as_if_it_were_not_there() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let taken = |text: &str| {
            let mut headers = Headers::default();
            headers.take(TRACEPARENT, text.as_bytes());
            headers.traceparent
        };
        assert_eq!(taken(good).as_deref(), Some(good));
        for bad in [
            "",
            "x",
            "a\0b",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(taken(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn headers_read_back_as_they_were_written() {
        let headers = Headers {
            event_id: EventId::parse("01890a5d-ac96-8b66-a5b2-0b1f4a0b0c0d"),
            cause_id: EventId::parse("01890a5d-ac96-8b66-a5b2-0b1f4a0b0c0e"),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            subject: Some("orders.held-value".into()),
            step: Some("ledger".into()),
            cause: Some(("a/b.orders.validated".into(), 1, 42)),
            index: Some(3),
            fused_by: Some("x".into()),
        };
        let mut read = Headers::default();
        headers.each(|name, value| read.take(name, value));
        assert_eq!(read, headers);
    }
}
