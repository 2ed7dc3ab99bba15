//! I-7 of the view timers: a timeout has doubled only as often as views have passed that brought nothing new. (B-34)

use bft_core::types::SequenceNumber;
use std::time::Duration;

/// How long one replica may wait, as far as others can tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Views left since the last one that is known to have brought something new.
    barren: u32,
    progressed: bool,
    /// The last place that a NEW-VIEW chose: what executes up to there is nothing new.
    chosen: SequenceNumber,
}

impl Patience {
    /// It has restarted, and begins with its first timeout again.
    pub fn restart(&mut self) {
        *self = Self { chosen: self.chosen, ..Self::default() };
    }

    /// It leaves its view.
    pub fn end_view(&mut self) {
        self.barren = if self.progressed { 0 } else { self.barren + 1 };
        self.progressed = false;
    }

    /// A view begins, with batches up to `last`.
    pub fn begin_view(&mut self, last: SequenceNumber) {
        self.chosen = self.chosen.max(last);
    }

    /// A batch with requests has committed at `n` in a view that has begun.
    pub fn execute(&mut self, n: SequenceNumber) {
        self.progressed |= n > self.chosen;
    }

    /// It sets its timer for `span`; its first timeout is `base`.
    ///
    /// Errors: I-7, where it waits too long.
    pub fn check(&self, span: Duration, base: Duration) -> Result<(), String> {
        let most = base.saturating_mul(1 << self.barren.min(30));
        if span <= most {
            return Ok(());
        }
        Err(format!("it waits for {span:?} after {} views without progress", self.barren))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_view_that_brought_nothing_doubles_the_timeout() {
        let second = Duration::from_secs(1);
        let mut patience = Patience::default();
        assert!(patience.check(second, second).is_ok());
        assert!(patience.check(second * 2, second).is_err());
        patience.end_view();
        patience.begin_view(SequenceNumber(4));
        assert!(patience.check(second * 2, second).is_ok());
        patience.execute(SequenceNumber(4));
        patience.end_view();
        assert!(patience.check(second * 4, second).is_ok(), "what was chosen is nothing new");
        patience.execute(SequenceNumber(5));
        patience.end_view();
        assert!(patience.check(second * 2, second).is_err());
    }
}
