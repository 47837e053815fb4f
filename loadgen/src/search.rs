//! The search for the highest rate that keeps a promise: doubling until one breaks it, then halving the gap.

/// Trials in a row that may tell nothing: the next one would not either.
const MISSED_MAX: u32 = 3;

/// A search between two rates.
#[derive(Debug)]
pub(crate) struct Search {
    next: f64,
    most: f64,
    /// How close the highest rate that kept the promise and the lowest that broke it must lie, as a part.
    precision: f64,
    kept: Option<f64>,
    broken: Option<f64>,
    /// A rate that broke the promise once, by what may have been an accident.
    doubted: Option<f64>,
    /// Trials in a row that told nothing.
    missed: u32,
    reason: Option<String>,
}

impl Search {
    pub(crate) fn new(from: f64, to: f64, precision: f64) -> Self {
        Self { next: from, most: to, precision, kept: None, broken: None, doubted: None, missed: 0, reason: None }
    }

    /// The rate to try; `None` when the search is over.
    pub(crate) fn next_rate(&self) -> Option<f64> {
        self.reason.is_none().then_some(self.next)
    }

    /// The promise held at this rate.
    pub(crate) fn kept(&mut self, rate: f64) {
        self.kept = Some(rate);
        self.missed = 0;
        self.move_on();
    }

    /// The trial told nothing of the server, for this reason. It is made again, and in the end given up.
    pub(crate) fn missed(&mut self, rate: f64, reason: &str) {
        debug_assert!((rate - self.next).abs() < f64::EPSILON * rate);
        self.missed += 1;
        if self.missed == MISSED_MAX {
            self.end(reason.to_owned());
        }
    }

    /// The promise did not hold. Unless it is `clear` why, the rate gets a second chance.
    pub(crate) fn broke(&mut self, rate: f64, clear: bool) {
        self.missed = 0;
        if !clear && self.doubted != Some(rate) {
            self.doubted = Some(rate);
            return;
        }
        self.broken = Some(rate);
        self.move_on();
    }

    fn move_on(&mut self) {
        match (self.kept, self.broken) {
            (Some(kept), Some(broken)) if broken / kept <= 1.0 + self.precision => {
                self.end("the rates that kept and broke the promise are close enough".to_owned());
            }
            (Some(kept), Some(broken)) => self.next = (kept * broken).sqrt(),
            (Some(kept), None) if kept >= self.most => {
                self.end("the promise is kept at the highest rate to try".to_owned());
            }
            (Some(kept), None) => self.next = (2.0 * kept).min(self.most),
            (None, Some(broken)) if broken <= 1.0 => self.end("no rate keeps the promise".to_owned()),
            (None, _) => self.next /= 4.0,
        }
    }

    /// Ends the search for a reason that lies outside of it.
    pub(crate) fn end(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    pub(crate) const fn highest_kept(&self) -> Option<f64> {
        self.kept
    }

    pub(crate) const fn lowest_broken(&self) -> Option<f64> {
        self.broken
    }

    /// Why it is over.
    pub(crate) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(from: f64, to: f64, capacity: f64, accident_at: Option<usize>) -> (Search, usize) {
        let mut search = Search::new(from, to, 0.03);
        let mut trials = 0;
        while let Some(rate) = search.next_rate() {
            trials += 1;
            assert!(trials < 100, "it does not end");
            if rate > capacity {
                search.broke(rate, true);
            } else if accident_at == Some(trials) {
                search.broke(rate, false);
            } else {
                search.kept(rate);
            }
        }
        (search, trials)
    }

    #[test]
    fn a_capacity_is_found_from_below_and_from_above() {
        for from in [100.0, 50_000.0] {
            for capacity in [700.0, 5_000.0, 31_000.0] {
                let (search, trials) = search(from, 1e7, capacity, None);
                let kept = search.highest_kept().expect("some rate is kept");
                assert!(kept <= capacity && kept >= capacity / 1.03, "{kept} of {capacity}");
                assert!(trials <= 20, "{trials} trials");
            }
        }
    }

    #[test]
    fn one_accident_does_not_decide() {
        for trial in 1..8 {
            let (search, _) = search(1_000.0, 1e7, 5_000.0, Some(trial));
            assert!(search.highest_kept().expect("some rate is kept") > 4_800.0, "an accident in trial {trial}");
        }
    }

    #[test]
    fn trials_that_tell_nothing_are_made_again_and_given_up_in_the_end() {
        let mut search = Search::new(100.0, 1_000.0, 0.03);
        for _ in 1..MISSED_MAX {
            search.missed(100.0, "busy");
            assert_eq!(search.next_rate(), Some(100.0));
        }
        search.missed(100.0, "busy");
        assert_eq!((search.next_rate(), search.reason()), (None, "busy"));
    }

    #[test]
    fn the_ends_of_the_range_end_it() {
        let (search, _) = super::tests::search(100.0, 1_000.0, 1e9, None);
        assert_eq!((search.highest_kept(), search.lowest_broken()), (Some(1_000.0), None));
        let (search, _) = super::tests::search(100.0, 1_000.0, 0.0, None);
        assert_eq!(search.highest_kept(), None);
        assert_eq!(search.reason(), "no rate keeps the promise");
    }
}
