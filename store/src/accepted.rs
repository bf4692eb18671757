//! Orders that were accepted at the HTTP door and may not have been decided on yet.

use kept_schemas::OrderId;
use tokio_postgres::Client;

use crate::pg::StoreError;

/// An order that the door said yes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtTheDoor {
    pub order_id: OrderId,
    pub shop: String,
    pub number: String,
}

/// Remembers `orders`; those remembered already stay as they are. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn remember(client: &Client, orders: &[AtTheDoor]) -> Result<(), StoreError> {
    let ids: Vec<uuid::Uuid> = orders.iter().map(|it| it.order_id.0).collect();
    let shops: Vec<&str> = orders.iter().map(|it| it.shop.as_str()).collect();
    let numbers: Vec<&str> = orders.iter().map(|it| it.number.as_str()).collect();
    let statement = client
        .prepare(
            "INSERT INTO http_accepted (order_id, shop, number)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING",
        )
        .await?;
    client.execute(&statement, &[&ids, &shops, &numbers]).await?;
    Ok(())
}

/// The order, if it was accepted at the door and is not old news.
///
/// # Errors
/// Whatever Postgres says.
pub async fn find(client: &Client, order_id: OrderId) -> Result<Option<AtTheDoor>, StoreError> {
    let row = client.query_opt("SELECT shop, number FROM http_accepted WHERE order_id = $1", &[&order_id.0]).await?;
    Ok(row.map(|row| AtTheDoor { order_id, shop: row.get(0), number: row.get(1) }))
}

/// Forgets what the ledger has had for a day, and after 30 days what it never got (its body is gone from the topic
/// then); returns how many.
///
/// # Errors
/// Whatever Postgres says.
pub async fn forget(client: &Client) -> Result<u64, StoreError> {
    Ok(client
        .execute(
            "DELETE FROM http_accepted a
             WHERE a.at < now() - interval '30 days'
                OR (a.at < now() - interval '1 day'
                    AND EXISTS (SELECT FROM orders o JOIN contents c USING (order_no) WHERE o.order_id = a.order_id))",
            &[],
        )
        .await?)
}
