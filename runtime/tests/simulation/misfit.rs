//! What a person, a restored backup or a broken disk may do behind the engine's back: database, group and topic do not
//! fit each other any more, and the one right thing is to stop with the reason.

use kept_runtime::log::Outgoing;

use crate::{store::Book, world::World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The database was emptied.
    Emptied,
    /// The database was restored from a backup that is older than the topics.
    Restored,
    /// Records are gone that nobody has read.
    CutOff,
    /// Records are gone that the sink has not read.
    SinkBehind,
}

impl Misfit {
    pub const ALL: &'static [Self] = &[Self::Emptied, Self::Restored, Self::CutOff, Self::SinkBehind];

    /// Words of the reason that a step must give.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Emptied => "the database knows nothing of it",
            Self::Restored => "it is older than the topics",
            Self::CutOff => "records were lost",
            Self::SinkBehind => "rebuild the read model",
        }
    }

    /// Does it, while nobody runs. `more`: records to come.
    pub fn apply(self, world: &mut World, more: Vec<Outgoing>) {
        let books = world.store.progress.iter_mut();
        match self {
            Self::Emptied => world.store.progress.retain(|(book, _), _| *book != Book::Ledger),
            Self::Restored => {
                for (_, row) in books.filter(|((book, _), _)| *book == Book::Ledger) {
                    row.next_offset /= 2;
                    row.emitted_floor = row.emitted_floor.min(row.next_offset);
                }
            }
            Self::CutOff => {
                for record in more {
                    world.put(record);
                }
                world.expire();
            }
            Self::SinkBehind => {
                for (_, row) in books.filter(|((book, _), _)| *book == Book::Sink) {
                    row.next_offset /= 2;
                }
                world.expire();
            }
        }
    }
}
