//! Migrations: the tables of the ledger and of the read model, made and brought up to date.
//!
//! A step that has run is never edited; its checksum is kept and compared. Add a file and a line at the end.

use kept_schemas::ids::derive;
use tokio_postgres::{Client, Transaction};

use crate::pg::{Prefix, Purpose, Schema, StoreError, connect};

/// A step of a schema's history.
struct Step {
    name: &'static str,
    sql: &'static str,
}

macro_rules! steps {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(Step { name: $name, sql: include_str!(concat!("../migrations/", $folder, "/", $name, ".sql")) }),+]
    };
}

const LEDGER: &[Step] = steps!("ledger": "0001_ledger", "0002_schemas", "0003_reference", "0004_slots", "0005_accepted_at_the_door",
           "0006_unbacked", "0007_parked_of_a_topic_made_anew", "0008_erased", "0009_decided_with",
           "0010_let_go_one_by_one", "0011_sent_from");
const READ: &[Step] = steps!("read": "0001_read", "0002_written_at", "0003_erased");

/// Brings the schemas of a deployment up to date, both in the same database; returns the names of the steps that
/// ran. Safe to call at the same time from anywhere: one does it, the others wait.
///
/// # Errors
/// Also when a step that has run reads otherwise today, or when the database is ahead of this program.
pub async fn migrate(url: &str, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
    let mut ran = migrate_ledger(url, prefix).await?;
    ran.extend(migrate_read(url, &prefix.read()).await?);
    Ok(ran)
}

/// The ledger's schema alone. See [`migrate`].
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_ledger(url: &str, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
    let schema = prefix.ledger();
    bring_up(&mut connect(url, &schema, Purpose::Command).await?, &schema, LEDGER).await
}

/// One read model's schema alone, perhaps on another server. See [`migrate`].
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_read(url: &str, schema: &Schema) -> Result<Vec<String>, StoreError> {
    bring_up(&mut connect(url, schema, Purpose::Command).await?, schema, READ).await
}

/// The steps that have not run yet on a schema, nothing changed. `Err` also when it was migrated by a newer version.
async fn pending(url: &str, schema: &Schema, steps: &[Step]) -> Result<Vec<String>, StoreError> {
    let client = connect(url, schema, Purpose::Command).await?;
    let there: bool = client.query_one("SELECT to_regclass('migrations') IS NOT NULL", &[]).await?.get(0);
    let done: i64 = if there { client.query_one("SELECT count(*) FROM migrations", &[]).await?.get(0) } else { 0 };
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > steps.len() {
        return Err(StoreError::Stop(format!("schema {schema} was migrated by a newer version of kept")));
    }
    Ok(steps[done..].iter().map(|step| format!("{schema}/{}", step.name)).collect())
}

/// The ledger's steps that have not run yet.
///
/// # Errors
/// Whatever Postgres says; a schema that is ahead of this program.
pub async fn pending_ledger(url: &str, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
    pending(url, &prefix.ledger(), LEDGER).await
}

/// A read model's steps that have not run yet.
///
/// # Errors
/// As [`pending_ledger`].
pub async fn pending_read(url: &str, schema: &Schema) -> Result<Vec<String>, StoreError> {
    pending(url, schema, READ).await
}

/// The number under which one migration at a time works on a database: "kept" in ASCII.
const LOCK: i64 = 0x6b65_7074;

async fn bring_up(client: &mut Client, schema: &Schema, steps: &[Step]) -> Result<Vec<String>, StoreError> {
    let txn = client.transaction().await?;
    let ran = run(&txn, schema, steps).await;
    match ran {
        Ok(_) => txn.commit().await?,
        Err(_) => txn.rollback().await?,
    }
    ran
}

async fn run(txn: &Transaction<'_>, schema: &Schema, steps: &[Step]) -> Result<Vec<String>, StoreError> {
    txn.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    // The only names put into SQL as text; `Schema` allows nothing but a-z, 0-9 and _.
    txn.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
    txn.batch_execute(
        "CREATE TABLE IF NOT EXISTS migrations (
             position integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
             at timestamptz NOT NULL DEFAULT now())",
    )
    .await?;
    let done = txn.query("SELECT name, checksum FROM migrations ORDER BY position", &[]).await?;
    if done.len() > steps.len() {
        return Err(StoreError::Stop(format!(
            "schema {schema} was migrated by a newer version of kept ({} steps, this one knows {})",
            done.len(),
            steps.len()
        )));
    }
    let mut ran = Vec::new();
    for (position, step) in steps.iter().enumerate() {
        let checksum = derive("migration", &[step.sql.as_bytes()]).to_string();
        if let Some(row) = done.get(position) {
            let (name, known): (&str, &str) = (row.get(0), row.get(1));
            if name != step.name || known != checksum {
                return Err(StoreError::Stop(format!(
                    "migration {} of schema {schema} is not the one that ran there ({name}); a step that has run is \
                     never edited",
                    step.name
                )));
            }
            continue;
        }
        txn.batch_execute(step.sql).await?;
        let number = i32::try_from(position).expect("few migrations");
        txn.execute(
            "INSERT INTO migrations (position, name, checksum) VALUES ($1, $2, $3)",
            &[&number, &step.name, &checksum],
        )
        .await?;
        ran.push(format!("{schema}/{}", step.name));
    }
    Ok(ran)
}

/// Drops every schema of a deployment, with all that is in it. For tests and `kept down --data`.
///
/// # Errors
/// Whatever Postgres says.
pub async fn drop_all(url: &str, prefix: &Prefix) -> Result<(), StoreError> {
    let client = connect(url, &prefix.ledger(), Purpose::Command).await?;
    for schema in [prefix.ledger(), prefix.read(), prefix.read_new(), prefix.read_old()] {
        client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const PAGE: &str = include_str!("../../docs/read-model.md");

    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|it: char| !it.is_ascii_lowercase() && !it.is_ascii_digit() && it != '_').filter(|it| !it.is_empty())
    }

    /// Tables and views of the read model and their columns, as the migrations are written.
    fn columns() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        let mut tables: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for step in READ {
            for statement in step.sql.split(";\n") {
                let statement = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
                let lines: Vec<&str> = statement.filter(|line| !line.is_empty()).collect();
                let Some(first) = lines.first() else { continue };
                let name = first.split(' ').nth(2).expect("a name");
                let found: BTreeSet<&str> = if first.starts_with("CREATE TABLE") {
                    // A column stands four to the right, what belongs to it further in.
                    let inner = lines.iter().filter_map(|line| line.strip_prefix("    "));
                    inner
                        .filter(|line| line.starts_with(|it: char| it.is_ascii_lowercase()))
                        .filter_map(|line| line.split(' ').next())
                        .collect()
                } else if first.starts_with("CREATE VIEW") {
                    let text = &step.sql[step.sql.find(first).expect("it is there")..];
                    let list = &text[text.find("SELECT").expect("a view")..text.find("FROM").expect("a view")];
                    list.split(',').filter_map(|it| words(it).last()).collect()
                } else if first.starts_with("ALTER TABLE") {
                    first.split("ADD COLUMN ").skip(1).filter_map(|it| it.split(' ').next()).collect()
                } else {
                    assert!(first.starts_with("CREATE INDEX"), "this test cannot read: {first}");
                    continue;
                };
                assert!(!found.is_empty(), "{first}");
                tables.entry(name).or_default().extend(found);
            }
        }
        tables
    }

    #[test]
    fn the_page_of_the_read_model_names_each_column_and_none_that_there_is_not() {
        let tables = columns();
        assert!(tables.len() > 12 && tables["timeline"].contains("written_at"), "{tables:?}");
        let behind = ["order_rows", "line_rows", "charge_rows", "sink_progress"];
        let mut wrong = Vec::new();
        let mut told = BTreeSet::new();
        for section in PAGE.split("\n## ").skip(1) {
            let heading = section.lines().next().unwrap_or_default();
            let of: Vec<&str> =
                if heading == "Behind the views" { behind.to_vec() } else { heading.split(", ").collect() };
            // What stands between backticks.
            let code: Vec<&str> = section.split('`').skip(1).step_by(2).collect();
            let named: BTreeSet<&str> = code.iter().flat_map(|it| words(it)).collect();
            let here: BTreeSet<&str> = of.iter().flat_map(|it| &tables[it]).copied().collect();
            for column in &here {
                let elsewhere = heading == "Behind the views" && words(PAGE).any(|it| it == *column);
                if !named.contains(column) && !elsewhere {
                    wrong.push(format!("{heading}: {column} is not named"));
                }
            }
            for name in code.iter().filter(|it| it.contains(", ")).flat_map(|it| words(it)) {
                if !here.contains(name) && !of.contains(&name) {
                    wrong.push(format!("{heading}: {name} is no column"));
                }
            }
            told.extend(of);
        }
        assert_eq!(told, tables.keys().copied().collect());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
