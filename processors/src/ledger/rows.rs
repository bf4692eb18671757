//! What a movement does to a stock row. The bounds `0 ≤ picked ≤ reserved ≤ on_hand` are a result, never a refusal: a
//! count that finds less than is pinned leaves the difference in `unbacked`, and so `reserved + unbacked` is always
//! what open fulfilment orders have pinned.

use super::StockRow;

impl StockRow {
    /// Units there that nobody has pinned.
    pub fn free(&self) -> i64 {
        self.on_hand - self.reserved
    }

    /// Pins `units` of what is free.
    pub(super) fn pin(&mut self, units: i64) {
        self.reserved += units;
        self.keep_bounds();
    }

    /// Pins of `units` end, `picked` of them picked before. What was not found is the first to go.
    pub(super) fn unpin(&mut self, units: i64, picked: i64) {
        let unbacked = (units - picked).min(self.unbacked);
        self.unbacked -= unbacked;
        self.reserved -= units - unbacked;
        self.picked -= picked;
        self.keep_bounds();
    }

    /// `units` pinned ones were taken from the shelf. More than were thought to be there: the count was wrong.
    pub(super) fn pick(&mut self, units: i64) {
        let found = (units - (self.reserved - self.picked)).clamp(0, self.unbacked);
        self.unbacked -= found;
        self.reserved += found;
        self.on_hand += found;
        self.picked += units;
        self.keep_bounds();
    }

    /// The location does not find `units` pinned ones (`picked` of them were reported picked): they are not there.
    pub(super) fn short(&mut self, units: i64, picked: i64) {
        let known = (units - picked).min(self.unbacked);
        self.unpin(units, picked);
        self.on_hand -= units - known;
        self.keep_bounds();
    }

    /// `units` pinned ones left, `picked` of them picked before.
    pub(super) fn despatch(&mut self, units: i64, picked: i64) {
        let backed = picked + (units - picked).min(self.reserved - self.picked).max(0);
        self.unbacked -= units - backed;
        self.reserved -= backed;
        self.on_hand -= backed;
        self.picked -= picked;
        self.keep_bounds();
    }

    /// `units` left that nobody had pinned.
    pub(super) fn leave(&mut self, units: i64) {
        self.set_on_hand(self.on_hand - units);
    }

    /// `units` are there, picked ones not among them.
    pub(super) fn count(&mut self, units: i64) {
        self.set_on_hand(units.max(0) + self.picked);
    }

    /// `units` came in; negative: went out.
    pub(super) fn receive(&mut self, units: i64) {
        self.set_on_hand(self.on_hand + units);
    }

    /// What is pinned is divided anew into what is there and what is not. Picked goods are in someone's hands: they
    /// are there, whatever was counted.
    fn set_on_hand(&mut self, on_hand: i64) {
        let pinned = self.reserved + self.unbacked;
        self.on_hand = on_hand.max(self.picked);
        self.reserved = pinned.min(self.on_hand);
        self.unbacked = pinned - self.reserved;
    }

    /// Changes nothing as long as orders and rows agree; if they ever do not, the row still has its bounds.
    fn keep_bounds(&mut self) {
        self.picked = self.picked.max(0);
        self.reserved = self.reserved.max(self.picked);
        self.on_hand = self.on_hand.max(self.reserved);
        self.unbacked = self.unbacked.max(0);
    }
}
