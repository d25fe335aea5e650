//! Workers of some shards, each with an exchange of its own, in one process over a real fabric.
#![allow(dead_code, reason = "each test file uses some of it")]

use dmaplane::{Config, Plane};
use dmaplane_kv::exchange::{Event, Exchange, FarSide, PeerId, Ticket};
use dmaplane_kv::transfer::PagedPool;
use dmaplane_kv::{Attention, BlockTable, CacheLayout, DType, HeadRange, PoolGeometry, Shard, TransferManifest};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const GROUPED: Attention = Attention::GroupedQuery { kv_heads: 4, head_size: 16 };
pub const LATENT: Attention = Attention::Latent { latent_size: 24, rope_size: 8 };
pub const LAYERS: u32 = 3;
/// Longer than anything here takes, were it not stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn model(attention: Attention, block_tokens: u32) -> CacheLayout {
    CacheLayout::new(LAYERS, attention, DType::BF16, block_tokens).unwrap()
}

/// The bytes of one head of one token in a plane, of which no two are alike.
pub fn vector(request: u64, layer: u32, plane: u32, token: u32, head: u32, length: usize) -> Vec<u8> {
    let mut state = request << 40 ^ u64::from(layer) << 32 ^ u64::from(plane) << 28 ^ u64::from(token) << 8;
    state = (state ^ u64::from(head)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        })
        .collect()
}

/// Where each head of each token of a layer lies in a pool, with the head's number in the whole model.
fn places(
    geometry: &PoolGeometry,
    heads: HeadRange,
    table: &BlockTable,
    layer: u32,
) -> Vec<(std::ops::Range<u64>, u32, u32, u32)> {
    let layout = geometry.layout();
    let head_bytes = layout.bytes_per_token_plane() / u64::from(heads.count());
    let mut places = Vec::new();
    for plane in 0..layout.planes() {
        for token in 0..table.tokens() {
            let (block, within) = table.locate(token).unwrap();
            let start = geometry.offset_bytes(layer, plane, block, within).unwrap();
            for head in heads.start..heads.end {
                let start = start + u64::from(head - heads.start) * head_bytes;
                places.push((start..start + head_bytes, plane, token, head));
            }
        }
    }
    places
}

/// Computes a layer of a request: writes this shard's heads of it.
pub fn compute(pool: &mut PagedPool, table: &BlockTable, request: u64, layer: u32) {
    let geometry = *pool.geometry();
    for (range, plane, token, head) in places(&geometry, pool.heads(), table, layer) {
        let bytes = vector(request, layer, plane, token, head, (range.end - range.start) as usize);
        pool.slice_mut(range).unwrap().copy_from_slice(&bytes);
    }
}

/// Whether a pool has exactly this request's vectors: a reference that knows nothing of shards or blocks.
pub fn is_right(pool: &PagedPool, table: &BlockTable, request: u64) -> Result<(), String> {
    for layer in 0..pool.geometry().layout().layers() {
        for (range, plane, token, head) in places(pool.geometry(), pool.heads(), table, layer) {
            let expected = vector(request, layer, plane, token, head, (range.end - range.start) as usize);
            let found = pool.slice(range).map_err(|error| error.to_string())?;
            if found != expected {
                return Err(format!("request {request}: layer {layer}, plane {plane}, token {token}, head {head}"));
            }
        }
    }
    Ok(())
}

/// A worker: its shards' exchanges, and where each listens.
pub struct Worker {
    pub name: &'static str,
    pub shards: Vec<Exchange>,
    pub addresses: Vec<String>,
    pub block_tokens: u32,
    _directory: TempDir,
}

/// A plane of the host that a fabric belongs to.
pub fn open(fabric: &str) -> Plane {
    match fabric {
        "local" => Plane::open_device("/dev/dmaplane", &Config::default()).unwrap(),
        _ => Plane::open(Config::default()).unwrap(),
    }
}

impl Worker {
    pub fn open(name: &'static str, fabric: &str, model: CacheLayout, shards: u32, blocks: u32) -> Worker {
        let directory = tempfile::tempdir().unwrap();
        let (mut exchanges, mut addresses) = (Vec::new(), Vec::new());
        for index in 0..shards {
            let mut plane = open(fabric);
            let shard = Shard::new(index, shards).unwrap();
            let mut pool = PagedPool::of_shard(&mut plane, model, shard, blocks, u64::from(index) + 1).unwrap();
            // What is not written is not right by luck.
            pool.bytes_mut().fill(0xee);
            let mut exchange = Exchange::new(plane, pool, &format!("{name}.{index}")).unwrap();
            let address = match fabric {
                "shm" | "local" => format!("{fabric}:{}", directory.path().join(index.to_string()).display()),
                _ => "tcp:127.0.0.1:0".to_owned(),
            };
            addresses.push(exchange.listen(&address).unwrap());
            exchanges.push(exchange);
        }
        let block_tokens = model.block_tokens();
        Worker { name, shards: exchanges, addresses, block_tokens, _directory: directory }
    }

    /// Dials every shard of another worker from every shard of this one.
    pub fn dial(&mut self, other: &Worker) {
        for exchange in &mut self.shards {
            for (index, address) in other.addresses.iter().enumerate() {
                exchange.dial(&format!("{}.{index}", other.name), address);
            }
        }
    }

    pub fn far_side(&self, part_layers: u32) -> FarSide {
        FarSide { shards: self.shards.len() as u32, block_tokens: self.block_tokens, part_layers }
    }

    /// The shards of another worker as one exchange of this one knows them.
    pub fn peers(&self, shard: usize, other: &Worker) -> Vec<Option<PeerId>> {
        (0..other.shards.len()).map(|index| self.shards[shard].peer(&format!("{}.{index}", other.name))).collect()
    }

    pub fn poll(&mut self) -> Vec<(usize, Event)> {
        let polled = self.shards.iter_mut().enumerate();
        polled.flat_map(|(index, exchange)| exchange.poll().into_iter().map(move |event| (index, event))).collect()
    }
}

/// Polls both until `done` says so.
pub fn turn(one: &mut Worker, other: &mut Worker, mut done: impl FnMut(&mut Worker, &mut Worker) -> bool) {
    let start = Instant::now();
    while !done(one, other) {
        assert!(start.elapsed() < PATIENCE, "stuck");
        std::thread::yield_now();
    }
}

/// Polls one until `done` says so.
pub fn turn_one(worker: &mut Worker, mut done: impl FnMut(&mut Worker) -> bool) {
    let start = Instant::now();
    while !done(worker) {
        assert!(start.elapsed() < PATIENCE, "stuck");
        std::thread::yield_now();
    }
}

/// Connects two workers, each shard with each.
pub fn connect(one: &mut Worker, other: &mut Worker) {
    one.dial(other);
    turn(one, other, |one, other| {
        one.poll();
        other.poll();
        let met = |worker: &Worker, far: &Worker| {
            (0..worker.shards.len()).all(|shard| worker.peers(shard, far).iter().all(Option::is_some))
        };
        met(one, other) && met(other, one)
    });
}

/// How a ticket has ended, once it has.
#[derive(Debug)]
pub enum Outcome {
    Whole(Option<BlockTable>, Vec<u8>),
    Failed(dmaplane_kv::transfer::TransferError),
    Aborted,
}

/// Sorts what has ended by (shard, ticket).
pub fn outcomes(events: Vec<(usize, Event)>) -> Vec<((usize, Ticket), Outcome)> {
    let mut ended = Vec::new();
    for (shard, event) in events {
        let Some(ticket) = event.ended() else { continue };
        let outcome = match event {
            Event::Landed { table, user, .. } | Event::Pulled { table, user, .. } => Outcome::Whole(Some(table), user),
            Event::Failed { error, .. } => Outcome::Failed(error),
            Event::Aborted { .. } => Outcome::Aborted,
            _ => Outcome::Whole(None, Vec::new()),
        };
        ended.push(((shard, ticket), outcome));
    }
    ended
}

/// A manifest as it comes out of a router.
pub fn routed(manifest: &TransferManifest) -> TransferManifest {
    TransferManifest::decode(&manifest.encode().unwrap()).unwrap()
}
