//! Leased slots in a real Postgres.

mod common;

use std::time::Duration;

use common::Deployment;
use kept_store::{
    Client,
    leases::{all, give_back, renew, take},
    pg::{Purpose, connect},
};

async fn session(deployment: &Deployment) -> Client {
    connect(&deployment.url, &deployment.prefix.ledger(), Purpose::Command).await.expect("a session")
}

#[tokio::test]
async fn a_slot_has_one_owner_until_its_lease_runs_out() {
    let deployment = Deployment::new().await;
    let (one, two) = (session(&deployment).await, session(&deployment).await);
    let first = take(&one, "ledger", 1, "a", 2).await.expect("asked").expect("free");
    assert_eq!((first.slot, first.epoch), (0, 1));
    assert_eq!(take(&two, "ledger", 1, "b", 2).await.expect("asked"), None, "it is held");
    assert!(take(&two, "read", 1, "b", 2).await.expect("asked").is_some(), "another step's slot is another slot");
    // Renewed, it outlives its first term.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(renew(&one, std::slice::from_ref(&first), 2).await.expect("renewed"), vec![true]);
    }
    assert_eq!(take(&two, "ledger", 1, "b", 2).await.expect("asked"), None, "it is held still");
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let second = take(&two, "ledger", 1, "b", 30).await.expect("asked").expect("it ran out");
    assert_eq!((second.slot, second.epoch), (0, 2));
    // The old owner wakes up: it learns that it is none, and cannot give away what is not its own.
    assert_eq!(renew(&one, std::slice::from_ref(&first), 2).await.expect("asked"), vec![false]);
    give_back(&one, &first).await.expect("asked");
    assert_eq!(renew(&two, std::slice::from_ref(&second), 30).await.expect("asked"), vec![true]);
    let held = all(&one).await.expect("listed").into_iter().find(|it| it.step == "ledger").expect("there");
    assert_eq!((held.owner.as_deref(), held.held), (Some("b"), true));
}

#[tokio::test]
async fn a_lease_that_ran_out_and_was_not_taken_can_be_renewed() {
    let deployment = Deployment::new().await;
    let client = session(&deployment).await;
    let lease = take(&client, "ledger", 1, "a", 1).await.expect("asked").expect("free");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(renew(&client, &[lease], 30).await.expect("renewed"), vec![true]);
    assert_eq!(take(&client, "ledger", 1, "b", 1).await.expect("asked"), None);
}

#[tokio::test]
async fn who_asks_at_the_same_time_gets_another_slot_and_the_last_one_none() {
    let deployment = Deployment::new().await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..5 {
        let client = session(&deployment).await;
        asking.spawn(async move { take(&client, "steps", 4, &format!("owner {number}"), 30).await.expect("asked") });
    }
    let mut got = asking.join_all().await;
    // One may have been passed over while another was taking the row; it asks again, as a worker does.
    let client = session(&deployment).await;
    while got.iter().flatten().count() < 4 {
        got.push(take(&client, "steps", 4, "again", 30).await.expect("asked"));
    }
    let mut slots: Vec<i32> = got.iter().flatten().map(|it| it.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, vec![0, 1, 2, 3]);
    assert_eq!(take(&client, "steps", 4, "late", 30).await.expect("asked"), None);
    let back = got.into_iter().flatten().find(|it| it.slot == 2).expect("taken");
    give_back(&client, &back).await.expect("given back");
    assert_eq!(take(&client, "steps", 4, "late", 30).await.expect("asked").expect("free").slot, 2);
}
