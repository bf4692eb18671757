//! A set of prepared statements, made in one round trip.

/// Declares a struct of prepared statements and its `prepare`.
macro_rules! statements {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident = $sql:expr;)+ }) => {
        $(#[$meta])*
        struct $name { $($field: tokio_postgres::Statement),+ }

        impl $name {
            async fn prepare(client: &tokio_postgres::Client) -> Result<Self, tokio_postgres::Error> {
                // Futures are polled in this order, which sends every request before the first answer is awaited.
                let ($($field),+) = tokio::try_join!($(client.prepare($sql)),+)?;
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use statements;
