//! The texts of schemas, kept beside the registry: what was written can be read even when the registry is lost.

use tokio_postgres::Client;

use crate::pg::StoreError;

/// A schema's text and the subject it is registered under; the subject is empty when that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSchema {
    pub id: u32,
    pub subject: String,
    pub text: String,
}

/// The text kept for a schema id. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn kept(client: &Client, id: u32) -> Result<Option<String>, StoreError> {
    // What cannot be an id of a registry is not in the table either.
    let Ok(id) = i32::try_from(id) else {
        return Ok(None);
    };
    let row = client.query_opt("SELECT text FROM schema_texts WHERE schema_id = $1", &[&id]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Every text kept, by id.
///
/// # Errors
/// Whatever Postgres says.
pub async fn all(client: &Client) -> Result<Vec<KeptSchema>, StoreError> {
    let rows = client.query("SELECT schema_id, subject, text FROM schema_texts ORDER BY schema_id", &[]).await?;
    Ok(rows
        .iter()
        .map(|row| KeptSchema {
            id: u32::try_from(row.get::<_, i32>(0)).unwrap_or(0),
            subject: row.get(1),
            text: row.get(2),
        })
        .collect())
}

/// Keeps a text; the first one of an id stays. Gives the text that is kept now.
///
/// # Errors
/// Whatever Postgres says; an id that no registry gives.
pub async fn keep(client: &Client, id: u32, subject: &str, text: &str) -> Result<String, StoreError> {
    let number = i32::try_from(id).map_err(|_| StoreError::Stop(format!("schema id {id} is not one")))?;
    client
        .execute(
            "INSERT INTO schema_texts (schema_id, subject, text) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[&number, &subject, &text],
        )
        .await?;
    Ok(kept(client, id).await?.unwrap_or_default())
}
