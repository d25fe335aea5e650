//! What both kinds of worker have: a model, shards, and a router to report to.

use super::orders::Orders;
use crate::model::Transformer;
use crate::send_recv::from_hex;
use crate::serve::cluster::{Member, share_heads};
use crate::serve::message::{self, Ending, Job, Passage, Report, Status};
use anyhow::{Context, Result};
use dmaplane_kv::TransferManifest;
use dmaplane_kv::exchange::{Exchange, Ticket};
use dmaplane_kv::transfer::TransferError;
use std::io::Stdout;
use std::time::{Duration, Instant};

/// A lease ends by itself unless its owner renews it: so nothing stays leased for a worker that hangs.
pub const LEASE_TTL: Duration = Duration::from_secs(10);
/// How often leases are renewed.
const RENEWAL: Duration = Duration::from_secs(2);
/// Of the reason why something failed, so much is told.
const REASON_CHARACTERS_MAX: usize = 300;

/// A transfer of one shard.
pub type ShardTicket = (usize, Ticket);

pub struct Core {
    pub orders: Orders,
    pub member: &'static Member,
    pub model: Transformer,
    pub shards: Vec<Exchange>,
    router: Stdout,
    /// Since the start.
    pub tokens: u64,
    pub bytes_moved: u64,
    aborts_ns: Vec<u64>,
    withdrawals_ns: Vec<u64>,
    renewed: Instant,
}

impl Core {
    pub fn new(member: &'static Member, model: Transformer, shards: Vec<Exchange>, orders: Orders) -> Core {
        let (router, renewed) = (std::io::stdout(), Instant::now());
        Core {
            orders,
            member,
            model,
            shards,
            router,
            tokens: 0,
            bytes_moved: 0,
            aborts_ns: Vec::new(),
            withdrawals_ns: Vec::new(),
            renewed,
        }
    }

    pub fn report(&mut self, report: &Report) -> Result<()> {
        message::write(&mut self.router, report)
    }

    pub fn ended(&mut self, job: Job, ending: Ending, why: &str) -> Result<()> {
        let why = why.chars().take(REASON_CHARACTERS_MAX).collect();
        self.report(&Report::Ended { job, ending, why })
    }

    /// Blocks that each shard has at least.
    pub fn blocks_free(&self) -> u32 {
        self.shards.iter().map(|shard| shard.pool().free_blocks()).min().unwrap_or_default()
    }

    /// Whether each shard is connected to all shards of that member that have heads in common with it.
    pub fn is_connected(&self, other: &Member) -> bool {
        let connected = |(index, shard): (u32, &Exchange)| {
            let mine = (index, self.member.shards);
            let mut theirs = (0..other.shards).filter(|&far| share_heads(mine, (far, other.shards)));
            theirs.all(|far| shard.peer(&other.shard_name(far)).is_some())
        };
        (0..).zip(&self.shards).all(connected)
    }

    /// Notes that memory is free again, of which the router wanted the lease to end at `since`.
    pub fn note_abort(&mut self, since: Instant) {
        self.aborts_ns.push(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// The same of memory that only our own operations touched.
    pub fn note_withdrawal(&mut self, since: Instant) {
        self.withdrawals_ns.push(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Aborts what is under way of these. Those that have ended meanwhile say so by their events.
    pub fn abort(&mut self, tickets: &[ShardTicket]) {
        for &(shard, ticket) in tickets {
            if let Err(error) = self.shards[shard].abort(ticket) {
                tracing::debug!(shard, %error, "nothing to abort");
            }
        }
    }

    /// Whether it is time to renew leases.
    pub fn is_renewal_due(&mut self) -> bool {
        let due = self.renewed.elapsed() >= RENEWAL;
        if due {
            self.renewed = Instant::now();
        }
        due
    }

    /// Renews leases of ours. One that is over says so by its event.
    pub fn renew(&mut self, tickets: impl Iterator<Item = ShardTicket>) {
        for (shard, ticket) in tickets {
            if let Err(error) = self.shards[shard].renew(ticket, LEASE_TTL) {
                tracing::debug!(shard, %error, "nothing to renew");
            }
        }
    }

    /// Whether nothing is under way and nothing is leased.
    pub fn is_idle(&mut self) -> bool {
        self.shards.iter_mut().all(|shard| {
            let usage = shard.plane().usage();
            shard.in_flight() == 0 && usage.leases == 0 && usage.imports == 0
        })
    }

    pub fn status(&mut self, jobs: usize) -> Status {
        let mut status = Status {
            jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
            tokens: self.tokens,
            blocks_free: self.blocks_free(),
            blocks: self.member.role.blocks(),
            bytes_moved: self.bytes_moved,
            aborts_ns: std::mem::take(&mut self.aborts_ns),
            withdrawals_ns: std::mem::take(&mut self.withdrawals_ns),
            ..Status::default()
        };
        for shard in &mut self.shards {
            let usage = shard.plane().usage();
            status.transfers += u32::try_from(shard.in_flight()).unwrap_or(u32::MAX);
            status.leases += u64::from(usage.leases);
            status.imports += u64::from(usage.imports);
            status.lists += u64::from(usage.lists);
        }
        status
    }
}

/// Whose doing a transfer's end is.
pub fn ending_of(error: &TransferError) -> Ending {
    match error {
        TransferError::Aborted { .. }
        | TransferError::PeerGone { .. }
        | TransferError::Rejected { .. }
        | TransferError::OtherLife => Ending::FarSide,
        // Its death may be found by a call of the plane before the exchange hears of it.
        gone if gone.is_peer_gone() => Ending::FarSide,
        _ => Ending::Failed,
    }
}

/// What a passage carries; a router that changed it is found out when it is claimed.
pub fn manifest_of(passage: &Passage) -> Result<TransferManifest> {
    let bytes = from_hex(&passage.manifest).context("a manifest in hexadecimal")?;
    Ok(TransferManifest::decode(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmaplane::{Errno, Error};

    /// A lease for a worker that had just been killed was called a failure that no kill explains.
    #[test]
    fn a_lease_refused_for_a_peer_that_has_just_died_is_the_far_sides_end() {
        let error = |errno| TransferError::Plane(Error::Operation { what: "granting a lease", errno });
        assert!(ending_of(&error(Errno::ECONNRESET)) == Ending::FarSide);
        assert!(ending_of(&error(Errno::ENOMEM)) == Ending::Failed);
    }
}
