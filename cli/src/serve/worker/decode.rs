//! A decode worker: takes caches in as they come, and generates on, a token of each request in turn.

use super::cache::ShardedCache;
use super::core::{Core, LEASE_TTL, ShardTicket, ending_of, manifest_of};
use crate::demo::generation::LogitsDigest;
use crate::demo::protocol::FirstToken;
use crate::model::greedy;
use crate::send_recv::to_hex;
use crate::serve::Mode;
use crate::serve::cluster::Member;
use crate::serve::message::{Answer, Ending, Job, Passage, Report};
use anyhow::{Context, Result, ensure};
use dmaplane_kv::exchange::Event;
use dmaplane_kv::transfer::Moved;
use dmaplane_kv::{BlockTable, TransferManifest};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// A request that waits for blocks.
pub struct Waiting {
    pub job: Job,
    pub prompt_tokens: u32,
    pub generate: u32,
    pub from: &'static Member,
    pub passages: Vec<Passage>,
}

/// A request whose cache is on its way.
struct Landing {
    generate: u32,
    prompt_tokens: u32,
    open: Vec<ShardTicket>,
    /// By shard, as they land.
    tables: Vec<Option<BlockTable>>,
    user: Option<Vec<u8>>,
    ending: Ending,
    why: String,
    /// When the router wanted it to end, and the memory is not free yet.
    aborted: Option<Instant>,
}

/// A request that generates.
struct Active {
    job: Job,
    prompt_tokens: u32,
    generate: u32,
    tables: Vec<BlockTable>,
    tokens: Vec<u32>,
    first_logits: u64,
    logits: LogitsDigest,
}

pub struct Decode {
    mode: Mode,
    waiting: VecDeque<Waiting>,
    landings: HashMap<Job, Landing>,
    jobs: HashMap<ShardTicket, Job>,
    /// Whose turn is first.
    active: VecDeque<Active>,
}

impl Decode {
    pub fn new(mode: Mode) -> Decode {
        Decode {
            mode,
            waiting: VecDeque::new(),
            landings: HashMap::new(),
            jobs: HashMap::new(),
            active: VecDeque::new(),
        }
    }

    pub fn jobs(&self) -> usize {
        self.waiting.len() + self.landings.len() + self.active.len()
    }

    pub fn take(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    pub fn abort(&mut self, core: &mut Core, job: Job) -> Result<()> {
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.job == job) {
            self.waiting.remove(index);
            return core.ended(job, Ending::Aborted, "");
        }
        if let Some(index) = self.active.iter().position(|active| active.job == job) {
            let active = self.active.remove(index).context("it was there")?;
            release(core, active.tables)?;
            return core.ended(job, Ending::Aborted, "");
        }
        let Some(landing) = self.landings.get_mut(&job) else { return Ok(()) };
        let since = Instant::now();
        landing.ending = Ending::Aborted;
        core.abort(&landing.open);
        if self.mode == Mode::Push {
            // Our leases are over, whatever the sender still writes: the blocks are free now.
            core.note_abort(since);
        } else {
            landing.aborted = Some(since);
        }
        Ok(())
    }

    pub fn renew(&self, core: &mut Core) {
        if self.mode == Mode::Push {
            core.renew(self.landings.values().flat_map(|landing| landing.open.iter().copied()));
        }
    }

    pub fn on_event(&mut self, core: &mut Core, shard: usize, event: Event) -> Result<()> {
        match event {
            Event::Landed { ticket, table, user, moved } | Event::Pulled { ticket, table, user, moved } => {
                self.on_landed(core, (shard, ticket), table, user, moved)
            }
            Event::Aborted { ticket } => self.close(core, (shard, ticket), Ending::Aborted, String::new()),
            Event::Failed { ticket, error } => self.close(core, (shard, ticket), ending_of(&error), error.to_string()),
            _ => Ok(()),
        }
    }

    fn on_landed(
        &mut self,
        core: &mut Core,
        ticket: ShardTicket,
        table: BlockTable,
        user: Vec<u8>,
        moved: Moved,
    ) -> Result<()> {
        core.bytes_moved += moved.bytes;
        let landing = self.jobs.get(&ticket).and_then(|job| self.landings.get_mut(job));
        let Some(landing) = landing else { return Ok(core.shards[ticket.0].pool_mut().release(table)?) };
        landing.tables[ticket.0] = Some(table);
        let first = landing.user.get_or_insert_with(|| user.clone());
        if *first == user {
            return self.close(core, ticket, Ending::Done, String::new());
        }
        let why = "the shards of the prompt say different first tokens".to_owned();
        self.close(core, ticket, Ending::Failed, why)
    }

    /// A transfer has ended. One that failed takes the job's others with it; when all have landed, the job generates.
    fn close(&mut self, core: &mut Core, ticket: ShardTicket, ending: Ending, why: String) -> Result<()> {
        let Some(job) = self.jobs.remove(&ticket) else { return Ok(()) };
        let Some(landing) = self.landings.get_mut(&job) else { return Ok(()) };
        landing.open.retain(|open| *open != ticket);
        if ending != Ending::Done && landing.ending == Ending::Done {
            landing.ending = ending;
            landing.why = why;
            core.abort(&landing.open);
        }
        self.end_if_closed(core, job)
    }

    fn end_if_closed(&mut self, core: &mut Core, job: Job) -> Result<()> {
        if self.landings.get(&job).is_none_or(|landing| !landing.open.is_empty()) {
            return Ok(());
        }
        let Some(landing) = self.landings.remove(&job) else { return Ok(()) };
        if landing.ending == Ending::Done {
            return self.activate(core, job, landing);
        }
        for (shard, table) in core.shards.iter_mut().zip(landing.tables) {
            // Where there is none its transfer has given the blocks back.
            table.map_or(Ok(()), |table| shard.pool_mut().release(table))?;
        }
        if let Some(since) = landing.aborted {
            core.note_withdrawal(since);
        }
        core.ended(job, landing.ending, &landing.why)
    }

    /// All shards have their part of the cache.
    fn activate(&mut self, core: &mut Core, job: Job, landing: Landing) -> Result<()> {
        let mut tables: Vec<BlockTable> = landing.tables.into_iter().flatten().collect();
        ensure!(tables.len() == core.shards.len(), "{} of {} shards have landed", tables.len(), core.shards.len());
        let tokens = u64::from(landing.prompt_tokens + landing.generate);
        for (shard, table) in core.shards.iter_mut().zip(&mut tables) {
            while table.capacity_tokens() < tokens {
                shard.pool_mut().extend(table).context("blocks that were kept for this request")?;
            }
        }
        core.report(&Report::Landed { job })?;
        let first = FirstToken::decode(&landing.user.unwrap_or_default())?;
        let Landing { prompt_tokens, generate, .. } = landing;
        let (tokens, first_logits, logits) = (vec![first.token], first.logits, LogitsDigest::default());
        self.active.push_back(Active { job, prompt_tokens, generate, tables, tokens, first_logits, logits });
        Ok(())
    }

    /// Takes in what there are blocks for, and generates one token; `false`: there was nothing to do.
    pub fn step(&mut self, core: &mut Core) -> Result<bool> {
        let admitted = self.admit(core)?;
        let Some(mut active) = self.active.pop_front() else { return Ok(admitted) };
        if (active.tokens.len() as u32) < active.generate {
            let position = active.prompt_tokens as usize + active.tokens.len() - 1;
            let mut cache = ShardedCache { shards: &mut core.shards, tables: &active.tables };
            let logits = core.model.forward(&active.tokens[active.tokens.len() - 1..], position, &mut cache)?;
            active.logits.add(&logits);
            active.tokens.push(greedy(&logits));
            core.tokens += 1;
        }
        if (active.tokens.len() as u32) < active.generate {
            self.active.push_back(active);
            return Ok(true);
        }
        let Active { job, tables, tokens, first_logits, logits, .. } = active;
        release(core, tables)?;
        let answer = Answer { tokens, first_logits, logits: logits.value() };
        core.report(&Report::Answered { job, answer })?;
        core.ended(job, Ending::Done, "")?;
        Ok(true)
    }

    /// Blocks of each shard that requests on their way will need for what they generate.
    fn blocks_kept(&self, block_tokens: u32) -> u32 {
        let kept = |landing: &Landing| {
            let whole = (landing.prompt_tokens + landing.generate).div_ceil(block_tokens);
            whole - landing.prompt_tokens.div_ceil(block_tokens)
        };
        self.landings.values().map(kept).sum()
    }

    fn admit(&mut self, core: &mut Core) -> Result<bool> {
        let block_tokens = core.member.role.block_tokens();
        let blocks_free = core.blocks_free().saturating_sub(self.blocks_kept(block_tokens));
        // In order, so that long requests get their turn; but not behind one whose sender is not connected (yet).
        let next = self.waiting.iter().position(|waiting| core.is_connected(waiting.from));
        let Some(index) = next else { return Ok(false) };
        let blocks = (self.waiting[index].prompt_tokens + self.waiting[index].generate).div_ceil(block_tokens);
        if blocks > blocks_free {
            return Ok(false);
        }
        let Some(waiting) = self.waiting.remove(index) else { return Ok(false) };
        let job = waiting.job;
        let mut open = Vec::new();
        let opened = match self.mode {
            Mode::Push => land(core, &waiting, &mut open),
            Mode::Pull => pull(core, &waiting, &mut open),
        };
        self.jobs.extend(open.iter().map(|ticket| (*ticket, job)));
        let mut landing = Landing {
            generate: waiting.generate,
            prompt_tokens: waiting.prompt_tokens,
            open,
            tables: core.shards.iter().map(|_| None).collect(),
            user: None,
            ending: Ending::Done,
            why: String::new(),
            aborted: None,
        };
        match opened {
            Ok(passages) if passages.is_empty() => core.report(&Report::Moving { job })?,
            Ok(passages) => core.report(&Report::Opened { job, passages })?,
            Err(error) => {
                landing.ending = error.downcast_ref().map_or(Ending::Failed, ending_of);
                landing.why = format!("{error:#}");
                core.abort(&landing.open);
            }
        }
        self.landings.insert(job, landing);
        self.end_if_closed(core, job)?;
        Ok(true)
    }
}

/// Makes room in every shard, and leases it to the shards that it comes from.
fn land(core: &mut Core, waiting: &Waiting, open: &mut Vec<ShardTicket>) -> Result<Vec<Passage>> {
    let far = waiting.from.as_far_side();
    let mut passages = Vec::new();
    for (index, shard) in core.shards.iter_mut().enumerate() {
        let peers: Vec<_> = (0..far.shards).map(|source| shard.peer(&waiting.from.shard_name(source))).collect();
        let (ticket, manifests) = shard.land(waiting.prompt_tokens, &far, &peers, Some(LEASE_TTL))?;
        open.push((index, ticket));
        for (prefill_shard, manifest) in manifests {
            let manifest = to_hex(&manifest.encode()?);
            passages.push(Passage { prefill_shard, decode_shard: index as u32, manifest });
        }
    }
    Ok(passages)
}

/// Begins to read into every shard from those that have its heads.
fn pull(core: &mut Core, waiting: &Waiting, open: &mut Vec<ShardTicket>) -> Result<Vec<Passage>> {
    for (index, shard) in core.shards.iter_mut().enumerate() {
        let mut from = Vec::new();
        for passage in waiting.passages.iter().filter(|passage| passage.decode_shard as usize == index) {
            let name = waiting.from.shard_name(passage.prefill_shard);
            let peer = shard.peer(&name).with_context(|| format!("{name} is not connected"))?;
            from.push((peer, manifest_of(passage)?));
        }
        let from: Vec<(_, &TransferManifest)> = from.iter().map(|(peer, manifest)| (*peer, manifest)).collect();
        open.push((index, shard.pull(&from)?));
    }
    Ok(Vec::new())
}

fn release(core: &mut Core, tables: Vec<BlockTable>) -> Result<()> {
    for (shard, table) in core.shards.iter_mut().zip(tables) {
        shard.pool_mut().release(table)?;
    }
    Ok(())
}
