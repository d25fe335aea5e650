//! A worker's seat: the process that has it now, and what is known of it and of those before it.

use super::Router;
use super::process::WorkerProcess;
use crate::serve::arguments::WorkerArguments;
use crate::serve::cluster::{MEMBERS, Role};
use crate::serve::message::{Order, Status};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// What earlier lives have done.
#[derive(Debug, Default)]
pub struct Past {
    tokens: u64,
    bytes_moved: u64,
    aborts_ns: Vec<u64>,
    withdrawals_ns: Vec<u64>,
}

pub struct Seat {
    process: WorkerProcess,
    role: Role,
    life: u32,
    is_ready: bool,
    was_killed: bool,
    has_stopped: bool,
    addresses: Vec<String>,
    status: Status,
    past: Past,
    heard: Instant,
}

impl Seat {
    /// Starts a worker in its next life.
    pub(super) fn start(router: &Router<'_>, worker: usize, life: u32) -> Result<Seat> {
        let member = &MEMBERS[worker];
        let folder = router.folder.join(format!("{}-{life}", member.name));
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let arguments = WorkerArguments {
            name: member.name.to_owned(),
            fabric: router.arguments.fabric,
            host: router.arguments.host.clone(),
            mode: router.arguments.mode,
            checksum: router.arguments.checksum,
            seed: router.arguments.asked.seed ^ (worker as u64) << 8,
            folder,
        };
        let process = WorkerProcess::spawn(member.name, &arguments.command(), (worker, life), router.give.clone())?;
        Ok(Seat {
            process,
            role: member.role,
            life,
            is_ready: false,
            was_killed: false,
            has_stopped: false,
            addresses: Vec::new(),
            status: Status::default(),
            past: Past::default(),
            heard: Instant::now(),
        })
    }

    /// With what its predecessors have done.
    pub fn after(self, past: Past) -> Seat {
        Seat { past, ..self }
    }

    /// What is remembered of it when it is gone. (What it did after its last status is not.)
    pub fn past(&mut self) -> Past {
        let mut past = std::mem::take(&mut self.past);
        past.tokens += self.status.tokens;
        past.bytes_moved += self.status.bytes_moved;
        past
    }

    pub fn life(&self) -> u32 {
        self.life
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub fn is_ready(&self) -> bool {
        self.is_ready && !self.was_killed
    }

    pub fn was_killed(&self) -> bool {
        self.was_killed
    }

    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// It serves, and listens there.
    pub fn ready(&mut self, addresses: Vec<String>) {
        self.is_ready = true;
        self.addresses = addresses;
    }

    pub fn note_heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Since when nothing has been heard of it.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    pub fn order(&self, order: Order) {
        self.process.order(order);
    }

    pub fn kill(&mut self) {
        self.was_killed = true;
        self.process.kill();
    }

    pub fn stop(&mut self) {
        self.order(Order::Stop);
    }

    pub fn note_status(&mut self, mut status: Status) {
        self.past.aborts_ns.append(&mut status.aborts_ns);
        self.past.withdrawals_ns.append(&mut status.withdrawals_ns);
        self.status = status;
    }

    pub fn stopped(&mut self, status: Status) {
        self.note_status(status);
        self.has_stopped = true;
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// In all its lives.
    pub fn tokens(&self) -> u64 {
        self.past.tokens + self.status.tokens
    }

    /// In all its lives, into decode workers: what one side sends the other receives.
    pub fn bytes_moved(&self) -> u64 {
        if self.role == Role::Decode { self.past.bytes_moved + self.status.bytes_moved } else { 0 }
    }

    pub fn aborts_ns(&self) -> &[u64] {
        &self.past.aborts_ns
    }

    /// How long aborts took by who had leased the memory, and by who had not.
    pub fn take_aborts_ns(&mut self) -> [Vec<u64>; 2] {
        [&mut self.past.aborts_ns, &mut self.past.withdrawals_ns].map(std::mem::take)
    }

    /// What a worker without jobs still has in use and should not.
    pub fn left_behind(&self) -> Option<String> {
        let Status { jobs, blocks_free, blocks, transfers, leases, imports, .. } = self.status;
        let blocks_used = blocks - blocks_free.min(blocks);
        let is_clean = (u64::from(jobs + transfers + blocks_used), leases, imports) == (0, 0, 0);
        let what = format!(
            "{jobs} jobs, {transfers} transfers, {blocks_used} blocks, {leases} leases and {imports} claimed leases"
        );
        (!is_clean).then_some(what)
    }
}
