//! How a transfer is shared out into parts, of which each is one operation with one notification.
//!
//! A part never spans groups of `part_layers` layers, so that a group can leave while the next is computed; a group of
//! more than `part_fragments` fragments is several parts. Parts are numbered through, group by group. Both sides
//! compute the same from what the manifest says.

use core::ops::Range;

/// The parts of one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    layers: u32,
    layer_fragments: u64,
    part_layers: u32,
    part_fragments: u32,
}

impl Parting {
    /// Of `layers` layers with `layer_fragments` fragments each. All four are at least 1 from here on.
    pub fn new(layers: u32, layer_fragments: u64, part_layers: u32, part_fragments: u32) -> Parting {
        let layers = layers.max(1);
        Parting {
            layers,
            layer_fragments: layer_fragments.max(1),
            part_layers: part_layers.clamp(1, layers),
            part_fragments: part_fragments.max(1),
        }
    }

    /// Fragments of a whole group. (Layers are 4,096 at most and fragments fit 32 bits: nothing here overflows.)
    fn group_fragments(&self) -> u64 {
        u64::from(self.part_layers) * self.layer_fragments
    }

    fn group_parts(&self) -> u64 {
        self.group_fragments().div_ceil(self.part_fragments.into())
    }

    /// Fragments of all parts together.
    pub fn fragments(&self) -> u64 {
        u64::from(self.layers) * self.layer_fragments
    }

    /// Layers of all parts together.
    pub fn layers(&self) -> u32 {
        self.layers
    }

    /// How many parts.
    pub fn parts(&self) -> u64 {
        let (groups, rest) = (self.layers / self.part_layers, self.layers % self.part_layers);
        let rest_fragments = u64::from(rest) * self.layer_fragments;
        u64::from(groups) * self.group_parts() + rest_fragments.div_ceil(self.part_fragments.into())
    }

    /// The fragments of a part, numbered as a [`FragmentPlan`](crate::FragmentPlan) numbers them; `None` for a part
    /// that there is not.
    pub fn part(&self, part: u32) -> Option<Range<u64>> {
        let (group, chunk) = (u64::from(part) / self.group_parts(), u64::from(part) % self.group_parts());
        let group_end = ((group + 1) * self.group_fragments()).min(self.fragments());
        let start = group * self.group_fragments() + chunk * u64::from(self.part_fragments);
        let end = group_end.min(start + u64::from(self.part_fragments));
        (start < end).then_some(start..end)
    }

    /// Fragments of a part, 0 for one that there is not.
    pub fn part_fragments(&self, part: u32) -> u64 {
        self.part(part).map_or(0, |range| range.end - range.start)
    }

    /// How many groups of layers there are.
    pub fn groups(&self) -> u32 {
        self.layers.div_ceil(self.part_layers)
    }

    /// A group's layers.
    pub fn group_layers(&self, group: u32) -> Range<u32> {
        let start = group.saturating_mul(self.part_layers).min(self.layers);
        start..start.saturating_add(self.part_layers).min(self.layers)
    }

    /// A group's parts.
    pub fn group_part_numbers(&self, group: u32) -> Range<u32> {
        let (first, all) = (u64::from(group) * self.group_parts(), self.parts());
        let end = (first + self.group_parts()).min(all);
        // There are no more parts than fragments, which fit 32 bits.
        first.min(all) as u32..end as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_fragment_once_and_span_no_groups() {
        for (layers, layer_fragments, part_layers, part_fragments) in
            [(1, 1, 1, 1), (7, 5, 3, 4), (7, 5, 7, 100), (7, 5, 1, 5), (8, 6, 4, 24), (5, 3, 2, 7), (3, 10, 3, 7)]
        {
            let parting = Parting::new(layers, layer_fragments, part_layers, part_fragments);
            let mut next = 0;
            let mut numbers = 0;
            for group in 0..parting.groups() {
                let of_layers = parting.group_layers(group);
                for part in parting.group_part_numbers(group) {
                    assert_eq!(part, numbers);
                    numbers += 1;
                    let range = parting.part(part).unwrap();
                    assert_eq!(range.start, next);
                    assert!(range.end - range.start <= u64::from(part_fragments));
                    assert!(range.end <= u64::from(of_layers.end) * layer_fragments);
                    next = range.end;
                }
                assert_eq!(next, u64::from(of_layers.end) * layer_fragments);
            }
            assert_eq!((u64::from(numbers), next), (parting.parts(), parting.fragments()));
            assert_eq!(parting.part(numbers), None);
            assert_eq!(parting.part(u32::MAX), None);
        }
    }
}
