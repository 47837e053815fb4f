//! What is told apart of messages on their way: answered once, twice, out of order, or not at all.
//!
//! [`Flight`] is a sender's side, for messages that come back; [`Track`] a receiver's, for messages of somebody else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Stands for a message that is answered while earlier ones are not.
const ANSWERED: u64 = u64::MAX;
/// Missing messages that one receiver remembers one by one; beyond that a late one counts as a duplicate.
const MISSING_MAX: usize = 1 << 16;

/// Messages of one connection that wait for their answers, in the order they were sent.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// Sequence number of the first in `sent_at`.
    first: u64,
    /// When each was meant to leave.
    sent_at: VecDeque<u64>,
    /// Of `sent_at`, those that are answered.
    answered: usize,
    /// One more than the highest number that was answered.
    highest: u64,
    /// Messages given up as lost; empty in a sound run.
    lost: BTreeSet<u64>,
    /// Messages that something wrong was taken to answer, and when they were meant to leave; empty in a sound run.
    doubted: BTreeMap<u64, u64>,
}

/// What an answer is to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a message that left at this time.
    Sound(u64),
    /// The same, but a later message was answered before.
    Reordered(u64),
    /// To a message that left at this time and was taken for answered by something wrong.
    Doubted(u64),
    /// To a message that had been given up: it was counted as lost, and is not.
    Late,
    /// To a message that was answered before.
    Duplicate,
    /// To a message that was never sent.
    Unknown,
}

impl Flight {
    /// Notes a message and answers its number.
    pub(crate) fn send(&mut self, at: u64) -> u64 {
        self.sent_at.push_back(at);
        self.first + self.sent_at.len() as u64 - 1
    }

    /// The number of the oldest message that waits.
    pub(crate) fn oldest(&self) -> Option<u64> {
        (!self.sent_at.is_empty()).then_some(self.first)
    }

    pub(crate) fn answer(&mut self, sequence: u64) -> Answer {
        let Some(index) = sequence.checked_sub(self.first) else {
            return match self.doubted.remove(&sequence) {
                Some(sent_at) => Answer::Doubted(sent_at),
                None if self.lost.remove(&sequence) => Answer::Late,
                None => Answer::Duplicate,
            };
        };
        let sent_at = if index == 0 {
            // Nearly always: the oldest.
            let Some(sent_at) = self.sent_at.pop_front() else { return Answer::Unknown };
            self.first += 1;
            if self.answered > 0 {
                self.forget_answered();
            }
            sent_at
        } else {
            let Some(slot) = self.sent_at.get_mut(index as usize) else { return Answer::Unknown };
            let sent_at = std::mem::replace(slot, ANSWERED);
            if sent_at == ANSWERED {
                return Answer::Duplicate;
            }
            self.answered += 1;
            sent_at
        };
        let in_order = sequence >= self.highest;
        self.highest = self.highest.max(sequence + 1);
        if in_order { Answer::Sound(sent_at) } else { Answer::Reordered(sent_at) }
    }

    /// Something wrong came: it is taken for the answer to the oldest message, until that one's own comes. Answers
    /// whether one waited.
    pub(crate) fn doubt(&mut self) -> bool {
        let Some(sent_at) = self.sent_at.pop_front() else { return false };
        if self.doubted.len() < MISSING_MAX {
            self.doubted.insert(self.first, sent_at);
        }
        self.highest = self.highest.max(self.first + 1);
        self.first += 1;
        self.forget_answered();
        true
    }

    /// The first is never an answered one.
    fn forget_answered(&mut self) {
        while self.sent_at.front() == Some(&ANSWERED) {
            self.sent_at.pop_front();
            self.first += 1;
            self.answered -= 1;
        }
    }

    /// Gives up what was sent before `before`. Answers when each was sent, in order.
    pub(crate) fn give_up(&mut self, before: u64, mut lost: impl FnMut(u64)) {
        while let Some(&sent_at) = self.sent_at.front()
            && sent_at < before
        {
            self.sent_at.pop_front();
            if self.lost.len() < MISSING_MAX {
                self.lost.insert(self.first);
            }
            self.first += 1;
            lost(sent_at);
            self.forget_answered();
        }
    }
}

/// Messages of one sender as one receiver gets them.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// The number that comes next in order.
    next: u64,
    /// Smaller ones that have not come.
    missing: BTreeSet<u64>,
    /// Of those below this one it is settled what was lost.
    settled: u64,
}

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Sound,
    /// A later one came before.
    Reordered,
    Duplicate,
    /// It had been given up as lost, or came again after that.
    Late,
}

impl Track {
    pub(crate) fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            let skipped = self.next..sequence;
            if skipped.end > skipped.start {
                self.missing.extend(skipped.take(MISSING_MAX - self.missing.len().min(MISSING_MAX)));
            }
            self.next = sequence + 1;
            return Arrival::Sound;
        }
        match self.missing.remove(&sequence) {
            true => Arrival::Reordered,
            false if sequence < self.settled => Arrival::Late,
            false => Arrival::Duplicate,
        }
    }

    /// Of the first `count` messages, those that have not come.
    pub(crate) fn owed(&self, count: u64) -> u64 {
        count.saturating_sub(self.next) + self.missing.len() as u64
    }

    /// Starts at `sequence`: whatever came before is over and done with.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        self.next = self.next.max(sequence);
        self.settled = self.next;
        self.missing.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_order_free_what_they_answer() {
        let mut flight = Flight::default();
        for at in 0..5 {
            assert_eq!(flight.send(at), at);
        }
        for at in 0..5 {
            assert_eq!(flight.answer(at), Answer::Sound(at));
        }
        assert_eq!(flight.oldest(), None);
        assert_eq!(flight.answer(5), Answer::Unknown);
        assert_eq!(flight.answer(2), Answer::Duplicate);
    }

    #[test]
    fn a_swap_is_one_message_out_of_order_and_a_double_is_a_double() {
        let mut flight = Flight::default();
        for at in 10..14 {
            flight.send(at);
        }
        assert_eq!(flight.answer(1), Answer::Sound(11));
        assert_eq!(flight.answer(1), Answer::Duplicate);
        assert_eq!(flight.answer(0), Answer::Reordered(10));
        assert_eq!(flight.oldest(), Some(2));
        assert_eq!(flight.answer(2), Answer::Sound(12));
        assert_eq!(flight.answer(0), Answer::Duplicate);
    }

    #[test]
    fn what_is_given_up_is_late_when_it_comes_and_then_no_more() {
        let mut flight = Flight::default();
        for at in 0..4 {
            flight.send(at);
        }
        assert_eq!(flight.answer(1), Answer::Sound(1));
        let mut lost = Vec::new();
        flight.give_up(3, |at| lost.push(at));
        assert_eq!(lost, [0, 2]);
        assert_eq!(flight.oldest(), Some(3));
        assert_eq!(flight.answer(2), Answer::Late);
        assert_eq!(flight.answer(2), Answer::Duplicate);
    }

    #[test]
    fn what_is_taken_for_answered_may_still_be() {
        let mut flight = Flight::default();
        assert!(!flight.doubt());
        for at in 0..4 {
            flight.send(at);
        }
        assert!(flight.doubt() && flight.doubt());
        assert_eq!(flight.oldest(), Some(2));
        assert_eq!(
            [1, 1, 2].map(|sequence| flight.answer(sequence)),
            [Answer::Doubted(1), Answer::Duplicate, Answer::Sound(2)]
        );
    }

    #[test]
    fn a_receiver_tells_late_from_double() {
        let mut track = Track::default();
        let seen = [0, 2, 1, 1, 5, 3].map(|sequence| track.arrive(sequence));
        use Arrival::{Duplicate, Reordered, Sound};
        assert_eq!(seen, [Sound, Sound, Reordered, Duplicate, Sound, Reordered]);
        assert_eq!(track.owed(7), 2);
        track.skip_to(9);
        assert_eq!([4, 9, 9].map(|sequence| track.arrive(sequence)), [Arrival::Late, Sound, Duplicate]);
    }
}
