//! A worker's process: one thread that takes orders, polls its shards' transfers, and computes in between.

mod cache;
mod core;
mod decode;
mod orders;
mod prefill;

use self::core::Core;
use super::arguments::WorkerArguments;
use super::cluster::{self, Member, Role};
use super::message::{Order, Report};
use crate::demo::arguments::Fabric;
use crate::demo::die_with_parent;
use anyhow::{Context, Result, bail};
use decode::Decode;
use dmaplane::{Config, Limits, RunMode};
use dmaplane_kv::Shard;
use dmaplane_kv::exchange::{Event, Exchange};
use dmaplane_kv::transfer::PagedPool;
use orders::Orders;
use prefill::Prefill;
use std::time::{Duration, Instant};

/// How often the router is told how things stand.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// How long orders are waited for when there is nothing to compute, with transfers under way and without.
const GLANCE: Duration = Duration::from_micros(300);
const REST: Duration = Duration::from_millis(2);
/// Lists that a shard may have.
const LISTS: u32 = 1 << 14;
/// How long what has ended may take to give everything back.
const SETTLING_MAX: Duration = Duration::from_secs(2);

enum Work {
    Prefill(Prefill),
    Decode(Decode),
}

impl Work {
    /// `false`: the order was to stop.
    fn take(&mut self, core: &mut Core, order: Order) -> Result<bool> {
        match (self, order) {
            (_, Order::Stop) => return Ok(false),
            (Work::Prefill(_), Order::Dial { name, addresses }) => {
                let member = Member::named(&name).with_context(|| format!("there is no worker {name}"))?;
                for shard in &mut core.shards {
                    for (far, address) in (0..).zip(&addresses) {
                        // Its earlier life is over, which may not have been noticed yet.
                        shard.hang_up(&member.shard_name(far));
                        shard.dial(&member.shard_name(far), address);
                    }
                }
            }
            (Work::Prefill(work), Order::Prefill { job, prompt, to, passages }) => {
                let to = Member::named(&to).with_context(|| format!("there is no worker {to}"))?;
                work.take(prefill::Waiting { job, prompt, to, passages });
            }
            (Work::Decode(work), Order::Decode { job, prompt_tokens, generate, from, passages }) => {
                let from = Member::named(&from).with_context(|| format!("there is no worker {from}"))?;
                work.take(decode::Waiting { job, prompt_tokens, generate, from, passages });
            }
            (Work::Prefill(work), Order::Abort { job }) => work.abort(core, job)?,
            (Work::Decode(work), Order::Abort { job }) => work.abort(core, job)?,
            (_, order) => bail!("an order for the other kind of worker: {order:?}"),
        }
        Ok(true)
    }

    fn on_event(&mut self, core: &mut Core, shard: usize, event: Event) -> Result<()> {
        match self {
            Work::Prefill(work) => work.on_event(core, shard, event),
            Work::Decode(work) => work.on_event(core, shard, event),
        }
    }

    fn step(&mut self, core: &mut Core) -> Result<bool> {
        match self {
            Work::Prefill(work) => work.step(core),
            Work::Decode(work) => work.step(core),
        }
    }

    fn renew(&self, core: &mut Core) {
        match self {
            Work::Prefill(work) => work.renew(core),
            Work::Decode(work) => work.renew(core),
        }
    }

    fn jobs(&self) -> usize {
        match self {
            Work::Prefill(work) => work.jobs(),
            Work::Decode(work) => work.jobs(),
        }
    }
}

/// How a shard's plane runs: on the worker's thread, so that a lease ends without waiting for another one.
fn config() -> Config {
    let default = Config::default();
    // Far more lists than are ever in use; but without leases, which is the control, none is ever free again.
    let limits = Limits { lists: LISTS, ..default.limits };
    Config { mode: RunMode::Inline, limits, ..default }
}

/// Runs the process until the router says stop, or is gone.
pub fn run(arguments: &WorkerArguments) -> Result<()> {
    die_with_parent()?;
    let name = &arguments.name;
    let member = Member::named(name).with_context(|| format!("there is no worker {name}"))?;
    let orders = Orders::read();
    let model = cluster::model()?;
    let layout = cluster::layout(model.shape(), member.role)?;
    let mut shards = Vec::new();
    let mut addresses = Vec::new();
    for index in 0..member.shards {
        let mut plane = arguments.host.open(arguments.fabric == Fabric::Local, config())?;
        let shard = Shard { index, count: member.shards };
        let seed = arguments.seed ^ u64::from(index);
        let mut pool = PagedPool::of_shard(&mut plane, layout, shard, member.role.blocks(), seed)?;
        pool.set_checksum(arguments.checksum.into());
        let mut exchange = Exchange::new(plane, pool, &member.shard_name(index))?;
        if member.role == Role::Decode {
            addresses.push(exchange.listen(&arguments.address(index))?);
        }
        shards.push(exchange);
    }
    let mut core = Core::new(member, model, shards, orders);
    let mut work = match member.role {
        Role::Prefill => Work::Prefill(Prefill::default()),
        Role::Decode => Work::Decode(Decode::new(arguments.mode)),
    };
    core.report(&Report::Ready { addresses })?;
    serve(&mut core, &mut work)?;
    settle(&mut core, &mut work)?;
    let status = core.status(work.jobs());
    core.report(&Report::Stopped(status))
}

/// Lets the shards' transfers go on, and acts on what has happened.
fn poll(core: &mut Core, work: &mut Work) -> Result<()> {
    for shard in 0..core.shards.len() {
        for event in core.shards[shard].poll() {
            work.on_event(core, shard, event)?;
        }
    }
    Ok(())
}

/// Lets what has ended give everything back, so that what is still there has been left behind.
fn settle(core: &mut Core, work: &mut Work) -> Result<()> {
    let deadline = Instant::now() + SETTLING_MAX;
    while Instant::now() < deadline && !core.is_idle() {
        poll(core, work)?;
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

fn serve(core: &mut Core, work: &mut Work) -> Result<()> {
    let mut told = Instant::now();
    loop {
        core.orders.look()?;
        while let Some(order) = core.orders.next() {
            if !work.take(core, order)? {
                return Ok(());
            }
        }
        // Blocks that an order has freed are given to the next request before anything else is said or heard: what was
        // theirs must not come late, nor be read any more, although nobody but the lease has told the other side yet.
        let worked = work.step(core)?;
        poll(core, work)?;
        if core.is_renewal_due() {
            work.renew(core);
        }
        if told.elapsed() >= STATUS_INTERVAL {
            told = Instant::now();
            let status = core.status(work.jobs());
            core.report(&Report::Status(status))?;
        }
        if worked {
            continue;
        }
        core.orders.wait(if work.jobs() > 0 { GLANCE } else { REST })?;
    }
}
