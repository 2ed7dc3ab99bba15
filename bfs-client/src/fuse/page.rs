//! How much of a directory to ask for at once.

use bfs_fs::op::{ENTRY_COST, Entry, MAX_NAME};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Learns how large the kernel's directory buffer is, which the mount library does not tell: too small a page costs round
/// trips, too large a one carries entries that are thrown away.
pub struct PageBudget(AtomicU32);

/// One entry always fits.
const LEAST: u32 = MAX_NAME as u32 + ENTRY_COST;
/// What the C library asks the kernel for.
const FIRST: u32 = 32 * 1024;
/// Past this a page takes longer to make than to ask for twice.
const MOST: u32 = 256 * 1024;

impl Default for PageBudget {
    fn default() -> Self {
        Self(AtomicU32::new(FIRST))
    }
}

impl PageBudget {
    /// What to ask for next. Units: as `FsOp::ReadDirectory`.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Takes note that of `entries` the first `taken` fitted the kernel's buffer; `eof`: there were no more to ask for.
    pub fn learn(&self, entries: &[Entry], taken: usize, eof: bool) {
        let budget = match entries.get(..=taken) {
            Some(fitted_and_one) => fitted_and_one.iter().map(cost).sum(),
            None if eof => return,
            // Grows gently: what is found to be too much is lost.
            None => self.get() / 8 * 9,
        };
        self.0.store(budget.clamp(LEAST, MOST), Relaxed);
    }
}

fn cost(entry: &Entry) -> u32 {
    ENTRY_COST.saturating_add(u32::try_from(entry.name.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::fixture::attributes;

    fn entries(count: usize) -> Vec<Entry> {
        let attributes = attributes(2);
        vec![Entry { name: b"ten bytes!".to_vec(), cookie: 1, attributes }; count]
    }

    #[test]
    fn a_page_that_overflows_teaches_what_fits() {
        let page = PageBudget::default();
        page.learn(&entries(100), 40, false);
        assert_eq!(page.get(), 41 * (ENTRY_COST + 10));
    }

    #[test]
    fn a_page_that_fits_lets_the_next_one_grow_to_a_limit() {
        let page = PageBudget::default();
        for _ in 0..100 {
            let before = page.get();
            page.learn(&entries(10), 10, false);
            assert!(page.get() > before || page.get() == MOST);
        }
        assert_eq!(page.get(), MOST);
    }

    #[test]
    fn the_end_of_a_directory_teaches_nothing() {
        let page = PageBudget::default();
        page.learn(&entries(3), 3, true);
        page.learn(&[], 0, true);
        assert_eq!(page.get(), FIRST);
    }

    #[test]
    fn one_entry_always_fits() {
        let page = PageBudget::default();
        page.learn(&entries(2), 0, false);
        assert_eq!(page.get(), LEAST);
    }
}
