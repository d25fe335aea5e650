//! The decode process: gets the cache, its length and the first token, and goes on.

use super::arguments::{DecodeArguments, Fabric, Mode, Sabotage, decode_blocks, decode_layout, load_model};
use super::cache::PagedCache;
use super::child::die_with_parent;
use super::generation::generate;
use super::outcome::DecodeReport;
use super::protocol::{FirstToken, PATIENCE, receive_manifest, send_manifest, send_word};
use anyhow::{Result, ensure};
use dmaplane::{Config, Peer, Plane};
use dmaplane_kv::transfer::{Landing, Moved, PagedPool, pull};
use dmaplane_kv::{BlockTable, PagedSequence, TransferSlots, digest};
use std::io::Write;
use std::time::{Duration, Instant};

const POOL_SEED: u64 = 11;

struct Landed {
    table: BlockTable,
    first: FirstToken,
    moved: Option<(Moved, Duration)>,
}

/// Runs the process; its report goes to standard output.
pub fn decode(arguments: &DecodeArguments) -> Result<()> {
    die_with_parent()?;
    let model = load_model(arguments.model.as_ref(), arguments.shape)?;
    let layout = decode_layout(model.shape())?;
    let mut plane = arguments.host.open(arguments.fabric == Fabric::Local, Config::default())?;
    let mut pool = PagedPool::new(&mut plane, layout, decode_blocks(&layout), POOL_SEED)?;
    let (listener, address) = plane.listen(&arguments.listen)?;
    println!("listening on {address}");
    std::io::stdout().flush()?;
    let peer = plane.accept(&listener, PATIENCE)?;
    tracing::debug!("prefill is connected");
    send_word(&mut plane, &peer, layout.block_tokens())?;
    let mut landed = match arguments.mode {
        Mode::Push => land(&mut plane, &mut pool, &peer, arguments.sabotage)?,
        Mode::Pull => {
            let manifest = receive_manifest(&mut plane, &peer)?;
            let start = Instant::now();
            let (table, moved, user) = pull(&mut plane, &mut pool, &peer, &manifest)?;
            Landed { table, first: FirstToken::decode(&user)?, moved: Some((moved, start.elapsed())) }
        }
    };
    tracing::debug!(tokens = landed.table.tokens(), "the cache is here and verified");
    send_word(&mut plane, &peer, 0)?;
    sabotage(&mut pool, &landed.table, arguments.sabotage)?;
    let cached = landed.table.tokens();
    let digests = digest::of_blocks(PagedSequence::new(pool.geometry(), &landed.table)?, pool.bytes())?;

    while landed.table.capacity_tokens() < u64::from(cached + arguments.tokens) {
        pool.extend(&mut landed.table)?;
    }
    let geometry = *pool.geometry();
    let mut cache = PagedCache { geometry: &geometry, table: &landed.table, bytes: pool.bytes_mut() };
    let generated = generate(&model, &mut cache, cached as usize, landed.first.token, arguments.tokens)?;
    let report = DecodeReport::new(cached, &landed.first, &generated, &digests, landed.moved);
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn land(plane: &mut Plane, pool: &mut PagedPool, peer: &Peer, sabotage: Option<Sabotage>) -> Result<Landed> {
    let offer = receive_manifest(plane, peer)?;
    // One slot for one transfer at a time: its generation alone tells an old transfer from the live one.
    let mut slots = TransferSlots::new(1)?;
    if matches!(sabotage, Some(Sabotage::ReplayGeneration | Sabotage::ReplayLease)) {
        let (aborted, manifest) = Landing::open(plane, pool, &mut slots, peer, &offer)?;
        aborted.abort(plane, pool, &mut slots)?;
        send_manifest(plane, peer, &manifest)?;
    }
    let (mut landing, manifest) = Landing::open(plane, pool, &mut slots, peer, &offer)?;
    send_manifest(plane, peer, &manifest)?;
    loop {
        let arrival = match plane.receive(peer, PATIENCE) {
            Ok(arrival) => arrival,
            Err(error) => {
                landing.abort(plane, pool, &mut slots)?;
                return Err(error.into());
            }
        };
        if landing.arrive(&mut slots, &arrival)? {
            break;
        }
    }
    let (table, notice) = landing.commit(plane, pool, &mut slots)?;
    Ok(Landed { table, first: FirstToken::decode(&notice.user)?, moved: None })
}

/// Breaks what arrived, on request: the comparison must notice.
fn sabotage(pool: &mut PagedPool, table: &BlockTable, sabotage: Option<Sabotage>) -> Result<()> {
    let geometry = *pool.geometry();
    let layout = *geometry.layout();
    let blocks = table.blocks();
    for layer in 0..layout.layers() {
        for plane in 0..layout.planes() {
            let range = |block: u32| -> Result<std::ops::Range<usize>> {
                let range = geometry.block_range(layer, plane, block)?;
                Ok(range.start as usize..range.end as usize)
            };
            match sabotage {
                Some(Sabotage::ZeroBlock) => pool.bytes_mut()[range(blocks[0])?].fill(0),
                Some(Sabotage::SwapBlocks) => {
                    ensure!(blocks.len() > 2, "swapping blocks needs a prompt of three blocks: lengthen it");
                    let (first, second) = (range(blocks[0])?, range(blocks[1])?);
                    let kept = pool.bytes()[first.clone()].to_vec();
                    pool.bytes_mut().copy_within(second.clone(), first.start);
                    pool.bytes_mut()[second].copy_from_slice(&kept);
                }
                _ => {}
            }
        }
    }
    Ok(())
}
