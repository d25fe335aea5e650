//! The prefill process: computes the prompt's cache and hands it over.

use super::arguments::{Fabric, Mode, PrefillArguments, Sabotage, load_model, prefill_layout};
use super::cache::PagedCache;
use super::child::die_with_parent;
use super::generation::LogitsDigest;
use super::outcome::PrefillReport;
use super::protocol::{FirstToken, PATIENCE, receive_manifest, receive_word, send_manifest};
use crate::model::greedy;
use anyhow::{Result, ensure};
use dmaplane::Config;
use dmaplane_kv::TransferManifest;
use dmaplane_kv::transfer::{PagedPool, Source, push};
use std::time::Instant;

const POOL_SEED: u64 = 7;

/// Runs the process; its report goes to standard output.
pub fn prefill(arguments: &PrefillArguments) -> Result<()> {
    die_with_parent()?;
    let common = &arguments.common;
    ensure!(common.sabotage != Some(Sabotage::NoPrefill), "ended before it connected, as --sabotage asked");
    let mut plane = arguments.common.host.open(arguments.common.fabric == Fabric::Local, Config::default())?;
    // First of all, so that decode notices at once when anything of the following fails.
    let peer = plane.connect(&arguments.to, PATIENCE)?;
    tracing::debug!(to = arguments.to, "connected to decode");
    let model = load_model(common.model.as_ref(), common.shape)?;
    let prompt = common.prompt_tokens(model.shape())?;
    let tokens = u32::try_from(prompt.len())?;
    let layout = prefill_layout(model.shape())?;
    // Twice the room that is needed, so that the blocks lie scattered.
    let mut pool = PagedPool::new(&mut plane, layout, layout.blocks_for(tokens) * 2, POOL_SEED)?;
    let table = pool.allocate(tokens)?;
    let geometry = *pool.geometry();
    let mut cache = PagedCache { geometry: &geometry, table: &table, bytes: pool.bytes_mut() };
    let logits = model.forward(&prompt, 0, &mut cache)?;
    let mut digest = LogitsDigest::default();
    digest.add(&logits);
    let first = FirstToken { token: greedy(&logits), logits: digest.value() };
    tracing::debug!(tokens, "the prompt's cache is computed");

    let decode_block_tokens = receive_word(&mut plane, &peer)?;
    let report = match common.mode {
        Mode::Push => {
            let offer = pool.describe(&table)?;
            send_manifest(&mut plane, &peer, &offer)?;
            let mut theirs = receive_manifest(&mut plane, &peer)?;
            if matches!(common.sabotage, Some(Sabotage::ReplayGeneration | Sabotage::ReplayLease)) {
                // Decode has aborted that one; the second is the live one.
                let (aborted, live) = (theirs, receive_manifest(&mut plane, &peer)?);
                theirs = match common.sabotage {
                    Some(Sabotage::ReplayGeneration) => TransferManifest { transfer: aborted.transfer, ..live },
                    _ => TransferManifest { lease_token: aborted.lease_token, ..live },
                };
            }
            let start = Instant::now();
            let moved = push(&mut plane, &mut pool, &peer, &table, &theirs, &first.encode())?;
            tracing::debug!(bytes = moved.bytes, fragments = moved.fragments, "the cache is written");
            PrefillReport::new(moved, start.elapsed())
        }
        Mode::Pull => {
            let user = first.encode();
            let (source, manifest) = Source::open(&mut plane, &mut pool, &peer, &table, decode_block_tokens, &user)?;
            if common.sabotage == Some(Sabotage::ReplayLease) {
                // The lease that the manifest names is over before decode reads under it.
                source.close(&mut plane, &mut pool)?;
                send_manifest(&mut plane, &peer, &manifest)?;
                receive_word(&mut plane, &peer)?;
                anyhow::bail!("decode took a cache under a lease that was over");
            }
            send_manifest(&mut plane, &peer, &manifest)?;
            receive_word(&mut plane, &peer)?;
            source.close(&mut plane, &mut pool)?;
            PrefillReport::default()
        }
    };
    if common.mode == Mode::Push {
        // Decode has everything; leave only when it says so.
        receive_word(&mut plane, &peer)?;
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
