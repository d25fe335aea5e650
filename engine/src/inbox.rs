//! The inbox: many post, the baton's holder takes (clauses INBOX-1 to INBOX-4).
//!
//! A bounded queue of word-sized atomics with a sequence number a slot. It cannot be overrun: a host posts only what
//! the engine has started or connected, and makes the inbox as long as that can be
//! ([`Limits::inbox_slots`](crate::Limits::inbox_slots)).

use crate::event::{EVENT_WORDS, Event};
use dmaplane_ring::atomic::{Atomics, Word};

/// One slot.
#[derive(Debug)]
pub struct InboxSlot<A: Atomics> {
    /// `position` when free for the post of that number, `position + 1` when it holds that post.
    sequence: A::U32,
    words: [A::U64; EVENT_WORDS],
}

impl<A: Atomics> InboxSlot<A> {
    /// Slot number `position` of a new inbox; `word32` and `word64` make zeroed atomics.
    pub fn new(position: u32, word32: impl Fn(u32) -> A::U32, word64: impl Fn() -> A::U64) -> Self {
        InboxSlot { sequence: word32(position), words: core::array::from_fn(|_| word64()) }
    }
}

/// The inbox over slots that the host hands in; their number is a power of two.
#[derive(Debug)]
pub struct Inbox<A: Atomics, B: AsRef<[InboxSlot<A>]>> {
    slots: B,
    /// Posts begun.
    tail: A::U32,
    /// Posts taken; only the baton's holder writes.
    head: A::U32,
}

impl<A: Atomics, B: AsRef<[InboxSlot<A>]>> Inbox<A, B> {
    /// `None` unless the number of slots is a power of two and not one: a single slot that holds a post would look free
    /// for the next. `tail` and `head` are zeroed words.
    pub fn new(slots: B, tail: A::U32, head: A::U32) -> Option<Self> {
        let count = slots.as_ref().len();
        (count.is_power_of_two() && count > 1).then_some(Inbox { slots, tail, head })
    }

    /// Posts an event. `false`: the inbox is full, which the sizing rule excludes; the caller must treat it as fatal.
    pub fn post(&self, event: &Event) -> bool {
        let slots = self.slots.as_ref();
        let mask = slots.len() as u32 - 1;
        // Acquire, here and below: pairs with the exchange of the poster before; the takes that made room for its post
        // come with the count. Else the slot could look as it was before them, full.
        let mut position = self.tail.load_acquire();
        loop {
            let Some(slot) = slots.get((position & mask) as usize) else {
                return false;
            };
            // Acquire: pairs with the release in `take`; the words were read before we rewrite them.
            let sequence = slot.sequence.load_acquire();
            let ahead = sequence.wrapping_sub(position) as i32;
            if ahead < 0 {
                return false;
            }
            if ahead > 0 {
                position = self.tail.load_acquire();
                continue;
            }
            match self.tail.compare_exchange(position, position.wrapping_add(1)) {
                Err(now) => position = now,
                Ok(_) => {
                    for (word, value) in slot.words.iter().zip(event.encode()) {
                        word.store_relaxed(value);
                    }
                    // Release: pairs with the acquire in `take`; the words come before the number.
                    slot.sequence.store_release(position.wrapping_add(1));
                    return true;
                }
            }
        }
    }

    /// Takes the oldest event. Only the baton's holder may call this.
    pub fn take(&self) -> Option<Event> {
        let slots = self.slots.as_ref();
        let mask = slots.len() as u32 - 1;
        let position = self.head.load_relaxed();
        let slot = slots.get((position & mask) as usize)?;
        // Acquire: pairs with the release in `post`.
        if slot.sequence.load_acquire() != position.wrapping_add(1) {
            return None;
        }
        let mut words = [0; EVENT_WORDS];
        for (value, word) in words.iter_mut().zip(&slot.words) {
            *value = word.load_relaxed();
        }
        // Release: pairs with the acquire in `post` of the next round.
        slot.sequence.store_release(position.wrapping_add(slots.len() as u32));
        self.head.store_relaxed(position.wrapping_add(1));
        Event::decode(&words)
    }

    /// Whether nothing is there to take.
    pub fn is_empty(&self) -> bool {
        let slots = self.slots.as_ref();
        let position = self.head.load_relaxed();
        let slot = slots.get((position & (slots.len() as u32 - 1)) as usize);
        // Acquire: as in `take`.
        slot.is_none_or(|slot| slot.sequence.load_acquire() != position.wrapping_add(1))
    }
}
