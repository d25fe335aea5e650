//! SQEs out of a few bytes: mostly such as make sense in the world as it is, some stale, some garbage.

use crate::model::Model;
use dmaplane_ring::abi::{Handle, HandleKind, IndexPair, Opcode, Rights, Run, Sqe, SqeFlags, op_flags};

/// Bytes that the client puts into its own buffer before it submits: buffer index, offset, bytes.
pub type Preparation = Vec<(u32, u64, Vec<u8>)>;

/// How often each opcode comes up: everything; chains, timers and cancels; transfers and credits; lives of objects.
pub const MIXES: [&[Opcode]; 4] = {
    use Opcode as O;
    [
        &[
            O::Nop,
            O::Nop,
            O::Cancel,
            O::Cancel,
            O::Timeout,
            O::LinkTimeout,
            O::LinkTimeout,
            O::Watch,
            O::Wait,
            O::Query,
            O::Alloc,
            O::Alloc,
            O::Free,
            O::Free,
            O::Placement,
            O::ExportDmabuf,
            O::Sync,
            O::ListPrepare,
            O::ListPrepare,
            O::ListFree,
            O::LeaseGrant,
            O::LeaseGrant,
            O::LeaseGrant,
            O::LeaseExport,
            O::LeaseExport,
            O::LeaseImport,
            O::LeaseImport,
            O::LeaseImport,
            O::LeaseRenew,
            O::LeaseRevoke,
            O::LeaseRevoke,
            O::ImportRelease,
            O::Connect,
            O::Accept,
            O::Disconnect,
            O::Write,
            O::Write,
            O::WriteImm,
            O::WriteImm,
            O::WriteImm,
            O::Read,
            O::Read,
            O::WriteList,
            O::WriteList,
            O::ReadList,
            O::Send,
            O::Send,
            O::Recv,
            O::Recv,
            O::CreditGrant,
            O::CreditQuery,
            O::CreditWatermarks,
        ],
        &[
            O::Nop,
            O::Cancel,
            O::Timeout,
            O::LinkTimeout,
            O::LinkTimeout,
            O::LinkTimeout,
            O::Watch,
            O::Wait,
            O::Sync,
            O::Alloc,
            O::ListPrepare,
            O::Send,
            O::Send,
            O::Recv,
            O::Write,
            O::Read,
            O::Accept,
            O::Connect,
            O::LeaseRevoke,
            O::LeaseGrant,
        ],
        &[
            O::Cancel,
            O::LeaseGrant,
            O::LeaseExport,
            O::LeaseImport,
            O::LeaseRevoke,
            O::Write,
            O::Write,
            O::WriteImm,
            O::WriteImm,
            O::WriteImm,
            O::WriteImm,
            O::Read,
            O::Read,
            O::WriteList,
            O::WriteList,
            O::ReadList,
            O::Send,
            O::Send,
            O::Send,
            O::Recv,
            O::Recv,
            O::CreditGrant,
            O::CreditGrant,
            O::CreditQuery,
            O::CreditWatermarks,
            O::ListPrepare,
            O::LinkTimeout,
        ],
        &[
            O::Alloc,
            O::Free,
            O::Free,
            O::ListPrepare,
            O::ListFree,
            O::LeaseGrant,
            O::LeaseGrant,
            O::LeaseExport,
            O::LeaseImport,
            O::LeaseImport,
            O::LeaseRevoke,
            O::LeaseRenew,
            O::ImportRelease,
            O::Connect,
            O::Connect,
            O::Accept,
            O::Accept,
            O::Disconnect,
            O::Write,
            O::Read,
            O::WriteImm,
            O::ExportDmabuf,
            O::Wait,
            O::Cancel,
        ],
    ]
};

/// What composing needs to know.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The plane's handles.
    pub model: &'a Model,
    /// Tokens that any plane has exported.
    pub tokens: &'a [Vec<u8>],
    /// How many planes there are.
    pub planes: u8,
    /// Opcodes to choose from.
    pub mix: &'a [Opcode],
}

impl Surroundings<'_> {
    /// A handle of a kind: live ones mostly, then ones that are over, then garbage.
    fn handle(&self, kind: HandleKind, pick: u8) -> u64 {
        let live = self.model.handles_of(kind, true);
        let over = self.model.handles_of(kind, false);
        match pick {
            0..224 if !live.is_empty() => live[pick as usize % live.len()],
            0..250 if !over.is_empty() => over[pick as usize % over.len()],
            255 => 0,
            _ => Handle::new(kind, u32::from(pick & 7), u32::from(pick >> 3 & 3)).bits(),
        }
    }

    /// An SQE from seven bytes, and what the client writes first.
    pub fn compose(&self, bytes: [u8; 7]) -> (Sqe, Preparation) {
        let [what, flags, a, b, c, d, e] = bytes;
        let opcode = self.mix[what as usize % self.mix.len()];
        let mut sqe = Sqe { opcode: opcode as u8, ..Sqe::default() };
        sqe.flags = match flags {
            // A chain makes most of what a LINK_TIMEOUT guards.
            0..64 => 0,
            64..96 if opcode != Opcode::LinkTimeout => 0,
            64..176 => SqeFlags::LINK.bits(),
            176..200 => SqeFlags::HARDLINK.bits(),
            200..220 => SqeFlags::CQE_SKIP_SUCCESS.bits(),
            220..232 => SqeFlags::DRAIN.bits(),
            232..240 => SqeFlags::LINK.bits() | SqeFlags::DRAIN.bits(),
            240..250 => SqeFlags::LINK.bits() | SqeFlags::CQE_SKIP_SUCCESS.bits(),
            _ => flags,
        };
        let mut first = Vec::new();
        let time_ns = [0, 1, 50, 1000, u64::MAX][usize::from(e) % 5];
        let offset = u64::from(b % 4) * 64;
        let length = if b == 255 { 1 << 40 } else { u64::from(c % 4 + 1) * 64 };
        let buffer = |pick| self.handle(HandleKind::Buffer, pick);
        match opcode {
            Opcode::Nop | Opcode::Watch => {}
            Opcode::Cancel => match a % 5 {
                0 | 1 => sqe.arg64 = (self.model.entries.len() as u64).saturating_sub(u64::from(b % 16)),
                2 => {
                    sqe.op_flags = op_flags::CANCEL_HANDLE;
                    let kinds = [HandleKind::Buffer, HandleKind::Import, HandleKind::Peer, HandleKind::Lease];
                    sqe.local = self.handle(kinds[usize::from(b) % 4], c);
                }
                3 => sqe.op_flags = op_flags::CANCEL_ANY,
                _ => sqe.op_flags = op_flags::CANCEL_ANY | if d < 32 { op_flags::CANCEL_FORCE } else { 0 },
            },
            Opcode::Timeout | Opcode::LinkTimeout => sqe.arg64 = time_ns,
            Opcode::Wait if a & 1 == 0 => sqe.local = self.handle(HandleKind::Slot, b),
            Opcode::Wait => {
                (sqe.local, sqe.op_flags) = (buffer(b), op_flags::WAIT_WORD);
                (sqe.local_offset, sqe.arg64) = (u64::from(c) * 4, u64::from(d & 1));
            }
            Opcode::Query => sqe.arg32 = u32::from(a % 4),
            Opcode::Alloc => sqe.length = [64, 500, 1000, 4096, 5000][usize::from(a) % 5],
            Opcode::Free => {
                (sqe.local, sqe.op_flags) = (buffer(a), if b & 1 == 0 { 0 } else { op_flags::FREE_REVOKE });
            }
            Opcode::Placement | Opcode::ExportDmabuf | Opcode::Sync => sqe.local = buffer(a),
            Opcode::ListPrepare => {
                sqe.local = buffer(a);
                let run = Run {
                    buffer: buffer(b),
                    offset_bytes: u64::from(c % 4) * 64,
                    stride_bytes: 64,
                    length_bytes: 32,
                    count: u32::from(d % 4) + u32::from(d < 250),
                    reserved: 0,
                };
                sqe.length = u64::from(e % 2) + 1;
                for number in 0..sqe.length {
                    first.push((index_of(sqe.local), number * Run::BYTES, bytes_of(&run.to_words())));
                }
            }
            Opcode::ListFree => sqe.local = self.handle(HandleKind::List, a),
            Opcode::LeaseGrant => {
                sqe.op_flags = [Rights::READ, Rights::WRITE, Rights::KNOWN, Rights::KNOWN][usize::from(c) % 4].bits();
                if d < 64 {
                    sqe.op_flags |= op_flags::GRANT_PEER;
                    sqe.remote = self.handle(HandleKind::Peer, d);
                }
                sqe.arg64 = if e < 64 { 20 + u64::from(e) } else { 0 };
                if a % 4 == 0 {
                    sqe.local = self.handle(HandleKind::List, a);
                } else {
                    (sqe.local, sqe.local_offset, sqe.length) = (buffer(a), offset, 256);
                }
            }
            Opcode::LeaseExport => {
                (sqe.local, sqe.local_offset, sqe.length) = (buffer(a), 256, 80);
                sqe.remote = self.handle(HandleKind::Lease, b);
            }
            Opcode::LeaseImport => {
                (sqe.local, sqe.local_offset) = (buffer(a), 128);
                let token = match self.tokens.len() {
                    0 => vec![0; 80],
                    many => self.tokens[many - 1 - usize::from(b) % many.min(6)].clone(),
                };
                sqe.length = token.len() as u64;
                first.push((index_of(sqe.local), 128, token));
            }
            Opcode::LeaseRenew => (sqe.local, sqe.arg64) = (self.handle(HandleKind::Lease, a), u64::from(b)),
            Opcode::LeaseRevoke => {
                sqe.local = self.handle(HandleKind::Lease, a);
                if b & 1 == 0 {
                    sqe.op_flags = op_flags::REVOKE_NOW;
                } else {
                    sqe.arg64 = time_ns;
                }
            }
            Opcode::ImportRelease => sqe.local = self.handle(HandleKind::Import, a),
            Opcode::Connect => {
                (sqe.local, sqe.length) = (buffer(a), 1);
                first.push((index_of(sqe.local), 0, vec![b % self.planes.max(1)]));
            }
            Opcode::Accept => sqe.local = self.handle(HandleKind::Listener, a),
            Opcode::Disconnect | Opcode::CreditQuery => sqe.remote = self.handle(HandleKind::Peer, a),
            Opcode::CreditWatermarks => {
                sqe.remote = self.handle(HandleKind::Peer, a);
                sqe.arg64 = u64::from(b % 4) | u64::from(c % 3) << 32;
            }
            Opcode::Write | Opcode::WriteImm | Opcode::Read => {
                (sqe.local, sqe.local_offset, sqe.length) = (buffer(a), offset, length);
                sqe.remote = self.handle(HandleKind::Import, d);
                sqe.remote_offset = u64::from(e % 4) * 32;
                if opcode == Opcode::WriteImm {
                    sqe.arg32 = u32::from(e);
                    sqe.op_flags = if e >= 224 { op_flags::NO_CREDIT_WAIT } else { 0 };
                }
                if opcode != Opcode::Write && e & 1 == 1 {
                    sqe.op_flags |= op_flags::CHECKSUM;
                }
            }
            Opcode::WriteList | Opcode::ReadList => {
                sqe.local = self.handle(HandleKind::List, a);
                sqe.remote_offset = buffer(b);
                sqe.remote = self.handle(HandleKind::Import, d);
                sqe.length = u64::from(c % 4) + 1;
                sqe.local_offset = 64;
                let pairs: Vec<u8> = (0..sqe.length as u32)
                    .map(|number| IndexPair { local: number % 3, remote: (number + u32::from(e >> 6)) % 4 })
                    .flat_map(|pair| [pair.local, pair.remote])
                    .flat_map(u32::to_le_bytes)
                    .collect();
                first.push((index_of(sqe.remote_offset), 64, pairs));
                if opcode == Opcode::WriteList && e & 1 == 1 {
                    sqe.op_flags = op_flags::LIST_NOTIFY | if e & 2 == 2 { op_flags::CHECKSUM } else { 0 };
                    (sqe.arg32, sqe.arg64) = (u32::from(e), u64::from(e % 3 * 8) << 48);
                } else if opcode == Opcode::ReadList && e & 2 == 2 {
                    sqe.op_flags = op_flags::CHECKSUM;
                }
            }
            Opcode::Send => {
                (sqe.local, sqe.local_offset, sqe.length) = (buffer(a), offset, length.min(128));
                sqe.remote = self.handle(HandleKind::Peer, d);
                sqe.op_flags = if e >= 240 { op_flags::NO_CREDIT_WAIT } else { 0 };
            }
            Opcode::Recv => {
                (sqe.local, sqe.local_offset, sqe.length) = (buffer(a), offset, length);
                (sqe.remote, sqe.op_flags) = (self.handle(HandleKind::Peer, d), op_flags::GRANT_SLOTS);
            }
            Opcode::CreditGrant => {
                (sqe.remote, sqe.arg32) = (self.handle(HandleKind::Peer, d), u32::from(b % 6));
                if c & 1 == 1 {
                    (sqe.local, sqe.length, sqe.op_flags) = (buffer(a), 64, op_flags::GRANT_SLOTS);
                }
            }
        }
        (sqe, first)
    }
}

fn index_of(handle: u64) -> u32 {
    Handle::from_bits(handle).index()
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
