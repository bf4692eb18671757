//! Where tests find their servers. `./kept test` starts them (the switch is in `examples/with_servers.rs`) and names
//! them in the environment; a test that needs them and is run without fails, it never passes unseen.

use crate::servers::{Addresses, Server};

/// The servers of this test run.
///
/// # Panics
/// When the environment names none.
pub fn servers() -> Addresses {
    Addresses {
        kafka: address(Server::Kafka),
        registry: address(Server::Registry),
        postgres: address(Server::Postgres),
    }
}

fn address(server: Server) -> String {
    let variable = server.variable();
    std::env::var(variable).ok().filter(|it| !it.is_empty()).unwrap_or_else(|| {
        panic!(
            "{variable} names no server to test on: run `./kept test`, or `./kept up` and then \
             `set -a; . .kept/stack.env; set +a`"
        )
    })
}
