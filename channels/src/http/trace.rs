//! W3C trace context: taken from the request when it is well-formed, else made.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::HeaderMap;
use kept_schemas::headers::is_traceparent;

/// The `traceparent` of this request, as it goes on into the record's headers.
pub fn parent(headers: &HeaderMap) -> String {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).filter(|text| is_traceparent(text));
    given.map_or_else(fresh, str::to_owned)
}

/// Ids need be different, not secret: a counter, hashed under a key that each process draws.
fn fresh() -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // All zeros means "none"; one bit makes sure.
    let number = |part: u8| KEY.hash_one((part, count)) | 1;
    format!("00-{:016x}{:016x}-{:016x}-01", number(0), number(1), number(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_and_what_is_not_one_is_replaced() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().expect("a header"));
            parent(&headers)
        };
        assert_eq!(of(good), good);
        for bad in [
            "",
            "x",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let made = of(bad);
            assert!(is_traceparent(&made) && made != bad, "{bad} gave {made}");
        }
        assert_ne!(parent(&HeaderMap::new()), parent(&HeaderMap::new()));
    }
}
