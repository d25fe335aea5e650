//! Programs as bytes: eight a step. The same bytes and the same seed are the same run, so a fuzzer's find, a shrunk
//! proptest case and a regression test are one thing.

use crate::host::Temper;
use crate::world::{Fault, Report, World};
use dmaplane_ring::abi::{
    BufferHandle, Handle, HandleKind, ImportHandle, LeaseHandle, ListHandle, ListenerHandle, PeerHandle, Rights, Run,
    Sqe,
};
use dmaplane_ring::build::{Accept, Alloc, Connect, CreditGrant, LeaseExport, LeaseGrant, LeaseImport, ListPrepare};

/// One step of a script.
pub type Step = [u8; 8];

/// Kinds of worlds that a run begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing but rings and listeners.
    Bare,
    /// Two planes connected, with buffers, lists, leases, imports and credits on both.
    Furnished,
}

/// What a furnished plane has.
#[derive(Clone, Copy, Debug)]
pub struct Furniture {
    /// 4 KiB, under the range lease.
    pub leased: BufferHandle,
    /// 1 KiB, its own.
    pub own: BufferHandle,
    /// Four segments of 32 bytes in `own`'s second half.
    pub list: ListHandle,
    /// On `leased`, 1 KiB from 1 KiB on; the other plane holds it.
    pub lease: LeaseHandle,
    /// On `list`.
    pub list_lease: LeaseHandle,
    /// The other plane's range lease.
    pub import: ImportHandle,
    /// The other plane's list lease.
    pub list_import: ImportHandle,
    /// The other plane.
    pub peer: PeerHandle,
}

fn typed<T>(bits: u64, make: fn(u64) -> Option<T>) -> Result<T, Fault> {
    make(bits).ok_or_else(|| format!("{bits:#x} is of another kind"))
}

impl World {
    /// Connects plane 0 to plane 1: the peer's handles on each.
    pub fn join(&mut self) -> Result<[PeerHandle; 2], Fault> {
        let listener = typed(self.planes[1].listener.bits(), ListenerHandle::from_bits)?;
        let address = self.ok(0, 1, Alloc::new(64).map_err(|e| e.to_string())?.sqe())?;
        let address = typed(address.word0, BufferHandle::from_bits)?;
        self.prepare(0, vec![(address.handle().index(), 0, vec![1])]);
        let accept = self.submit(1, 1, Accept::new(listener).sqe());
        self.turn(1, 1)?;
        let ours = self.ok(0, 1, Connect::new(address, 0, 1).map_err(|e| e.to_string())?.sqe())?;
        for _ in 0..100 {
            let cq = &mut self.planes[1].host.rings[1].cq;
            if let Some(at) = cq.iter().position(|cqe| Some(cqe.user_data) == accept) {
                let theirs = cq.remove(at).unwrap_or_default();
                return Ok([typed(ours.word0, PeerHandle::from_bits)?, typed(theirs.word0, PeerHandle::from_bits)?]);
            }
            self.step()?;
        }
        Err("nobody accepts".into())
    }

    /// Furnishes planes 0 and 1. Only for a world whose work never fails.
    pub fn furnish(&mut self) -> Result<[Furniture; 2], Fault> {
        let error = |error: dmaplane_ring::build::BuildError| error.to_string();
        let peers = self.join()?;
        let mut made = Vec::new();
        for (plane, &peer) in peers.iter().enumerate() {
            let leased = self.ok(plane, 1, Alloc::new(4096).map_err(error)?)?.word0;
            let own = self.ok(plane, 1, Alloc::new(1024).map_err(error)?)?.word0;
            let (leased, own) = (typed(leased, BufferHandle::from_bits)?, typed(own, BufferHandle::from_bits)?);
            let run = Run {
                buffer: own.handle().bits(),
                offset_bytes: 512,
                stride_bytes: 64,
                length_bytes: 32,
                count: 4,
                reserved: 0,
            };
            let run: Vec<u8> = run.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
            self.prepare(plane, vec![(leased.handle().index(), 0, run)]);
            let list = self.ok(plane, 1, ListPrepare::new(leased, 0, 1).map_err(error)?)?.word0;
            let list = typed(list, ListHandle::from_bits)?;
            let lease = self.ok(plane, 1, LeaseGrant::range(leased, 1024, 1024, Rights::KNOWN).map_err(error)?)?;
            let list_lease = self.ok(plane, 1, LeaseGrant::list(list, Rights::KNOWN))?;
            let lease = typed(lease.word0, LeaseHandle::from_bits)?;
            let list_lease = typed(list_lease.word0, LeaseHandle::from_bits)?;
            self.submit(plane, 1, CreditGrant::new(peer, 4).slots(leased, 2048, 64).map_err(error)?.sqe());
            self.turn(plane, 1)?;
            made.push((leased, own, list, lease, list_lease, peer));
        }
        let mut furniture = Vec::new();
        for plane in 0..2 {
            let (leased, own, list, lease, list_lease, peer) = made[plane];
            let mut imports = Vec::new();
            for lease in [made[1 - plane].3, made[1 - plane].4] {
                let buffer = made[1 - plane].0;
                self.ok(1 - plane, 1, LeaseExport::new(lease, buffer, 3072))?;
                let token = self.tokens.last().cloned().unwrap_or_default();
                let length = token.len() as u64;
                self.prepare(plane, vec![(leased.handle().index(), 3072, token)]);
                let import = self.ok(plane, 1, LeaseImport::new(leased, 3072, length).map_err(error)?)?;
                imports.push(typed(import.word0, ImportHandle::from_bits)?);
            }
            let (import, list_import) = (imports[0], imports[1]);
            furniture.push(Furniture { leased, own, list, lease, list_lease, import, list_import, peer });
        }
        Ok([furniture[0], furniture[1]])
    }

    /// Does one step of a script.
    pub fn apply(&mut self, step: Step) -> Result<(), Fault> {
        let [kind, a, b, c, d, e, f, g] = step;
        let planes = self.planes.len();
        let plane = usize::from(kind >> 5) % planes;
        let ring = u32::from(kind >> 7 & 1);
        match kind & 31 {
            0..14 => {
                self.submit_composed(plane, ring, [a, b, c, d, e, f, g]);
            }
            14..17 => {
                self.turn(plane, ring)?;
            }
            17..26 => self.steps(usize::from(a) % 24 + 1)?,
            26 => self.advance(u64::from(a))?,
            27 | 28 => {
                self.reap(plane, ring, usize::from(a));
            }
            29 => {
                let mut words = [0; Sqe::WORDS];
                let mut random = crate::random::Random::new(u64::from_le_bytes(step));
                for word in &mut words {
                    *word = if random.percent(60) { 0 } else { random.bits() >> random.below(64) };
                }
                self.submit(plane, ring, Sqe::from_words(words));
            }
            30 => {
                for plane in 0..planes {
                    for ring in 0..self.planes[plane].sqs.len() as u32 {
                        self.turn(plane, ring)?;
                        self.reap(plane, ring, usize::MAX);
                    }
                }
                self.steps(8)?;
            }
            _ => self.upheaval(plane, ring, a, b)?,
        }
        Ok(())
    }

    fn steps(&mut self, count: usize) -> Result<(), Fault> {
        for _ in 0..count {
            self.step()?;
        }
        Ok(())
    }

    /// What happens now and then: deaths, rings that come and go, close().
    fn upheaval(&mut self, plane: usize, ring: u32, a: u8, b: u8) -> Result<(), Fault> {
        match a % 10 {
            0 if b < 128 && !self.connections.is_empty() => {
                let connection = usize::from(b) % self.connections.len();
                self.connections[connection].kill();
            }
            2 if b < 64 => self.detach(plane, ring)?,
            3 if b < 48 => self.close(plane)?,
            4 => {
                self.add_buffer(plane, 1024);
            }
            5 => {
                self.add_slot(plane);
            }
            6 => {
                self.attach(plane, 16);
            }
            7 => {
                let slots = self.live(plane, HandleKind::Slot);
                let guess = Handle::new(HandleKind::Slot, u32::from(b & 3), u32::from(b >> 2 & 3) + 1);
                let slot = slots.get(usize::from(b)).copied().unwrap_or(guess);
                self.remove_slot(plane, slot);
            }
            8 => self.signalled = !self.signalled,
            _ => {}
        }
        Ok(())
    }
}

/// Hosts whose work ends now or later and now and then fails.
pub const MOODY: Temper = Temper { at_once: 50, fails: 4, post_fails: 3, shared_memory: 40 };
/// Hosts whose work never fails.
pub const EVEN: Temper = Temper { at_once: 50, fails: 0, post_fails: 0, shared_memory: 40 };

/// A whole run: a world, a script, and the end.
pub fn run(seed: u64, start: Start, script: &[Step]) -> Result<Report, Fault> {
    let mut world = World::new(seed, 2, EVEN);
    if start == Start::Furnished {
        world.furnish()?;
    }
    for plane in &mut world.planes {
        plane.host.temper = MOODY;
    }
    for &step in script {
        world.apply(step)?;
    }
    if seed & 1 == 0 {
        world.wind_down()?;
    }
    world.finish()
}
