//! Who serves: two workers that prefill and two that decode, of one and of two shards each, and what they all agree on.

use crate::model::{ModelError, ModelShape, Transformer};
use anyhow::Result;
use dmaplane_kv::exchange::FarSide;
use dmaplane_kv::{Attention, CacheLayout, DType};

/// Weights follow from this number, the same ones in every process.
const SEED: u64 = 0x00d3_a91a_4e00_0002;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Computes the cache of prompts.
    Prefill,
    /// Generates from the cache.
    Decode,
}

impl Role {
    /// Tokens in a block: not the same on both sides, so that fragments must be cut.
    pub fn block_tokens(self) -> u32 {
        match self {
            Role::Prefill => 32,
            Role::Decode => 16,
        }
    }

    /// Blocks in the pool of each shard: few, so that requests wait for blocks, and every block is used again at once.
    pub fn blocks(self) -> u32 {
        match self {
            Role::Prefill => 14,
            Role::Decode => 96,
        }
    }
}

/// One of the workers.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    pub name: &'static str,
    pub role: Role,
    /// Tensor-parallel shards: each has its heads' part of the cache, and its own plane, pool and connections.
    pub shards: u32,
}

/// The workers. Most requests go from the first of one kind to the first of the other, and from the second to the
/// second: shards 2 to 1 and 1 to 2.
pub const MEMBERS: [Member; 4] = [
    Member { name: "P0", role: Role::Prefill, shards: 2 },
    Member { name: "P1", role: Role::Prefill, shards: 1 },
    Member { name: "D0", role: Role::Decode, shards: 1 },
    Member { name: "D1", role: Role::Decode, shards: 2 },
];

impl Member {
    /// The member of that name.
    pub fn named(name: &str) -> Option<&'static Member> {
        MEMBERS.iter().find(|member| member.name == name)
    }

    /// What one of its shards is called among its peers.
    pub fn shard_name(&self, shard: u32) -> String {
        format!("{}.{shard}", self.name)
    }

    /// What the other side of a transfer has to know of it. Each layer is a part of its own.
    pub fn as_far_side(&self) -> FarSide {
        FarSide { shards: self.shards, block_tokens: self.role.block_tokens(), part_layers: 1 }
    }
}

/// The model that serves.
pub fn model() -> Result<Transformer, ModelError> {
    Transformer::seeded(ModelShape::serving(), SEED)
}

/// The whole model's cache in that role's blocks; each shard has its part of the heads.
pub fn layout(shape: &ModelShape, role: Role) -> Result<CacheLayout> {
    let attention = Attention::GroupedQuery {
        kv_heads: u32::try_from(shape.kv_heads)?,
        head_size: u32::try_from(shape.head_size)?,
    };
    Ok(CacheLayout::new(u32::try_from(shape.layers)?, attention, DType::F32, role.block_tokens())?)
}

/// Whether a shard (which one, of how many) has heads in common with another worker's.
pub fn share_heads(one: (u32, u32), other: (u32, u32)) -> bool {
    one.0 * other.1 < (other.0 + 1) * one.1 && other.0 * one.1 < (one.0 + 1) * other.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_heads_when_their_parts_overlap() {
        assert!(share_heads((0, 1), (0, 1)));
        assert!(share_heads((0, 2), (0, 1)) && share_heads((1, 2), (0, 1)));
        assert!(share_heads((0, 2), (0, 2)) && !share_heads((0, 2), (1, 2)) && !share_heads((1, 2), (0, 2)));
        assert!(share_heads((1, 2), (3, 4)) && !share_heads((1, 2), (1, 4)));
    }

    #[test]
    fn every_member_has_whole_heads_and_room_for_its_longest_request() {
        let shape = ModelShape::serving();
        for member in &MEMBERS {
            assert_eq!(Member::named(member.name), Some(member));
            let layout = layout(&shape, member.role).unwrap();
            assert_eq!(layout.shard(member.shards).unwrap().block_tokens(), member.role.block_tokens());
            let longest = super::super::prompts::TOKENS_MAX as u32;
            assert!(layout.blocks_for(longest) * 2 <= member.role.blocks(), "two of the longest at the same time");
        }
        assert_eq!(Member::named("P7"), None);
    }
}
