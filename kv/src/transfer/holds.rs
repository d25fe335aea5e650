//! Which blocks somebody else may touch at the moment: peers under leases, and our own operations in flight.

use core::ops::Range;
use std::sync::Arc;

/// What is done to the blocks that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// They are read, those layers that are sealed.
    Reads,
    /// They are written, all layers.
    Writes,
}

/// A hold on blocks; to be let go of when nobody touches them any more on its account.
#[derive(Debug)]
#[must_use = "let it go when nobody touches the blocks any more"]
pub(crate) struct Hold {
    /// Whose it is: block numbers mean something else in another pool.
    pool: Arc<()>,
    blocks: Vec<u32>,
    access: Access,
    /// By layer, whether this hold has sealed it.
    sealed: Vec<bool>,
}

/// What is under way on one block.
#[derive(Debug, Clone, Default)]
struct Held {
    /// Holds that read it, or are going to.
    readers: u32,
    /// Holds that write it.
    writers: u32,
    /// By layer, how many of the readers may be reading that. Empty: none any.
    sealed: Vec<u32>,
}

/// Of one pool.
#[derive(Debug)]
pub(crate) struct Holds {
    /// Shared with its holds, and nobody else's while one of them is there.
    pool: Arc<()>,
    layers: u32,
    blocks: Vec<Held>,
    readers: u32,
    writers: u32,
}

impl Holds {
    pub(crate) fn new(layers: u32, blocks: u32) -> Holds {
        Holds { pool: Arc::new(()), layers, blocks: vec![Held::default(); blocks as usize], readers: 0, writers: 0 }
    }

    /// Begins a hold. A writer has everything at once; a reader only what is [sealed](Holds::seal).
    pub(crate) fn hold(&mut self, blocks: &[u32], access: Access) -> Hold {
        self.count(blocks, access, 1);
        Hold { pool: self.pool.clone(), blocks: blocks.to_vec(), access, sealed: vec![false; self.layers as usize] }
    }

    /// Whether a hold was begun here. Another pool's changes nothing here: it would let go of blocks that a peer may
    /// be writing to.
    pub(crate) fn is_own(&self, hold: &Hold) -> bool {
        Arc::ptr_eq(&self.pool, &hold.pool)
    }

    /// These layers may be read from now on, and are not to be changed.
    pub(crate) fn seal(&mut self, hold: &mut Hold, layers: Range<u32>) {
        if !self.is_own(hold) {
            return;
        }
        let all = self.layers as usize;
        for layer in layers {
            let Some(sealed) = hold.sealed.get_mut(layer as usize).filter(|sealed| !**sealed) else { continue };
            *sealed = true;
            for &block in &hold.blocks {
                if let Some(held) = self.blocks.get_mut(block as usize) {
                    held.sealed.resize(all, 0);
                    held.sealed[layer as usize] += 1;
                }
            }
        }
    }

    /// Nobody touches the blocks on that account any more.
    pub(crate) fn let_go(&mut self, hold: Hold) {
        if !self.is_own(&hold) {
            return;
        }
        for &block in &hold.blocks {
            let Some(held) = self.blocks.get_mut(block as usize) else { continue };
            for (count, _) in held.sealed.iter_mut().zip(&hold.sealed).filter(|(_, sealed)| **sealed) {
                *count = count.saturating_sub(1);
            }
        }
        self.count(&hold.blocks, hold.access, -1);
    }

    fn count(&mut self, blocks: &[u32], access: Access, by: i32) {
        let add = |readers: &mut u32, writers: &mut u32| match access {
            Access::Reads => *readers = readers.saturating_add_signed(by),
            Access::Writes => *writers = writers.saturating_add_signed(by),
        };
        for &block in blocks {
            if let Some(held) = self.blocks.get_mut(block as usize) {
                add(&mut held.readers, &mut held.writers);
            }
        }
        add(&mut self.readers, &mut self.writers);
    }

    /// Whether anybody may write anything.
    pub(crate) fn any_writer(&self) -> bool {
        self.writers > 0
    }

    /// Whether anybody may touch anything.
    pub(crate) fn any(&self) -> bool {
        self.writers + self.readers > 0
    }

    /// Whether the block is held at all: then it is nobody else's yet.
    pub(crate) fn is_held(&self, block: u32) -> bool {
        self.blocks.get(block as usize).is_some_and(|held| held.readers + held.writers > 0)
    }

    /// Whether somebody may be writing to the block.
    pub(crate) fn is_written(&self, block: u32) -> bool {
        self.blocks.get(block as usize).is_some_and(|held| held.writers > 0)
    }

    /// Whether somebody may be touching that layer of the block.
    pub(crate) fn is_touched(&self, layer: u32, block: u32) -> bool {
        let held = self.blocks.get(block as usize);
        held.is_some_and(|held| held.writers > 0 || held.sealed.get(layer as usize).is_some_and(|&count| count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_holds_blocks_and_seals_layers_one_by_one() {
        let mut holds = Holds::new(3, 4);
        let mut first = holds.hold(&[1, 3], Access::Reads);
        let mut second = holds.hold(&[3], Access::Reads);
        assert!(holds.is_held(1) && holds.is_held(3) && !holds.is_held(0));
        assert!(!holds.is_touched(0, 3), "nothing is sealed yet");
        holds.seal(&mut first, 0..2);
        holds.seal(&mut first, 1..2);
        holds.seal(&mut second, 1..2);
        assert!(holds.is_touched(1, 3) && holds.is_touched(0, 1) && !holds.is_touched(2, 3));
        assert!(!holds.any_writer() && !holds.is_written(3));
        holds.let_go(first);
        assert!(holds.is_touched(1, 3), "the second one still may");
        assert!(!holds.is_touched(0, 3) && !holds.is_held(1));
        holds.let_go(second);
        assert!(!holds.any() && !holds.is_touched(1, 3));
    }

    #[test]
    fn a_hold_of_another_pool_let_go_of_this_one_s_blocks() {
        let [mut one, mut other] = [Holds::new(1, 2), Holds::new(1, 2)];
        let (of_one, of_other) = (one.hold(&[0], Access::Writes), other.hold(&[0], Access::Writes));
        one.let_go(of_other);
        assert!(one.is_written(0) && one.any_writer() && other.is_written(0), "a peer still writes to both");
        let mut reader = other.hold(&[1], Access::Reads);
        one.seal(&mut reader, 0..1);
        assert!(!one.is_touched(0, 1) && !other.is_touched(0, 1), "nothing is sealed by the wrong pool");
        other.seal(&mut reader, 0..1);
        assert!(other.is_touched(0, 1), "and then by the right one");
        one.let_go(of_one);
        assert!(!one.any());
    }

    #[test]
    fn a_writer_touches_every_layer_at_once() {
        let mut holds = Holds::new(2, 2);
        let hold = holds.hold(&[0], Access::Writes);
        assert!(holds.is_touched(1, 0) && holds.is_written(0) && holds.any_writer() && !holds.is_touched(0, 1));
        holds.let_go(hold);
        assert!(!holds.any() && !holds.is_held(0));
    }
}
