//! Every version of reference data, kept for good; and the orders that wait for a product to be known.

use std::collections::BTreeMap;

use kept_processors::ledger::{Content, OrderState};
use kept_schemas::{Micros, OrderId, Topic};
use tokio_postgres::Client;

use crate::pg::{At, StoreError};

/// One record of a reference topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceVersion {
    /// Its offset: the version it began with.
    pub version: i64,
    pub key: String,
    /// Its bytes; `None`: it was removed.
    pub value: Option<Vec<u8>>,
    pub at: Micros,
}

/// The version up to which a topic's records are kept, not included. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn kept_up_to(client: &Client, topic: Topic, topic_id: &str) -> Result<i64, StoreError> {
    let row = client
        .query_one(
            "SELECT coalesce(max(version) + 1, 0) FROM reference_versions WHERE topic = $1 AND topic_id = $2",
            &[&topic.name(), &topic_id],
        )
        .await?;
    Ok(row.get(0))
}

/// Keeps records of one topic; what is kept already stays as it is.
///
/// # Errors
/// Whatever Postgres says.
pub async fn keep(
    client: &Client,
    topic: Topic,
    topic_id: &str,
    records: &[ReferenceVersion],
) -> Result<(), StoreError> {
    let versions: Vec<i64> = records.iter().map(|it| it.version).collect();
    let keys: Vec<&str> = records.iter().map(|it| it.key.as_str()).collect();
    let values: Vec<Option<&[u8]>> = records.iter().map(|it| it.value.as_deref()).collect();
    let times: Vec<At> = records.iter().map(|it| At(it.at)).collect();
    client
        .execute(
            "INSERT INTO reference_versions (topic, topic_id, version, key, value, at)
             SELECT $1, $2, u.version, u.key, u.value, u.at
             FROM unnest($3::bigint[], $4::text[], $5::bytea[], $6::timestamptz[]) u(version, key, value, at)
             ON CONFLICT DO NOTHING",
            &[&topic.name(), &topic_id, &versions, &keys, &values, &times],
        )
        .await?;
    Ok(())
}

/// A record as it was at a version of its topic: what a decision of that time saw.
///
/// # Errors
/// Whatever Postgres says.
pub async fn at_version(
    client: &Client,
    topic: Topic,
    topic_id: &str,
    key: &str,
    version: i64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = client
        .query_opt(
            "SELECT value FROM reference_versions
             WHERE topic = $1 AND key = $2 AND topic_id = $3 AND version < $4 ORDER BY version DESC LIMIT 1",
            &[&topic.name(), &key, &topic_id, &version],
        )
        .await?;
    Ok(row.and_then(|row| row.get(0)))
}

/// An order that waits because a SKU was not known, and the SKU's product that is there now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recheck {
    pub order_id: OrderId,
    pub sku: String,
    /// The version the product came with.
    pub version: i64,
    /// The order's revision when its last checks did not know that version yet, see [`unaware`].
    pub checked: Option<i32>,
}

/// The SKUs of lines that orders are held for because a SKU was not known; a hold may be about several lines, and
/// then it names none. `read`: a session on the read model's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn unknown_skus(read: &Client) -> Result<Vec<String>, StoreError> {
    let rows = read
        .query(
            "SELECT DISTINCT l.sku FROM holds h JOIN line_rows l USING (order_id)
             WHERE h.reason = 'unknown_sku' AND h.resolved_at IS NULL AND l.sku IS NOT NULL
               AND (h.line_no IS NULL OR h.line_no = l.line_no)",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Of these SKUs, those whose product came at least `settled_seconds` ago, with the version it came with.
///
/// # Errors
/// Whatever Postgres says.
pub async fn settled(
    ledger: &Client,
    skus: &[String],
    settled_seconds: i32,
) -> Result<BTreeMap<String, i64>, StoreError> {
    let rows = ledger
        .query(
            "SELECT u.sku, r.version
             FROM unnest($2::text[]) u(sku)
             CROSS JOIN LATERAL (SELECT version, value, at FROM reference_versions
                                 WHERE topic = $1 AND key = u.sku ORDER BY at DESC, version DESC LIMIT 1) r
             WHERE r.value IS NOT NULL AND r.at < now() - make_interval(secs => $3::int)",
            &[&Topic::ReferenceProducts.name(), &skus, &settled_seconds],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Orders held for these SKUs, after the pair `after`, at most `limit`, by order and SKU. What was looked at before and
/// is held still comes again.
///
/// # Errors
/// Whatever Postgres says.
pub async fn held_for(
    read: &Client,
    skus: &BTreeMap<String, i64>,
    after: Option<&Recheck>,
    limit: i64,
) -> Result<Vec<Recheck>, StoreError> {
    let asked: Vec<&str> = skus.keys().map(String::as_str).collect();
    let (order_id, sku) = after.map_or((uuid::Uuid::nil(), ""), |it| (it.order_id.0, it.sku.as_str()));
    let rows = read
        .query(
            "SELECT DISTINCT h.order_id, l.sku FROM holds h JOIN line_rows l USING (order_id)
             WHERE h.reason = 'unknown_sku' AND h.resolved_at IS NULL AND l.sku = ANY($1)
               AND (h.line_no IS NULL OR h.line_no = l.line_no)
               AND (h.order_id, l.sku) > ($2, $3)
             ORDER BY h.order_id, l.sku LIMIT $4",
            &[&asked, &order_id, &sku, &limit],
        )
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let sku: String = row.get(1);
            let version = *skus.get(&sku)?;
            Some(Recheck { order_id: OrderId(row.get(0)), sku, version, checked: None })
        })
        .collect())
}

/// Notes of each order whether its last checks were made from reference data without the product: such checks are worth
/// nothing, however often the order was checked since the product came. `ledger`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn unaware(ledger: &Client, held: &mut [Recheck]) -> Result<(), StoreError> {
    let orders: Vec<uuid::Uuid> = held.iter().map(|it| it.order_id.0).collect();
    // Read here and not by Postgres, whose JSON is not as wide as ours.
    let rows = ledger
        .query(
            "SELECT u.position, s.state, c.content
             FROM unnest($1::uuid[]) WITH ORDINALITY u(order_id, position)
             JOIN orders o USING (order_id)
             JOIN states s USING (order_no)
             JOIN contents c USING (order_no)",
            &[&orders],
        )
        .await?;
    for row in rows {
        let position: i64 = row.get(0);
        let it = &mut held[usize::try_from(position - 1).expect("positions count from 1")];
        let unreadable =
            |error: serde_json::Error| StoreError::Stop(format!("order {} cannot be read: {error}", it.order_id));
        let state: OrderState = serde_json::from_str(row.get(1)).map_err(unreadable)?;
        let content: Content = serde_json::from_str(row.get(2)).map_err(unreadable)?;
        let versions = content.enrichment.versions.iter().filter(|it| it.topic == Topic::ReferenceProducts.name());
        // Steps that looked at different times saw different versions; the older one counts.
        if versions.map(|it| it.version).min().is_some_and(|known| known <= it.version) {
            it.checked = Some(state.checked);
        }
    }
    Ok(())
}
