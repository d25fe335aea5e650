//! The ways in which a pool is cut into fragments, and the lists that name them.

use crate::HeadRange;
use dmaplane::List;

/// Lists that are kept: more than the shards of any two models' workers differ in. Peers say how a transfer is cut, so
/// that without a bound they could fill the plane's table of lists.
const KEPT: usize = 64;

/// A way to cut the pool into fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cut {
    /// Tokens of a fragment.
    pub(crate) tokens: u32,
    /// Heads of a fragment, numbered within the pool.
    pub(crate) heads: HeadRange,
}

/// The lists that were used last, by their cut.
#[derive(Debug, Default)]
pub(crate) struct CutLists {
    /// The one that was used last is the last one.
    lists: Vec<(Cut, List)>,
}

impl CutLists {
    pub(crate) fn has(&self, cut: Cut) -> bool {
        self.lists.iter().any(|(of, _)| *of == cut)
    }

    /// Keeps a list, in the place of the one that was used longest ago. That one is dropped: it ends with a later call,
    /// when the operations that name it are over.
    pub(crate) fn keep(&mut self, cut: Cut, list: List) {
        if self.lists.len() >= KEPT {
            self.lists.remove(0);
        }
        self.lists.push((cut, list));
    }

    pub(crate) fn get_mut(&mut self, cut: Cut) -> Option<&mut List> {
        let place = self.lists.iter().position(|(of, _)| *of == cut)?;
        self.lists[place..].rotate_left(1);
        self.lists.last_mut().map(|(_, list)| list)
    }

    pub(crate) fn into_lists(self) -> impl Iterator<Item = List> {
        self.lists.into_iter().map(|(_, list)| list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::PagedPool;
    use crate::{Attention, CacheLayout, DType};
    use dmaplane::{Config, Plane};

    const HEADS: u32 = 64;

    fn pool(plane: &mut Plane) -> PagedPool {
        let attention = Attention::GroupedQuery { kv_heads: HEADS, head_size: 2 };
        let layout = CacheLayout::new(1, attention, DType::BF16, 4).unwrap();
        PagedPool::new(plane, layout, 2, 1).unwrap()
    }

    #[test]
    fn lists_by_fragment_filled_the_table_of_lists() {
        let mut plane = Plane::open(Config::default()).unwrap();
        let mut pool = pool(&mut plane);
        let ranges = (0..HEADS).flat_map(|start| (start + 1..=HEADS).map(move |end| HeadRange { start, end }));
        let cuts: Vec<Cut> = ranges.map(|heads| Cut { tokens: 1, heads }).collect();
        assert!(cuts.len() > 2 * Config::default().limits.lists as usize, "{}", cuts.len());
        for (number, &cut) in cuts.iter().enumerate() {
            pool.list(&mut plane, cut).unwrap_or_else(|error| panic!("cut {number}: {error}"));
        }
        // What was dropped is ended by the next calls.
        for _ in 0..2 {
            let buffer = plane.alloc(4096).unwrap();
            plane.free(buffer).unwrap();
        }
        let lists = plane.usage().lists as usize;
        assert!((KEPT..KEPT + 3).contains(&lists), "{lists} lists");
        pool.free(&mut plane).unwrap();
        assert!(plane.usage().lists <= 1, "{} lists", plane.usage().lists);
    }

    #[test]
    fn the_list_that_was_used_longest_ago_goes_first() {
        let mut plane = Plane::open(Config::default()).unwrap();
        let mut pool = pool(&mut plane);
        let cut = |start| Cut { tokens: 1, heads: HeadRange { start, end: start + 1 } };
        for start in 0..KEPT as u32 {
            pool.list(&mut plane, cut(start)).unwrap();
        }
        // The first is used again, so that the second is the one to go.
        pool.list(&mut plane, cut(0)).unwrap();
        let other = Cut { heads: HeadRange { start: 0, end: 2 }, ..cut(0) };
        pool.list(&mut plane, other).unwrap();
        let lists = pool.cut_lists();
        assert!(lists.has(cut(0)) && !lists.has(cut(1)) && lists.has(cut(2)) && lists.has(other));
    }
}
