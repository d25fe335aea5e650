//! Timers: a binary heap with a place for each operation and each lease, so that setting one never fails.

use core::ops::DerefMut;

/// One entry of the two arrays that share a table: the heap by position, the deadlines by timer.
#[derive(Clone, Copy, Debug, Hash)]
pub struct TimerSlot {
    /// As heap position: which timer stands here.
    timer: u32,
    /// As timer: where it stands in the heap, or [`UNSET`].
    position: u32,
    /// As timer: when it ends, in the host's nanoseconds.
    deadline_ns: u64,
}

const UNSET: u32 = u32::MAX;

impl TimerSlot {
    /// Not set.
    pub const VACANT: TimerSlot = TimerSlot { timer: 0, position: UNSET, deadline_ns: 0 };
}

/// The heap. The earliest timer stands at position 0.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Timers<M> {
    memory: M,
    length: u32,
}

impl<M: DerefMut<Target = [TimerSlot]>> Timers<M> {
    pub fn new(memory: M) -> Self {
        Timers { memory, length: 0 }
    }

    /// The timer that ends first.
    pub fn earliest(&self) -> Option<(u64, u32)> {
        if self.length == 0 {
            return None;
        }
        let timer = self.at(0);
        Some((self.deadline(timer), timer))
    }

    /// Sets a timer, or sets it anew.
    pub fn set(&mut self, timer: u32, deadline_ns: u64) {
        self.clear(timer);
        let position = self.length;
        let Some(slot) = self.memory.get_mut(timer as usize) else {
            return;
        };
        slot.deadline_ns = deadline_ns;
        self.length += 1;
        self.put(position, timer);
        self.rise(position);
    }

    /// Unsets a timer; nothing happens when it is not set.
    pub fn clear(&mut self, timer: u32) {
        let Some(slot) = self.memory.get_mut(timer as usize) else {
            return;
        };
        let position = slot.position;
        if position == UNSET {
            return;
        }
        slot.position = UNSET;
        self.length -= 1;
        if position != self.length {
            let moved = self.at(self.length);
            self.put(position, moved);
            self.rise(position);
            self.sink(position);
        }
    }

    fn at(&self, position: u32) -> u32 {
        self.memory.get(position as usize).map_or(0, |slot| slot.timer)
    }

    fn deadline(&self, timer: u32) -> u64 {
        self.memory.get(timer as usize).map_or(u64::MAX, |slot| slot.deadline_ns)
    }

    fn put(&mut self, position: u32, timer: u32) {
        if let Some(slot) = self.memory.get_mut(position as usize) {
            slot.timer = timer;
        }
        if let Some(slot) = self.memory.get_mut(timer as usize) {
            slot.position = position;
        }
    }

    fn rise(&mut self, mut position: u32) {
        while position > 0 {
            let parent = (position - 1) / 2;
            let (own, above) = (self.at(position), self.at(parent));
            if self.deadline(above) <= self.deadline(own) {
                return;
            }
            self.put(parent, own);
            self.put(position, above);
            position = parent;
        }
    }

    fn sink(&mut self, mut position: u32) {
        loop {
            let (left, right) = (position * 2 + 1, position * 2 + 2);
            let mut first = position;
            if left < self.length && self.deadline(self.at(left)) < self.deadline(self.at(first)) {
                first = left;
            }
            if right < self.length && self.deadline(self.at(right)) < self.deadline(self.at(first)) {
                first = right;
            }
            if first == position {
                return;
            }
            let (own, below) = (self.at(position), self.at(first));
            self.put(first, own);
            self.put(position, below);
            position = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec;

    proptest::proptest! {
        #[test]
        fn the_earliest_timer_is_the_model_s(
            steps in proptest::collection::vec((0u32..16, proptest::option::of(0u64..50)), 1..200),
        ) {
            let mut timers = Timers::new(vec![TimerSlot::VACANT; 16]);
            let mut model = BTreeMap::new();
            for (timer, step) in steps {
                match step {
                    Some(deadline) => { timers.set(timer, deadline); model.insert(timer, deadline); }
                    None => { timers.clear(timer); model.remove(&timer); }
                }
                proptest::prop_assert_eq!(timers.earliest().map(|(d, _)| d), model.values().copied().min());
                if let Some((deadline, timer)) = timers.earliest() {
                    proptest::prop_assert_eq!(model.get(&timer), Some(&deadline));
                }
            }
        }
    }
}
