//! Prefill and decode as the model does them, wherever the cache lies; and both in one process, to compare with.

use super::arguments::{CommonArguments, decode_layout, load_model, prefill_layout};
use super::cache::PagedCache;
use crate::model::{Transformer, greedy};
use anyhow::Result;
use dmaplane_kv::{BlockAllocator, BlockTable, Digest64, PagedSequence, PoolGeometry, digest};
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// What a generation produced.
pub struct Generated {
    pub tokens: Vec<u32>,
    /// Digest of the logits of every step, bit for bit.
    pub logits: u64,
}

/// A running digest of logits.
#[derive(Default)]
pub struct LogitsDigest(XxHash3_64);

impl LogitsDigest {
    pub fn add(&mut self, logits: &[f32]) {
        for logit in logits {
            self.0.write(&logit.to_le_bytes());
        }
    }

    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

/// Generates on from `first`, whose logits are the prefill's, with the cache of the tokens before it.
pub fn generate(
    model: &Transformer,
    cache: &mut PagedCache<'_>,
    cached_tokens: usize,
    first: u32,
    count: u32,
) -> Result<Generated> {
    let mut tokens = vec![first];
    let mut digest = LogitsDigest::default();
    for step in 1..count as usize {
        let last = tokens[step - 1];
        let logits = model.forward(&[last], cached_tokens + step - 1, cache)?;
        digest.add(&logits);
        tokens.push(greedy(&logits));
    }
    Ok(Generated { tokens, logits: digest.value() })
}

/// The run that the two processes are compared with.
pub struct Reference {
    pub prompt_tokens: usize,
    pub prefill_logits: u64,
    pub generated: Generated,
    /// Of the prompt's blocks in decode's block size, in token order.
    pub blocks: Vec<Digest64>,
    pub bytes_per_token: u64,
}

/// Does everything in this process, in plain memory, without dmaplane.
pub fn in_one_process(arguments: &CommonArguments) -> Result<Reference> {
    let model = load_model(arguments.model.as_ref(), arguments.shape)?;
    let prompt = arguments.prompt_tokens(model.shape())?;
    let layout = decode_layout(model.shape())?;
    let room = prompt.len() as u32 + arguments.tokens;
    let blocks = layout.blocks_for(room);
    let geometry = PoolGeometry::new(layout, blocks)?;
    let all = BlockAllocator::scattered(blocks, 1).allocate(blocks)?;
    let table = BlockTable::new(layout.block_tokens(), all, room)?;
    let mut bytes = vec![0; geometry.size_bytes() as usize];
    let mut cache = PagedCache { geometry: &geometry, table: &table, bytes: &mut bytes };

    let logits = model.forward(&prompt, 0, &mut cache)?;
    let mut prefill_logits = LogitsDigest::default();
    prefill_logits.add(&logits);
    let used = table.blocks()[..layout.blocks_for(prompt.len() as u32) as usize].to_vec();
    let prompt_table = BlockTable::new(layout.block_tokens(), used, prompt.len() as u32)?;
    let blocks = digest::of_blocks(PagedSequence::new(&geometry, &prompt_table)?, cache.bytes)?;
    let generated = generate(&model, &mut cache, prompt.len(), greedy(&logits), arguments.tokens)?;
    Ok(Reference {
        prompt_tokens: prompt.len(),
        prefill_logits: prefill_logits.value(),
        generated,
        blocks,
        bytes_per_token: prefill_layout(model.shape())?.bytes_per_token(),
    })
}
