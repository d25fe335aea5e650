//! The reference: what may become of an SQE, written from the semantics and not from the engine's code.
//!
//! One [`Model`] a plane. It is told what was submitted, what was taken and which CQEs came, in that order, and says
//! what is wrong. `user_data` is the entry's number, so that every CQE is known for whose it is.

use dmaplane_engine::Request;
use dmaplane_ring::abi::{Cqe, CqeFlags, Errno, Handle, HandleKind, Opcode, Sqe, SqeFlags, op_flags};
use std::collections::{BTreeMap, BTreeSet};

/// Where an SQE is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In the SQ.
    Submitted,
    /// Taken; its terminal CQE is to come (or none, by CQE_SKIP_SUCCESS).
    Taken,
    /// Its terminal CQE came.
    Over(i32),
    /// Its ring was detached: no CQE comes.
    Silent,
}

/// One SQE's story.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The SQE.
    pub sqe: Sqe,
    /// Its ring.
    pub ring: u32,
    /// Where it is.
    pub stage: Stage,
    /// CQEs with MORE so far.
    pub more: u32,
    /// What it follows in its chain; for a guard, what it guards.
    pub follows: Option<usize>,
    /// It is a LINK_TIMEOUT in a guard's place.
    pub guards: bool,
    /// Its chain ends with it, whatever its flags say: nothing more was published when its chain was refused.
    pub cut: bool,
    /// It names an object that was over when it was taken.
    pub stale: bool,
}

impl Entry {
    fn flag(&self, flag: SqeFlags) -> bool {
        self.sqe.flags & flag.bits() != 0
    }

    fn opcode(&self) -> Option<Opcode> {
        Opcode::from_byte(self.sqe.opcode)
    }

    fn is_linked(&self) -> bool {
        self.flag(SqeFlags::LINK) || self.flag(SqeFlags::HARDLINK)
    }

    /// Arrivals still to come, where it is a receive in flight.
    fn arrivals(&self) -> u32 {
        match self.opcode() {
            Some(Opcode::Recv) if self.stage == Stage::Taken => 1,
            Some(Opcode::CreditGrant) if self.stage == Stage::Taken => self.sqe.arg32.saturating_sub(self.more),
            _ => 0,
        }
    }
}

/// The reference of one plane.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// By `user_data`.
    pub entries: Vec<Entry>,
    /// Every handle that a CQE told, and whether it lives as far as is known.
    pub handles: BTreeMap<u64, bool>,
    /// Leases whose revoke has completed.
    pub revoked: BTreeSet<u64>,
    /// A ring was detached: what arrives for its receives is not seen.
    pub blind: bool,
    open: BTreeSet<usize>,
}

const UNSEEN: SqeFlags = SqeFlags::CQE_SKIP_SUCCESS;

impl Model {
    /// A client has put an SQE into the SQ. Returns the `user_data` that it must carry.
    pub fn submitted(&mut self, ring: u32, mut sqe: Sqe) -> Sqe {
        sqe.user_data = self.entries.len() as u64;
        self.entries.push(Entry {
            sqe,
            ring,
            stage: Stage::Submitted,
            more: 0,
            follows: None,
            guards: false,
            cut: false,
            stale: false,
        });
        sqe
    }

    /// Handles of a kind: those that live, or those that are over.
    pub fn handles_of(&self, kind: HandleKind, live: bool) -> Vec<u64> {
        let all = self.handles.iter().filter(|(bits, _)| Handle::from_bits(**bits).is(kind));
        all.filter(|(_, lives)| **lives == live).map(|(bits, _)| *bits).collect()
    }

    /// The engine has taken these SQEs in one call, and left those.
    pub fn taken(&mut self, taken: &[Sqe], left: &[Sqe]) -> Result<(), String> {
        if taken.last().is_some_and(|last| self.entries[last.user_data as usize].is_linked()) {
            // Chains are taken whole; this one is being refused, and ends where it ended in this window (CHN-2).
            let linked = |sqe: &&Sqe| self.entries[sqe.user_data as usize].is_linked();
            let end = left.iter().find(|sqe| !linked(sqe)).or(left.last());
            if let Some(end) = end {
                self.entries[end.user_data as usize].cut = true;
            }
        }
        let mut before: Option<usize> = None;
        let mut chained: Option<usize> = None;
        for sqe in taken {
            let number = sqe.user_data as usize;
            let links = |entry: &Entry| entry.is_linked() && !entry.cut;
            let linked_before = before.is_some_and(|before| links(&self.entries[before]));
            let stale = self.names_what_is_over(sqe);
            let guarded = chained.is_some_and(|chained| self.entries[chained].opcode() != Some(Opcode::LinkTimeout));
            let was_guard = before.is_some_and(|before| self.entries[before].guards);
            let entry = &mut self.entries[number];
            if entry.stage != Stage::Submitted {
                return Err(format!("SQE {number} taken twice"));
            }
            entry.stage = Stage::Taken;
            entry.stale = stale;
            if linked_before {
                entry.follows = chained;
                entry.guards = is_link_timeout(&entry.sqe) && guarded && !was_guard;
            }
            if !entry.guards {
                chained = Some(number);
            }
            before = Some(number);
            self.open.insert(number);
        }
        Ok(())
    }

    /// Whether something before `number` that a DRAIN must wait for, and whose end would be seen, is in flight.
    fn is_busy(&self, ring: u32, number: usize) -> bool {
        let seen = |before: &usize| self.entries[*before].ring == ring && !self.entries[*before].flag(UNSEEN);
        self.open.range(..number).any(|before| seen(before) && !self.is_passive(*before))
    }

    /// A passive operation, or one behind a passive one in its chain: a DRAIN may have started while it waited.
    fn is_passive(&self, number: usize) -> bool {
        let entry = &self.entries[number];
        entry.opcode().is_some_and(Opcode::is_passive) || entry.follows.is_some_and(|ahead| self.is_passive(ahead))
    }

    fn names_what_is_over(&self, sqe: &Sqe) -> bool {
        let over = |bits: u64| self.handles.get(&bits) == Some(&false);
        match Opcode::from_byte(sqe.opcode) {
            None | Some(Opcode::Cancel) => false,
            Some(Opcode::WriteList | Opcode::ReadList) => {
                over(sqe.local) || over(sqe.remote) || over(sqe.remote_offset)
            }
            Some(Opcode::CreditQuery | Opcode::CreditWatermarks) => over(sqe.remote),
            Some(_) => over(sqe.local) || over(sqe.remote),
        }
    }

    /// A CQE has come.
    pub fn completed(&mut self, ring: u32, cqe: &Cqe) -> Result<(), String> {
        let number = cqe.user_data as usize;
        let Some(entry) = self.entries.get(number).cloned() else {
            return Err(format!("{cqe:?} answers nothing"));
        };
        let wrong = |what: &str| Err(format!("{what}: {cqe:?} of {:?} on ring {}", entry.sqe, entry.ring));
        if entry.ring != ring || entry.stage != Stage::Taken {
            return wrong("CQE-1: not in flight there");
        }
        if !cqe.is_terminal() {
            self.entries[number].more += 1;
            let left = entry.opcode() == Some(Opcode::CreditGrant) && entry.more + 1 < entry.sqe.arg32;
            return if left { Ok(()) } else { wrong("CQE-3: MORE") };
        }
        if cqe.res >= 0 && entry.flag(UNSEEN) {
            return wrong("SQE-3: a success that was to be skipped");
        }
        if !allowed(&entry, cqe) {
            return wrong("not a result of this opcode");
        }
        if entry.stale && cqe.res >= 0 {
            return wrong("HND-3: it names an object that is over");
        }
        let refused = [Errno::EINVAL, Errno::ECANCELED, Errno::ENOBUFS].map(Errno::as_result).contains(&cqe.res);
        let drains = entry.flag(SqeFlags::DRAIN) && !refused;
        if drains && self.is_busy(ring, number) {
            return wrong("CHN-6: a DRAIN that did not wait");
        }
        self.order(number, &entry, cqe)?;
        self.entries[number].stage = Stage::Over(cqe.res);
        self.open.remove(&number);
        if cqe.res >= 0 {
            self.succeeded(&entry.sqe, cqe);
        }
        Ok(())
    }

    /// LINK and DRAIN order.
    fn order(&self, number: usize, entry: &Entry, cqe: &Cqe) -> Result<(), String> {
        let drained = self.open.range(..number).find(|&&before| {
            let before = &self.entries[before];
            before.ring == entry.ring && before.flag(SqeFlags::DRAIN) && !before.flag(UNSEEN)
        });
        if let Some(&drained) = drained
            && !(entry.guards && entry.follows == Some(drained))
        {
            return Err(format!("CHN-6: {cqe:?} of {:?} overtakes the DRAIN {drained}", entry.sqe));
        }
        let Some(before) = entry.follows.filter(|_| !entry.guards) else {
            return Ok(());
        };
        let failed = match self.entries[before].stage {
            Stage::Over(result) => result < 0,
            _ if self.entries[before].flag(UNSEEN) => false,
            _ => return Err(format!("CHN-3: {cqe:?} of {:?} before {before}, which it follows", entry.sqe)),
        };
        let severed = failed && !self.entries[before].flag(SqeFlags::HARDLINK);
        if severed && cqe.res != Errno::ECANCELED.as_result() && cqe.res != Errno::EINVAL.as_result() {
            return Err(format!("CHN-4: {cqe:?} of {:?} after {before} failed", entry.sqe));
        }
        Ok(())
    }

    /// An SQE has succeeded: handles come and go.
    pub fn succeeded(&mut self, sqe: &Sqe, cqe: &Cqe) {
        match Opcode::from_byte(sqe.opcode) {
            Some(
                Opcode::Alloc
                | Opcode::ListPrepare
                | Opcode::LeaseGrant
                | Opcode::LeaseImport
                | Opcode::Connect
                | Opcode::Accept
                | Opcode::ExportDmabuf,
            ) => {
                self.handles.insert(cqe.word0, true);
            }
            Some(Opcode::LeaseRevoke) => {
                self.handles.insert(sqe.local, false);
                self.revoked.insert(sqe.local);
            }
            Some(Opcode::Free | Opcode::ListFree | Opcode::ImportRelease) => {
                self.handles.insert(sqe.local, false);
            }
            Some(Opcode::Disconnect) => {
                self.handles.insert(sqe.remote, false);
            }
            _ => {}
        }
    }

    /// The client has closed a ring.
    pub fn detached(&mut self, ring: u32) {
        self.blind = true;
        let here: Vec<usize> = self.open.iter().copied().filter(|&number| self.entries[number].ring == ring).collect();
        for number in here {
            self.entries[number].stage = Stage::Silent;
            self.open.remove(&number);
        }
    }

    /// SQEs taken whose terminal CQE must still come.
    pub fn outstanding(&self) -> Vec<Sqe> {
        let open = self.open.iter().map(|&number| &self.entries[number]);
        open.filter(|entry| !entry.flag(UNSEEN)).map(|entry| entry.sqe).collect()
    }

    /// Arrivals that receives in flight for a peer still take: what the peer may have as credits at most.
    pub fn arrivals_left(&self, peer: u64) -> u32 {
        let open = self.open.iter().map(|&number| &self.entries[number]);
        open.filter(|entry| entry.sqe.remote == peer).map(Entry::arrivals).sum()
    }

    /// Whether an operation that touches this range is in flight, as far as is seen.
    pub fn may_touch(&self, request: &Request, local: (HandleKind, u32), offset: u64) -> bool {
        self.entries.iter().any(|entry| {
            let handle = Handle::from_bits(entry.sqe.local);
            !matches!(entry.stage, Stage::Over(_) | Stage::Submitted)
                && handle.is(local.0)
                && handle.index() == local.1
                && entry.sqe.local_offset == offset
                && entry.sqe.length == request.length
        })
    }
}

/// A LINK_TIMEOUT without a stray field or flag: only such a one guards.
fn is_link_timeout(sqe: &Sqe) -> bool {
    let links = SqeFlags::LINK.bits() | SqeFlags::HARDLINK.bits();
    let plain = Sqe { opcode: Opcode::LinkTimeout as u8, flags: sqe.flags & links, ..Sqe::default() };
    *sqe == Sqe { arg64: sqe.arg64, user_data: sqe.user_data, ..plain }
}

/// Whether the result is one that the opcode may have.
fn allowed(entry: &Entry, cqe: &Cqe) -> bool {
    use Opcode as O;
    let sqe = &entry.sqe;
    let Some(opcode) = entry.opcode() else {
        let with_its_chain = entry.is_linked() && cqe.res == Errno::ENOBUFS.as_result();
        return with_its_chain || [Errno::EINVAL, Errno::ECANCELED].map(Errno::as_result).contains(&cqe.res);
    };
    let told = cqe.flags & CqeFlags::CHECKSUM.bits() != 0;
    let reads = matches!(opcode, O::Read | O::ReadList);
    let asked = reads && cqe.res >= 0 && sqe.op_flags & op_flags::CHECKSUM != 0;
    let receives = matches!(opcode, O::Recv | O::CreditGrant);
    // A checksum comes with a read that asked for it, and may come with an arrival that has an immediate.
    if told && !asked && !(receives && cqe.flags & CqeFlags::IMMEDIATE.bits() != 0) || asked && !told {
        return false;
    }
    if cqe.res >= 0 {
        let result = cqe.res as u64;
        return match opcode {
            O::Timeout | O::LinkTimeout => false,
            O::Watch => result != 0 && result < 16,
            O::Write | O::WriteImm | O::Read => result == sqe.length,
            O::Send => result == sqe.length,
            O::LeaseExport => result == dmaplane_engine::Token::BYTES as u64,
            O::Recv | O::CreditGrant => told || result == cqe.word0 >> 32,
            O::Cancel => result > 0,
            O::Query | O::WriteList | O::ReadList => true,
            _ => result == 0,
        };
    }
    if entry.guards {
        return [Errno::ETIME, Errno::ECANCELED, Errno::EINVAL].map(Errno::as_result).contains(&cqe.res);
    }
    let errno = Errno::from_raw(cqe.res.wrapping_neg());
    let handles = [Errno::EBADF, Errno::ESTALE];
    let lease_over = [Errno::EKEYREVOKED, Errno::EKEYEXPIRED, Errno::ECONNRESET];
    let peer_over = [Errno::ENOTCONN, Errno::ECONNRESET];
    let own: &[Errno] = match opcode {
        O::Nop | O::LinkTimeout | O::Query => &[],
        O::Cancel => &[Errno::ENOENT, Errno::EALREADY],
        O::Timeout => &[Errno::ETIME],
        O::Watch => &[Errno::EBUSY],
        O::Wait => &[Errno::ERANGE],
        O::Alloc => &[Errno::EMSGSIZE, Errno::ENFILE, Errno::ENOMEM, Errno::EOPNOTSUPP],
        O::Free | O::ListFree | O::ImportRelease => &[Errno::EBUSY],
        O::Placement | O::Sync | O::CreditQuery | O::CreditWatermarks => &[],
        O::ExportDmabuf => &[Errno::ENFILE, Errno::EOPNOTSUPP],
        O::ListPrepare => &[Errno::EMSGSIZE, Errno::ENFILE, Errno::ERANGE, Errno::ENOMEM],
        O::LeaseGrant => &[Errno::ENFILE, Errno::ERANGE],
        O::LeaseExport => &[Errno::EMSGSIZE, Errno::ERANGE],
        O::LeaseImport => &[Errno::EMSGSIZE, Errno::ERANGE, Errno::EBADMSG, Errno::ENFILE, Errno::EKEYREJECTED],
        O::LeaseRenew => &[],
        O::LeaseRevoke | O::Disconnect => &[Errno::EALREADY],
        O::Connect => &[Errno::EMSGSIZE, Errno::ERANGE, Errno::ENFILE, Errno::ECONNREFUSED],
        O::Accept => &[Errno::ENFILE],
        O::Write | O::Read | O::ReadList => &[Errno::EMSGSIZE, Errno::ERANGE, Errno::EACCES, Errno::EIO],
        O::WriteImm | O::WriteList | O::Send => {
            &[Errno::EMSGSIZE, Errno::ERANGE, Errno::EACCES, Errno::EIO, Errno::EAGAIN]
        }
        O::Recv | O::CreditGrant => &[Errno::ERANGE, Errno::EMSGSIZE],
    };
    let names_handles = !matches!(opcode, O::Nop | O::Timeout | O::LinkTimeout | O::Query | O::Alloc | O::Watch);
    let uses_lease = matches!(
        opcode,
        O::LeaseExport | O::LeaseImport | O::LeaseRenew | O::Write | O::WriteImm | O::Read | O::WriteList | O::ReadList
    );
    let uses_peer =
        uses_lease || matches!(opcode, O::Send | O::Recv | O::CreditGrant | O::CreditWatermarks | O::LeaseGrant);
    // A chain that could not be reserved beside what peers detain.
    let shared = opcode.is_passive() || opcode.is_detained() || entry.is_linked();
    [Errno::EINVAL, Errno::ECANCELED].contains(&errno)
        || (shared && errno == Errno::ENOBUFS)
        || own.contains(&errno)
        || (names_handles && handles.contains(&errno))
        || (uses_lease && lease_over.contains(&errno))
        || (uses_peer && peer_over.contains(&errno))
        || (opcode == O::LeaseGrant && sqe.op_flags & op_flags::GRANT_PEER != 0 && peer_over.contains(&errno))
}
