//! The baton: whoever holds it runs the engine (clauses BAT-1 to BAT-4).
//!
//! One word. A poster puts its event into the inbox first and tries for the baton then. If somebody else holds it, the
//! poster marks it, and the holder cannot let go before it has looked again: no event is left lying.

use dmaplane_ring::atomic::{Atomics, Word};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody has posted since the holder last looked.
const MARKED: u32 = 2;

/// The baton of one context.
#[derive(Debug)]
pub struct Baton<A: Atomics> {
    word: A::U32,
}

/// Whether letting go has worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a holder that was marked still holds the baton"]
pub enum Release {
    /// The baton is free.
    Released,
    /// Somebody posted: the caller still holds it, looks again and tries again.
    LookAgain,
}

impl<A: Atomics> Baton<A> {
    /// Over a word that is 0.
    pub const fn new(word: A::U32) -> Self {
        Baton { word }
    }

    /// Takes the baton, or marks it for its holder. `true`: the caller holds it.
    pub fn take_or_mark(&self) -> bool {
        loop {
            // Acquire, from the exchange: pairs with the release in `let_go`; the engine's state comes with the baton.
            match self.word.compare_exchange(FREE, HELD) {
                Ok(_) => return true,
                Err(MARKED) => {
                    // Already marked, but by a mark that the holder may be just about to consume: the exchange below
                    // orders our post before whatever the holder reads next.
                    if self.word.compare_exchange(MARKED, MARKED).is_ok() {
                        return false;
                    }
                }
                Err(_) => {
                    // Release, from the exchange: pairs with the holder's acquire in `let_go`.
                    if self.word.compare_exchange(HELD, MARKED).is_ok() {
                        return false;
                    }
                }
            }
        }
    }

    /// Takes the baton only if it is free.
    pub fn try_take(&self) -> bool {
        self.word.load_relaxed() == FREE && self.word.compare_exchange(FREE, HELD).is_ok()
    }

    /// Lets go, unless somebody has marked it since [`Baton::look`].
    pub fn let_go(&self) -> Release {
        match self.word.compare_exchange(HELD, FREE) {
            Ok(_) => Release::Released,
            Err(_) => {
                self.look();
                Release::LookAgain
            }
        }
    }

    /// Takes the mark off. The caller holds the baton and looks into the inbox after this.
    pub fn look(&self) {
        // Acquire, from the swap: pairs with the marker's exchange; its post is visible.
        self.word.swap(HELD);
    }
}
