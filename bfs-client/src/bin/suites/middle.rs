//! A figure that was measured several times.

use serde::Serialize;

/// A figure of all rounds: the one in the middle, and the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Middle {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Middle {
    /// Nothing of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[half],
            _ => (values[half - 1] + values[half]) / 2.0,
        };
        Some(Self { median, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_between_the_least_and_the_most() {
        let three = Middle::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!(three, Middle { median: 2.0, least: 1.0, most: 9.0 });
        assert_eq!(Middle::of([1.0, 3.0]).unwrap().median, 2.0);
        assert!(Middle::of([]).is_none());
    }
}
