//! A prefill worker: computes prompts one after the other, and moves each layer while it computes the next.

use super::cache::ShardedCache;
use super::core::{Core, LEASE_TTL, ShardTicket, ending_of, manifest_of};
use super::orders::Orders;
use crate::demo::generation::LogitsDigest;
use crate::demo::protocol::FirstToken;
use crate::model::{KvCache, ModelError, greedy};
use crate::send_recv::to_hex;
use crate::serve::cluster::Member;
use crate::serve::message::{Ending, Job, Passage, Report};
use anyhow::{Context, Result};
use dmaplane_kv::BlockTable;
use dmaplane_kv::exchange::Event;
use dmaplane_kv::transfer::TransferError;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// A prompt that waits for blocks, or for its turn.
pub struct Waiting {
    pub job: Job,
    pub prompt: Vec<u32>,
    pub to: &'static Member,
    pub passages: Vec<Passage>,
}

/// A job whose cache is on its way.
struct UnderWay {
    open: Vec<ShardTicket>,
    /// The memory is leased by us, and not to us.
    is_ours: bool,
    ending: Ending,
    why: String,
    /// When the router wanted it to end, and the memory is not free yet.
    aborted: Option<Instant>,
}

impl UnderWay {
    /// Ends it by order of the router.
    fn abort(&mut self, core: &mut Core) {
        let since = Instant::now();
        self.ending = Ending::Aborted;
        core.abort(&self.open);
        if self.is_ours {
            // Our leases are over, whatever the reader still reads: the blocks are free now.
            core.note_abort(since);
        } else {
            self.aborted = Some(since);
        }
    }
}

#[derive(Default)]
pub struct Prefill {
    waiting: VecDeque<Waiting>,
    under_way: HashMap<Job, UnderWay>,
    jobs: HashMap<ShardTicket, Job>,
}

impl Prefill {
    pub fn jobs(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    pub fn take(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    pub fn abort(&mut self, core: &mut Core, job: Job) -> Result<()> {
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.job == job) {
            self.waiting.remove(index);
            return core.ended(job, Ending::Aborted, "");
        }
        let Some(under_way) = self.under_way.get_mut(&job) else { return Ok(()) };
        under_way.abort(core);
        Ok(())
    }

    pub fn renew(&self, core: &mut Core) {
        core.renew(self.under_way.values().flat_map(|under_way| under_way.open.iter().copied()));
    }

    pub fn on_event(&mut self, core: &mut Core, shard: usize, event: Event) -> Result<()> {
        match event {
            Event::Pushed { ticket, moved } => {
                core.bytes_moved += moved.bytes;
                self.close(core, (shard, ticket), Ending::Done, String::new())
            }
            Event::Served { ticket } => self.close(core, (shard, ticket), Ending::Done, String::new()),
            Event::Aborted { ticket } => self.close(core, (shard, ticket), Ending::Aborted, String::new()),
            Event::Failed { ticket, error } => self.close(core, (shard, ticket), ending_of(&error), error.to_string()),
            _ => Ok(()),
        }
    }

    /// A transfer has ended. One that failed takes the job's others with it.
    fn close(&mut self, core: &mut Core, ticket: ShardTicket, ending: Ending, why: String) -> Result<()> {
        let Some(job) = self.jobs.remove(&ticket) else { return Ok(()) };
        let Some(under_way) = self.under_way.get_mut(&job) else { return Ok(()) };
        under_way.open.retain(|open| *open != ticket);
        if ending != Ending::Done && under_way.ending == Ending::Done {
            under_way.ending = ending;
            under_way.why = why;
            core.abort(&under_way.open);
        }
        self.end_if_closed(core, job)
    }

    fn end_if_closed(&mut self, core: &mut Core, job: Job) -> Result<()> {
        if self.under_way.get(&job).is_none_or(|under_way| !under_way.open.is_empty()) {
            return Ok(());
        }
        let Some(under_way) = self.under_way.remove(&job) else { return Ok(()) };
        if let Some(since) = under_way.aborted {
            core.note_withdrawal(since);
        }
        core.ended(job, under_way.ending, &under_way.why)
    }

    /// Computes the first prompt for which there are blocks and connections; `false`: none.
    pub fn step(&mut self, core: &mut Core) -> Result<bool> {
        let blocks_free = core.blocks_free();
        let can_start = |waiting: &Waiting| {
            let blocks = (waiting.prompt.len() as u32).div_ceil(core.member.role.block_tokens());
            blocks <= blocks_free && core.is_connected(waiting.to)
        };
        let Some(index) = self.waiting.iter().position(can_start) else { return Ok(false) };
        let Some(waiting) = self.waiting.remove(index) else { return Ok(false) };
        self.compute(core, &waiting)?;
        Ok(true)
    }

    fn compute(&mut self, core: &mut Core, waiting: &Waiting) -> Result<()> {
        let job = waiting.job;
        core.report(&Report::Started { job })?;
        let tokens = u32::try_from(waiting.prompt.len())?;
        let tables = core.shards.iter_mut().map(|shard| shard.pool_mut().allocate(tokens));
        let tables = tables.collect::<Result<Vec<BlockTable>, _>>().context("blocks that were free")?;

        let (open, opened) = self.open(core, waiting, &tables);
        self.jobs.extend(open.iter().map(|ticket| (*ticket, job)));
        let is_ours = waiting.passages.is_empty();
        let mut under_way = UnderWay { open, is_ours, ending: Ending::Done, why: String::new(), aborted: None };
        let mut events = Vec::new();
        let streamed = match opened {
            Ok(passages) => {
                if !passages.is_empty() {
                    core.report(&Report::Opened { job, passages })?;
                }
                stream(core, waiting, &tables, &under_way.open, &mut events)
            }
            Err(error) => Err(error),
        };
        match streamed {
            Ok(()) => {
                core.tokens += u64::from(tokens);
                core.report(&Report::Computed { job })?;
            }
            Err(_) if core.orders.would_abort(job) => under_way.abort(core),
            Err(error) => {
                // Whose doing it is says the transfer's own event, where there is one.
                let own = error.downcast_ref::<TransferError>().map_or(Ending::Failed, ending_of);
                let told = events.iter().find_map(|(shard, event)| match event {
                    Event::Failed { ticket, error } if under_way.open.contains(&(*shard, *ticket)) => {
                        Some((ending_of(error), error.to_string()))
                    }
                    _ => None,
                });
                (under_way.ending, under_way.why) = told.unwrap_or_else(|| (own, format!("{error:#}")));
                core.abort(&under_way.open);
            }
        }
        self.under_way.insert(job, under_way);
        for (shard, table) in core.shards.iter_mut().zip(tables) {
            // What still moves keeps its blocks until it has ended.
            shard.pool_mut().release(table)?;
        }
        for (shard, event) in events {
            self.on_event(core, shard, event)?;
        }
        self.end_if_closed(core, job)
    }

    /// Opens the job's transfers: pushes where decode has said where to, else what decode will read.
    fn open(
        &self,
        core: &mut Core,
        waiting: &Waiting,
        tables: &[BlockTable],
    ) -> (Vec<ShardTicket>, Result<Vec<Passage>>) {
        let mut open = Vec::new();
        let mut passages = Vec::new();
        for passage in &waiting.passages {
            let index = passage.prefill_shard as usize;
            let shard = &mut core.shards[index];
            let pushed = manifest_of(passage).and_then(|manifest| {
                let name = waiting.to.shard_name(passage.decode_shard);
                let peer = shard.peer(&name).with_context(|| format!("{name} is not connected"))?;
                Ok(shard.push(peer, &tables[index], &manifest)?)
            });
            match pushed {
                Ok(ticket) => open.push((index, ticket)),
                Err(error) => return (open, Err(error)),
            }
        }
        if !waiting.passages.is_empty() {
            return (open, Ok(passages));
        }
        let far = waiting.to.as_far_side();
        for (index, (shard, table)) in core.shards.iter_mut().zip(tables).enumerate() {
            let peers: Vec<_> = (0..far.shards).map(|reader| shard.peer(&waiting.to.shard_name(reader))).collect();
            let offered = shard.offer(table, &far, &peers, Some(LEASE_TTL)).and_then(|(ticket, manifests)| {
                open.push((index, ticket));
                for (decode_shard, manifest) in manifests {
                    let manifest = to_hex(&manifest.encode()?);
                    passages.push(Passage { prefill_shard: index as u32, decode_shard, manifest });
                }
                Ok(())
            });
            if let Err(error) = offered {
                return (open, Err(TransferError::into(error)));
            }
        }
        (open, Ok(passages))
    }
}

/// The cache of a prompt that is being computed: a layer goes on its way as soon as it is written.
struct Streaming<'a> {
    cache: ShardedCache<'a>,
    open: &'a [ShardTicket],
    is_pull: bool,
    job: Job,
    /// Looked at between layers: an aborted prompt is not computed to its end.
    orders: &'a mut Orders,
    /// What the shards' transfers said meanwhile.
    events: &'a mut Vec<(usize, Event)>,
}

/// It need not be computed any further.
#[derive(Debug, thiserror::Error)]
#[error("a transfer of this prompt ended, or was ordered to, while it was computed")]
struct Ended;

impl Streaming<'_> {
    /// Hands a layer over. `user` is for the last one.
    fn hand_over(&mut self, layer: u32, user: &[u8]) -> Result<(), TransferError> {
        for &(shard, ticket) in self.open {
            let shard = &mut self.cache.shards[shard];
            if self.is_pull {
                shard.ready_layers(ticket, layer..layer + 1, user)?;
            } else {
                shard.send_layers(ticket, layer..layer + 1, user)?;
            }
        }
        Ok(())
    }

    fn poll(&mut self) {
        for (index, shard) in self.cache.shards.iter_mut().enumerate() {
            self.events.extend(shard.poll().into_iter().map(|event| (index, event)));
        }
    }

    fn has_ended(&self) -> bool {
        let is_end = |(shard, event): &(usize, Event)| match event {
            Event::Failed { ticket, .. } | Event::Aborted { ticket } => self.open.contains(&(*shard, *ticket)),
            _ => false,
        };
        self.orders.would_abort(self.job) || self.events.iter().any(is_end)
    }
}

impl KvCache for Streaming<'_> {
    fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) -> Result<(), ModelError> {
        self.cache.write(layer, position, key, value)
    }

    fn read(&self, layer: usize, tokens: usize, keys: &mut Vec<f32>, values: &mut Vec<f32>) -> Result<(), ModelError> {
        self.cache.read(layer, tokens, keys, values)
    }

    fn layer_written(&mut self, layer: usize) -> Result<(), ModelError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ModelError::Cache { layer, source: error };
        let layers = self.cache.shards[0].pool().geometry().layout().layers();
        // The last one waits for the first token, which goes with it.
        if layer as u32 + 1 < layers {
            self.hand_over(layer as u32, b"").map_err(|error| failed(error.into()))?;
        }
        self.poll();
        self.orders.look().map_err(|error| failed(error.into()))?;
        if self.has_ended() { Err(failed(Ended.into())) } else { Ok(()) }
    }
}

/// Computes a prompt and hands it over layer by layer, the first token with the last.
fn stream(
    core: &mut Core,
    waiting: &Waiting,
    tables: &[BlockTable],
    open: &[ShardTicket],
    events: &mut Vec<(usize, Event)>,
) -> Result<()> {
    let is_pull = waiting.passages.is_empty();
    let cache = ShardedCache { shards: &mut core.shards, tables };
    let mut cache = Streaming { cache, open, is_pull, job: waiting.job, orders: &mut core.orders, events };
    let logits = core.model.forward(&waiting.prompt, 0, &mut cache)?;
    let mut digest = LogitsDigest::default();
    digest.add(&logits);
    let first = FirstToken { token: greedy(&logits), logits: digest.value() };
    let last = core.model.shape().layers as u32 - 1;
    Ok(cache.hand_over(last, &first.encode())?)
}
