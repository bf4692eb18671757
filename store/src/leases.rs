//! Leased slots: which worker has which place of a step, by Postgres's clock.
//!
//! A slot gives its worker a transactional id that stays the same over restarts, so that plain replicas can scale. It
//! is not what keeps two workers apart: the log's fences and the offsets' compare-and-set do that, also for a worker
//! that was asleep while its lease ran out.

use tokio_postgres::Client;

use crate::pg::StoreError;

/// A slot that is ours until it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub step: String,
    pub slot: i32,
    /// What proves that it is ours: each owner has a higher one.
    pub epoch: i64,
}

/// A slot as it stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub step: String,
    pub slot: i32,
    pub owner: Option<String>,
    pub epoch: i64,
    /// Its lease has not run out.
    pub held: bool,
}

/// Takes the lowest free slot of a step, of `slots`; `None`: all are held. `client`: a session on the ledger's schema.
///
/// # Errors
/// Whatever Postgres says.
pub async fn take(
    client: &Client,
    step: &str,
    slots: i32,
    owner: &str,
    seconds: i32,
) -> Result<Option<Lease>, StoreError> {
    client
        .execute(
            "INSERT INTO slots (step, slot, epoch, until)
             SELECT $1, slot, 0, '-infinity' FROM generate_series(0, $2::int - 1) slot ON CONFLICT DO NOTHING",
            &[&step, &slots],
        )
        .await?;
    // One that another is just taking is passed over, so that two who ask at once get two slots.
    let row = client
        .query_opt(
            "UPDATE slots s SET owner = $3, epoch = s.epoch + 1, until = now() + make_interval(secs => $4::int)
             FROM (SELECT step, slot FROM slots WHERE step = $1 AND slot < $2 AND until < now()
                   ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED) free
             WHERE s.step = free.step AND s.slot = free.slot
             RETURNING s.slot, s.epoch",
            &[&step, &slots, &owner, &seconds],
        )
        .await?;
    Ok(row.map(|row| Lease { step: step.to_owned(), slot: row.get(0), epoch: row.get(1) }))
}

/// Renews leases; gives, for each, whether it is still ours. One that ran out but that nobody took is.
///
/// # Errors
/// Whatever Postgres says; then nothing is known.
pub async fn renew(client: &Client, leases: &[Lease], seconds: i32) -> Result<Vec<bool>, StoreError> {
    let steps: Vec<&str> = leases.iter().map(|it| it.step.as_str()).collect();
    let slots: Vec<i32> = leases.iter().map(|it| it.slot).collect();
    let epochs: Vec<i64> = leases.iter().map(|it| it.epoch).collect();
    let rows = client
        .query(
            "UPDATE slots s SET until = now() + make_interval(secs => $4::int)
             FROM unnest($1::text[], $2::int[], $3::bigint[]) u(step, slot, epoch)
             WHERE s.step = u.step AND s.slot = u.slot AND s.epoch = u.epoch
             RETURNING s.step, s.slot",
            &[&steps, &slots, &epochs, &seconds],
        )
        .await?;
    let ours: Vec<(&str, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(leases.iter().map(|it| ours.contains(&(it.step.as_str(), it.slot))).collect())
}

/// Gives a slot back; whoever waits for one gets it at once. One that is not ours any more is left alone.
///
/// # Errors
/// Whatever Postgres says; then the lease runs out by itself.
pub async fn give_back(client: &Client, lease: &Lease) -> Result<(), StoreError> {
    client
        .execute(
            "UPDATE slots SET owner = NULL, until = '-infinity' WHERE step = $1 AND slot = $2 AND epoch = $3",
            &[&lease.step, &lease.slot, &lease.epoch],
        )
        .await?;
    Ok(())
}

/// Every slot that was ever taken.
///
/// # Errors
/// Whatever Postgres says.
pub async fn all(client: &Client) -> Result<Vec<Slot>, StoreError> {
    let rows = client
        .query("SELECT step, slot, owner, epoch, until > now() FROM slots WHERE epoch > 0 ORDER BY step, slot", &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Slot { step: row.get(0), slot: row.get(1), owner: row.get(2), epoch: row.get(3), held: row.get(4) })
        .collect())
}
