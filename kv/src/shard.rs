//! Tensor-parallel shards: who holds which heads, and who talks to whom when n shards meet m.

use crate::attention::Attention;
use crate::layout::{CacheLayout, KV_HEADS_MAX, LayoutError};

/// Most shards: as many as there may be heads.
pub const SHARDS_MAX: u32 = KV_HEADS_MAX;

/// One of `count` tensor-parallel workers. Shard i of n holds KV heads `i * heads / n .. (i + 1) * heads / n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

/// Consecutive KV heads. A latent cache counts as one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeadRange {
    /// The first.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

/// What one source shard gives one destination shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leg {
    /// Index of the source shard.
    pub source: u32,
    /// Index of the destination shard.
    pub destination: u32,
    /// Heads of the whole model that both hold.
    pub heads: HeadRange,
}

impl HeadRange {
    /// How many.
    pub const fn count(&self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Those that both have; `None` when there are none.
    pub fn overlap(&self, other: HeadRange) -> Option<HeadRange> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(HeadRange { start, end })
    }

    /// The same heads, counted from `first`; `None` for heads before it.
    pub fn from_first(&self, first: u32) -> Option<HeadRange> {
        Some(HeadRange { start: self.start.checked_sub(first)?, end: self.end.checked_sub(first)? })
    }
}

impl Shard {
    /// A worker that holds the whole model's cache.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// Shard `index` of `count`.
    pub fn new(index: u32, count: u32) -> Result<Shard, LayoutError> {
        match (count, index < count) {
            (0, _) => Err(LayoutError::NoShards),
            (count, _) if count > SHARDS_MAX => Err(LayoutError::TooManyShards { count }),
            (_, false) => Err(LayoutError::ShardIndex { index, count }),
            _ => Ok(Shard { index, count }),
        }
    }

    /// The heads of the whole model that this shard holds, `layout` being what it holds itself.
    pub fn heads(&self, layout: &CacheLayout) -> Result<HeadRange, LayoutError> {
        Shard::new(self.index, self.count)?;
        match layout.attention() {
            Attention::GroupedQuery { kv_heads, .. } => {
                let all = u64::from(kv_heads) * u64::from(self.count);
                if all > u64::from(KV_HEADS_MAX) {
                    return Err(LayoutError::KvHeads { kv_heads: u32::try_from(all).unwrap_or(u32::MAX) });
                }
                let start = self.index * kv_heads;
                Ok(HeadRange { start, end: start + kv_heads })
            }
            Attention::Latent { .. } => Ok(HeadRange { start: 0, end: 1 }),
        }
    }
}

/// Who gives what to whom between `sources` shards and `destinations` shards of one model, by destination and then by
/// head. Each destination shard takes a latent cache, of which every shard has all, from one source; the sources share
/// that out.
///
/// ```
/// use dmaplane_kv::{HeadRange, Leg, legs, models};
///
/// let model = models::LLAMA_3_8B.layout(16)?;
/// let heads = |start, end| HeadRange { start, end };
/// assert_eq!(legs(&model, 2, 1)?, [
///     Leg { source: 0, destination: 0, heads: heads(0, 4) },
///     Leg { source: 1, destination: 0, heads: heads(4, 8) },
/// ]);
/// assert_eq!(legs(&models::DEEPSEEK_V3.layout(64)?, 2, 4)?.len(), 4);
/// # Ok::<(), dmaplane_kv::LayoutError>(())
/// ```
pub fn legs(model: &CacheLayout, sources: u32, destinations: u32) -> Result<Vec<Leg>, LayoutError> {
    let (source_layout, destination_layout) = (model.shard(sources)?, model.shard(destinations)?);
    let mut legs = Vec::new();
    for destination in 0..destinations {
        let wanted = Shard { index: destination, count: destinations }.heads(&destination_layout)?;
        if let Attention::Latent { .. } = model.attention() {
            let source = (u64::from(destination) * u64::from(sources) / u64::from(destinations)) as u32;
            legs.push(Leg { source, destination, heads: wanted });
            continue;
        }
        for source in 0..sources {
            let there = Shard { index: source, count: sources }.heads(&source_layout)?;
            if let Some(heads) = there.overlap(wanted) {
                legs.push(Leg { source, destination, heads });
            }
        }
    }
    Ok(legs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn model(attention: Attention) -> CacheLayout {
        CacheLayout::new(2, attention, DType::BF16, 16).unwrap()
    }

    #[test]
    fn every_head_has_one_way_to_each_destination() {
        let model = model(Attention::GroupedQuery { kv_heads: 12, head_size: 8 });
        for (sources, destinations) in [(1, 1), (1, 4), (4, 1), (2, 3), (3, 2), (6, 4), (4, 12)] {
            let legs = legs(&model, sources, destinations).unwrap();
            let mut next = 0;
            for leg in &legs {
                assert_eq!(leg.heads.start, next, "{sources} to {destinations}: {legs:?}");
                next = leg.heads.end;
                let of = |index, count| Shard { index, count }.heads(&model.shard(count).unwrap()).unwrap();
                assert_eq!(of(leg.source, sources).overlap(leg.heads), Some(leg.heads));
                assert_eq!(of(leg.destination, destinations).overlap(leg.heads), Some(leg.heads));
            }
            assert_eq!(next, 12);
        }
    }

    #[test]
    fn a_latent_cache_comes_from_one_source_each_and_all_sources_give_some() {
        let model = model(Attention::Latent { latent_size: 8, rope_size: 2 });
        for (sources, destinations) in [(1u32, 4u32), (4, 1), (2, 4), (4, 2), (4, 4)] {
            let legs = legs(&model, sources, destinations).unwrap();
            assert_eq!(legs.len() as u32, destinations);
            let mut used: Vec<u32> = legs.iter().map(|leg| leg.source).collect();
            used.dedup();
            assert_eq!(used.len() as u32, sources.min(destinations));
        }
    }

    #[test]
    fn what_cannot_be_dealt_out_is_refused() {
        let model = model(Attention::GroupedQuery { kv_heads: 8, head_size: 8 });
        assert_eq!(legs(&model, 3, 1), Err(LayoutError::Shards { kv_heads: 8, shards: 3 }));
        assert_eq!(legs(&model, 1, 0), Err(LayoutError::NoShards));
        assert_eq!(Shard::new(2, 2), Err(LayoutError::ShardIndex { index: 2, count: 2 }));
        let many = Shard { index: 0, count: 1 << 10 };
        assert_eq!(many.heads(&model), Err(LayoutError::KvHeads { kv_heads: 8 << 10 }));
        assert_eq!(Shard::new(0, 4097), Err(LayoutError::TooManyShards { count: 4097 }));
    }
}
