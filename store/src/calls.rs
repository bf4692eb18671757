//! A call to a partner: a row before it is a request.
//!
//! `planned → sent (committed before a byte leaves) → done | refused | unknown`. Unknown is settled by asking the
//! partner for our reference, never by sending again blindly; when the partner surely has nothing, the call is planned
//! again. The call's id is a pure function of what it is for and goes along as the partner's reference.

use kept_schemas::{Micros, ids::derive};
use thiserror::Error;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::pg::{At, StoreError};

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallState {
    /// Wanted; nothing left yet.
    Planned,
    /// Committed before the first byte leaves: it may have happened.
    Sent,
    /// A crash or a time-out after sending: nobody knows.
    Unknown,
    /// It happened.
    Done,
    /// The partner said no.
    Refused,
    /// No longer wanted, and it never left.
    Withdrawn,
}

impl CallState {
    pub const ALL: &'static [Self] =
        &[Self::Planned, Self::Sent, Self::Unknown, Self::Done, Self::Refused, Self::Withdrawn];

    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sent => "sent",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The state of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == word)
    }

    /// Nothing is left to do.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Refused | Self::Withdrawn)
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallStep {
    /// It is about to leave.
    Send,
    /// The partner answered: it is done.
    Succeed,
    /// The partner answered: no.
    Refuse,
    /// The partner answered that it did nothing (busy, not logged in): it may be tried again.
    NotDone,
    /// No answer, or one that does not say; or we crashed after sending.
    LoseSight,
    /// A look-up found it at the partner.
    Find,
    /// A look-up found surely nothing.
    FindNothing,
    /// It is no longer wanted.
    Withdraw,
}

impl CallStep {
    pub const ALL: &'static [Self] = &[
        Self::Send,
        Self::Succeed,
        Self::Refuse,
        Self::NotDone,
        Self::LoseSight,
        Self::Find,
        Self::FindNothing,
        Self::Withdraw,
    ];
}

/// A call: one row of `calls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// [`call_id`]: it goes along as the partner's reference.
    pub call_id: Uuid,
    /// The order it is for; `None`: it is for several, or for none.
    pub order_no: Option<i64>,
    /// What it is to bring about, such as `label` or `void`.
    pub purpose: String,
    pub partner: String,
    pub account: String,
    /// Calls of one lane go in order, and share a budget of requests.
    pub lane: String,
    pub state: CallState,
    /// Raised when what is wanted changes: another revision is another call.
    pub revision: i32,
    /// The call this one voids.
    pub supersedes: Option<Uuid>,
    /// What is wanted, whole, in JSON: enough to make the request again.
    pub intent: String,
    /// Where a conversation of several requests stands, in JSON.
    pub conversation: Option<String>,
    /// SHA-256 of the body that was sent first; a repeat with another body is an error of ours.
    pub body_hash: Option<String>,
    /// The partner's own reference, once known.
    pub reference: Option<String>,
    /// What the partner said, where that explains the state.
    pub detail: Option<String>,
    /// Tries that left us.
    pub attempt: i32,
    /// No byte of the current try leaves after this.
    pub deadline_at: Option<Micros>,
}

impl Call {
    /// Plans a call: its row, unless it is planned already. `client`: a session on the ledger's schema.
    ///
    /// # Errors
    /// Whatever Postgres says.
    pub async fn plan(&self, client: &Client) -> Result<(), StoreError> {
        client
            .execute(
                "INSERT INTO calls (call_id, order_no, purpose, partner, account, lane, state, revision, supersedes,
                                    intent, conversation, body_hash, reference, detail, attempt, deadline_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
                 ON CONFLICT (call_id) DO NOTHING",
                &[
                    &self.call_id,
                    &self.order_no,
                    &self.purpose,
                    &self.partner,
                    &self.account,
                    &self.lane,
                    &self.state.as_str(),
                    &self.revision,
                    &self.supersedes,
                    &self.intent,
                    &self.conversation,
                    &self.body_hash,
                    &self.reference,
                    &self.detail,
                    &self.attempt,
                    &self.deadline_at.map(At),
                ],
            )
            .await?;
        Ok(())
    }

    /// The call of an id.
    ///
    /// # Errors
    /// Whatever Postgres says; a state that this version does not know.
    pub async fn read(client: &Client, call_id: Uuid) -> Result<Option<Self>, StoreError> {
        let row = client
            .query_opt(
                "SELECT order_no, purpose, partner, account, lane, state, revision, supersedes, intent, conversation,
                        body_hash, reference, detail, attempt, deadline_at
                 FROM calls WHERE call_id = $1",
                &[&call_id],
            )
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let state: &str = row.get(5);
        Ok(Some(Self {
            call_id,
            order_no: row.get(0),
            purpose: row.get(1),
            partner: row.get(2),
            account: row.get(3),
            lane: row.get(4),
            state: CallState::of(state).ok_or_else(|| {
                StoreError::Stop(format!("call {call_id} is {state}, which this version does not know"))
            })?,
            revision: row.get(6),
            supersedes: row.get(7),
            intent: row.get(8),
            conversation: row.get(9),
            body_hash: row.get(10),
            reference: row.get(11),
            detail: row.get(12),
            attempt: row.get(13),
            deadline_at: row.get::<_, Option<At>>(14).map(|At(at)| at),
        }))
    }
}

/// A step that a call in this state cannot take. Nothing happened.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a call that is {} cannot {step:?}", state.as_str())]
pub struct CallError {
    pub state: CallState,
    pub step: CallStep,
}

impl CallState {
    /// Where a call stands after `step`.
    ///
    /// # Errors
    /// A step that this state does not allow.
    pub const fn after(self, step: CallStep) -> Result<Self, CallError> {
        use CallState::{Done, Planned, Refused, Sent, Unknown, Withdrawn};
        use CallStep::{Find, FindNothing, LoseSight, NotDone, Refuse, Send, Succeed, Withdraw};
        Ok(match (self, step) {
            (Planned, Send) => Sent,
            (Planned, Withdraw) => Withdrawn,
            (Sent | Unknown, Succeed) => Done,
            (Sent | Unknown, Refuse) => Refused,
            (Sent, NotDone) => Planned,
            // What was sent and is looked for is unknown from then on, however often sight of it is lost.
            (Sent | Unknown, LoseSight) => Unknown,
            (Unknown, Find) => Done,
            (Unknown, FindNothing) => Planned,
            // A late answer or look-up to what is settled changes nothing.
            (Done, Succeed | Find) => Done,
            (Refused, Refuse) => Refused,
            (Withdrawn, Withdraw) => Withdrawn,
            (state, step) => return Err(CallError { state, step }),
        })
    }
}

/// The id of a call: the same purpose, for the same things, in the same revision is the same call.
pub fn call_id(purpose: &str, things: &[&str], revision: i32) -> Uuid {
    let revision = revision.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![purpose.as_bytes(), &revision];
    parts.extend(things.iter().map(|thing| thing.as_bytes()));
    derive("call", &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use CallState::*;

    #[test]
    fn a_call_moves_only_along_its_table() {
        // Rows: states in the order of ALL. Columns: steps in the order of ALL. `None`: refused.
        let table: [[Option<CallState>; 8]; 6] = [
            // Send        Succeed     Refuse         NotDone        LoseSight      Find        FindNothing    Withdraw
            [Some(Sent), None, None, None, None, None, None, Some(Withdrawn)],
            [None, Some(Done), Some(Refused), Some(Planned), Some(Unknown), None, None, None],
            [None, Some(Done), Some(Refused), None, Some(Unknown), Some(Done), Some(Planned), None],
            [None, Some(Done), None, None, None, Some(Done), None, None],
            [None, None, Some(Refused), None, None, None, None, None],
            [None, None, None, None, None, None, None, Some(Withdrawn)],
        ];
        for (state, row) in CallState::ALL.iter().zip(table) {
            for (step, expected) in CallStep::ALL.iter().zip(row) {
                assert_eq!(state.after(*step).ok(), expected, "{state:?} {step:?}");
            }
        }
    }

    #[test]
    fn what_was_sent_is_never_sent_again_without_an_answer_or_a_look_up() {
        // Every path of up to six steps: between two sends there is a NotDone or a FindNothing.
        fn walk(state: CallState, may_send: bool, depth: usize) {
            if depth == 0 {
                return;
            }
            for &step in CallStep::ALL {
                let Ok(next) = state.after(step) else {
                    continue;
                };
                if step == CallStep::Send {
                    assert!(may_send);
                }
                let cleared = matches!(step, CallStep::NotDone | CallStep::FindNothing);
                walk(next, cleared || (may_send && step != CallStep::Send), depth - 1);
            }
        }
        walk(Planned, true, 6);
    }

    #[test]
    fn words_read_back_and_settled_states_stay() {
        for &state in CallState::ALL {
            assert_eq!(CallState::of(state.as_str()), Some(state));
            for &step in CallStep::ALL {
                if let (true, Ok(next)) = (state.is_settled(), state.after(step)) {
                    assert_eq!(next, state);
                }
            }
        }
    }

    #[test]
    fn a_call_id_follows_from_what_it_is_for() {
        assert_eq!(call_id("label", &["s1", "p1"], 0), call_id("label", &["s1", "p1"], 0));
        for other in
            [call_id("label", &["s1", "p1"], 1), call_id("void", &["s1", "p1"], 0), call_id("label", &["s1p1"], 0)]
        {
            assert_ne!(call_id("label", &["s1", "p1"], 0), other);
        }
    }
}
