//! Who may see the pages. They show names and addresses and ask nobody to log in, so by default they are for this
//! machine alone, or for those whom a proxy with a login lets through.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::html::{html, page};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// For this machine: the service listens on a loopback address. A page of some web site that the browser was led
    /// to this port by (DNS rebinding) names its own host, and gets nothing.
    Loopback,
    /// For whoever reaches the address; something in front asks them who they are.
    Open,
    /// For nobody.
    Off,
}

impl Guard {
    /// What fits a listening address: pages on a loopback address, none elsewhere.
    pub fn for_address(address: IpAddr) -> Self {
        if address.is_loopback() { Self::Loopback } else { Self::Off }
    }
}

/// Lets a request through, or not.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let why = match guard {
        Guard::Open => return next.run(request).await,
        Guard::Loopback if is_local(request.headers()) => return next.run(request).await,
        Guard::Loopback => {
            "They answer on this machine by its own address only, such as http://localhost and the port."
        }
        Guard::Off => {
            "They show personal data without a login, so they are served on a loopback address only, unless the \
             configuration says otherwise."
        }
    };
    (StatusCode::FORBIDDEN, page("The pages are closed", None, &html!("<p>{}</p>", why))).into_response()
}

/// The `Host` is `localhost` or an address, never another name.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|it| it.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_sites_name_does_not_open_the_pages_of_this_machine() {
        for (host, local) in [
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header"));
            assert_eq!(is_local(&headers), local, "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }

    #[test]
    fn pages_are_closed_on_an_open_address() {
        assert_eq!(Guard::for_address("127.0.0.1".parse().expect("an address")), Guard::Loopback);
        assert_eq!(Guard::for_address("::1".parse().expect("an address")), Guard::Loopback);
        assert_eq!(Guard::for_address("0.0.0.0".parse().expect("an address")), Guard::Off);
        assert_eq!(Guard::for_address("192.0.2.1".parse().expect("an address")), Guard::Off);
    }
}
