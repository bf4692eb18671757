//! A hook for `kept chaos` and for nothing else: a process that was started with `KEPT_CHAOS_ABORT_ON` ends at once
//! when it is about to decide about one of the events named there, as a fault in a library would end it. Without that
//! variable it does nothing.

use std::sync::LazyLock;

use kept_schemas::EventId;

/// Event ids with commas between them.
pub const VARIABLE: &str = "KEPT_CHAOS_ABORT_ON";

static ABORT_ON: LazyLock<Vec<EventId>> =
    LazyLock::new(|| std::env::var(VARIABLE).map_or_else(|_| Vec::new(), |text| parse(&text)));

/// Ends the process if it was started to end on this event.
pub fn abort_if_told(event: EventId) {
    if ABORT_ON.contains(&event) {
        tracing::error!(%event, "told by {VARIABLE} to end on this event");
        std::process::abort();
    }
}

fn parse(text: &str) -> Vec<EventId> {
    text.split(',').filter_map(|it| EventId::parse(it.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_with_commas_between_them_and_what_is_none_is_passed_over() {
        let (a, b) = (EventId::of_input("a", "1", b""), EventId::of_input("a", "2", b""));
        assert_eq!(parse(&format!("{a}, {b},nonsense,")), vec![a, b]);
        assert_eq!(parse(""), vec![]);
    }

    #[test]
    fn a_process_that_was_not_told_goes_on() {
        abort_if_told(EventId::of_input("a", "1", b""));
    }
}
