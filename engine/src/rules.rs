//! What each opcode allows and reserves, by table (clauses SQE-5, RES-1 to RES-5).

use crate::operation::Class;
use dmaplane_ring::abi::{Errno, Opcode, Sqe, SqeFlags, op_flags};

/// Fields that an opcode uses; the others must be zero (clause SQE-5).
struct Fields;

impl Fields {
    const ARG32: u8 = 1 << 0;
    const LOCAL_OFFSET: u8 = 1 << 1;
    const LOCAL: u8 = 1 << 2;
    const LENGTH: u8 = 1 << 3;
    const REMOTE: u8 = 1 << 4;
    const REMOTE_OFFSET: u8 = 1 << 5;
    const ARG64: u8 = 1 << 6;
}

const LOCAL_RANGE: u8 = Fields::LOCAL | Fields::LOCAL_OFFSET | Fields::LENGTH;
const TRANSFER: u8 = LOCAL_RANGE | Fields::REMOTE | Fields::REMOTE_OFFSET;
const LINKS: u8 = SqeFlags::LINK.bits() | SqeFlags::HARDLINK.bits();
const SKIP: u8 = SqeFlags::CQE_SKIP_SUCCESS.bits();
const DRAIN: u8 = SqeFlags::DRAIN.bits();

/// Words of an SQE but its first and `user_data`.
const ARGUMENT_WORDS: usize = Sqe::WORDS - 2;

/// One opcode's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub opcode: Opcode,
    /// The class of its reservation, unless its fields say otherwise: see [`Rule::reservation`].
    class: Class,
    /// What it reserves depends on more than the opcode.
    by_fields: bool,
    /// A flag's bit, 0 for what always reserves one CQE of the local class: see [`Rule::is_plain`].
    awkward: u8,
    /// Bits of the first word of [`Sqe::to_words`] that must be zero.
    forbidden_header: u64,
    /// Bits that must be zero of the words behind it but `user_data`.
    forbidden: [u64; ARGUMENT_WORDS],
}

/// By the opcode's byte; of one that no opcode has, everything is wrong.
static RULES: [Rule; 256] = {
    // The first word has the opcode's byte, which is not zero where it is nobody's: wrong under this mask.
    let nobodys = Rule { forbidden_header: u64::MAX, ..rule(Opcode::Nop) };
    assert!(Opcode::Nop as u8 == 0);
    let mut rules = [nobodys; 256];
    let mut position = 0;
    while position < Opcode::ALL.len() {
        rules[Opcode::ALL[position] as usize] = rule(Opcode::ALL[position]);
        position += 1;
    }
    rules
};

const fn rule(opcode: Opcode) -> Rule {
    let (fields, operation_flags, flags) = allowed(opcode);
    const fn unless(allowed: bool) -> u64 {
        if allowed { 0 } else { u64::MAX }
    }
    // As `Sqe::to_words` puts them; the opcode itself is not looked at again.
    let forbidden_header =
        (!flags as u64) << 8 | (!operation_flags as u64) << 16 | (unless(fields & Fields::ARG32 != 0) >> 32) << 32;
    let forbidden = [
        unless(fields & Fields::LOCAL_OFFSET != 0),
        unless(fields & Fields::LOCAL != 0),
        unless(fields & Fields::LENGTH != 0),
        unless(fields & Fields::REMOTE != 0),
        unless(fields & Fields::REMOTE_OFFSET != 0),
        unless(fields & Fields::ARG64 != 0),
    ];
    let class = if matches!(opcode, Opcode::Cancel) {
        Class::ControlBrief
    } else if opcode.is_control() {
        Class::Control
    } else if opcode.is_passive() {
        Class::Passive
    } else if opcode.is_detained() {
        Class::Detained
    } else {
        Class::Local
    };
    let by_fields = matches!(opcode, Opcode::Free | Opcode::CreditGrant);
    let awkward = if by_fields || !matches!(class, Class::Local) { DRAIN } else { 0 };
    Rule { opcode, class, by_fields, awkward, forbidden_header, forbidden }
}

impl Rule {
    /// Checks an SQE as far as that needs no table: its rule, or -EINVAL for anything unknown or out of place.
    // For each SQE, into the loop that takes them.
    #[inline(always)]
    pub fn of(sqe: &Sqe) -> Result<&'static Rule, Errno> {
        let rule = &RULES[usize::from(sqe.opcode)];
        // Almost without branches: nothing is wrong as a rule, and each test is an instruction or two.
        let [header, local_offset, local, length, _user_data, remote, remote_offset, arg64] = sqe.to_words();
        let mut wrong = header & rule.forbidden_header;
        let arguments = [local_offset, local, length, remote, remote_offset, arg64];
        if arguments.iter().fold(0, |all, word| all | word) != 0 {
            for (word, forbidden) in arguments.into_iter().zip(rule.forbidden) {
                wrong |= word & forbidden;
            }
        }
        if wrong != 0 { Err(Errno::EINVAL) } else { Ok(rule) }
    }

    /// Whether it reserves one CQE of the local class, and asks for no DRAIN: what most do, told by one look.
    #[inline(always)]
    pub fn is_plain(&self, sqe: &Sqe) -> bool {
        (self.awkward | sqe.flags) & DRAIN == 0
    }

    /// The class of what the operation reserves, and the CQEs that it may cause (clause RES-1).
    pub fn reservation(&self, sqe: &Sqe) -> (Class, u32) {
        if self.by_fields { self.reservation_by_fields(sqe) } else { (self.class, 1) }
    }

    #[cold]
    fn reservation_by_fields(&self, sqe: &Sqe) -> (Class, u32) {
        match self.opcode {
            Opcode::Free if sqe.op_flags & op_flags::FREE_REVOKE == 0 => (Class::ControlBrief, 1),
            Opcode::CreditGrant => (self.class, sqe.arg32.max(1)),
            _ => (self.class, 1),
        }
    }
}

/// What an opcode allows: fields, op_flags, flags.
const fn allowed(opcode: Opcode) -> (u8, u16, u8) {
    use Opcode as O;
    use op_flags as F;
    let rights = 3;
    match opcode {
        O::Nop => (0, 0, LINKS | SKIP | DRAIN),
        O::Cancel => (
            Fields::ARG64 | Fields::LOCAL,
            F::CANCEL_ALL | F::CANCEL_HANDLE | F::CANCEL_ANY | F::CANCEL_FORCE,
            LINKS | SKIP | DRAIN,
        ),
        O::Timeout => (Fields::ARG64, F::TIMEOUT_ABSOLUTE, LINKS | DRAIN),
        O::LinkTimeout => (Fields::ARG64, 0, LINKS),
        O::Watch => (0, 0, 0),
        O::Wait => (Fields::LOCAL | Fields::LOCAL_OFFSET | Fields::ARG64, F::WAIT_WORD, LINKS | SKIP | DRAIN),
        O::Query => (Fields::ARG32, 0, LINKS | DRAIN),
        O::Alloc => (
            Fields::LENGTH | Fields::ARG32,
            F::ALLOC_NODE | F::ALLOC_STRICT | F::ALLOC_HUGE | F::ALLOC_RECYCLE,
            LINKS | DRAIN,
        ),
        O::Free => (Fields::LOCAL, F::FREE_REVOKE, LINKS | SKIP | DRAIN),
        O::Placement => (Fields::LOCAL | Fields::ARG32, 0, LINKS | DRAIN),
        O::ExportDmabuf => (Fields::LOCAL, 0, LINKS | DRAIN),
        O::Sync => (Fields::LOCAL, F::SYNC_END, LINKS | SKIP | DRAIN),
        O::ListPrepare => (LOCAL_RANGE, 0, LINKS | DRAIN),
        O::ListFree => (Fields::LOCAL, 0, LINKS | SKIP | DRAIN),
        O::LeaseGrant => (LOCAL_RANGE | Fields::REMOTE | Fields::ARG64, rights | F::GRANT_PEER, LINKS | DRAIN),
        O::LeaseExport => (LOCAL_RANGE | Fields::REMOTE, 0, LINKS | DRAIN),
        O::LeaseImport => (LOCAL_RANGE | Fields::REMOTE, 0, LINKS | DRAIN),
        O::LeaseRenew => (Fields::LOCAL | Fields::ARG64, 0, LINKS | SKIP | DRAIN),
        O::LeaseRevoke => (Fields::LOCAL | Fields::ARG64, F::REVOKE_NOW, LINKS | SKIP | DRAIN),
        O::ImportRelease => (Fields::LOCAL, 0, LINKS | SKIP | DRAIN),
        O::Connect => (LOCAL_RANGE, 0, LINKS | DRAIN),
        O::Accept => (Fields::LOCAL, 0, LINKS | DRAIN),
        O::Disconnect => (Fields::REMOTE, 0, LINKS | SKIP | DRAIN),
        O::Write => (TRANSFER, 0, LINKS | SKIP | DRAIN),
        O::Read | O::ReadList => (TRANSFER, F::CHECKSUM, LINKS | SKIP | DRAIN),
        O::WriteImm => (TRANSFER | Fields::ARG32, F::NO_CREDIT_WAIT | F::CHECKSUM, LINKS | SKIP | DRAIN),
        O::WriteList => (
            TRANSFER | Fields::ARG32 | Fields::ARG64,
            F::NO_CREDIT_WAIT | F::LIST_NOTIFY | F::CHECKSUM,
            LINKS | SKIP | DRAIN,
        ),
        O::Send => (LOCAL_RANGE | Fields::REMOTE, F::NO_CREDIT_WAIT, LINKS | SKIP | DRAIN),
        O::Recv => (LOCAL_RANGE | Fields::REMOTE, F::GRANT_SLOTS, LINKS | DRAIN),
        O::CreditGrant => (LOCAL_RANGE | Fields::REMOTE | Fields::ARG32, F::GRANT_SLOTS, 0),
        O::CreditQuery => (Fields::REMOTE, 0, LINKS | DRAIN),
        O::CreditWatermarks => (Fields::REMOTE | Fields::ARG64, 0, LINKS | SKIP | DRAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQE-5: each bit of each field, of every opcode byte.
    #[test]
    fn sqe_5_a_bit_that_an_opcode_does_not_use_is_refused() {
        for byte in 0..=u8::MAX {
            let known = Opcode::ALL.iter().copied().find(|opcode| *opcode as u8 == byte);
            assert_eq!(Rule::of(&Sqe { opcode: byte, ..Sqe::default() }).is_ok(), known.is_some(), "{byte:#x}");
            for (word, bit) in (0..Sqe::WORDS).flat_map(|word| (0..64).map(move |bit| (word, bit))) {
                if word == 0 && bit < 8 {
                    // The opcode's own.
                    continue;
                }
                let mut words = Sqe { opcode: byte, ..Sqe::default() }.to_words();
                words[word] |= 1 << bit;
                let is_allowed = known.is_some_and(|opcode| {
                    let (fields, op_flags, flags) = allowed(opcode);
                    match (word, bit) {
                        (0, 8..16) => u64::from(flags) >> (bit - 8) & 1 != 0,
                        (0, 16..32) => u64::from(op_flags) >> (bit - 16) & 1 != 0,
                        (0, _) => fields & Fields::ARG32 != 0,
                        (1, _) => fields & Fields::LOCAL_OFFSET != 0,
                        (2, _) => fields & Fields::LOCAL != 0,
                        (3, _) => fields & Fields::LENGTH != 0,
                        (4, _) => true,
                        (5, _) => fields & Fields::REMOTE != 0,
                        (6, _) => fields & Fields::REMOTE_OFFSET != 0,
                        _ => fields & Fields::ARG64 != 0,
                    }
                });
                let sqe = Sqe::from_words(words);
                assert_eq!(Rule::of(&sqe).is_ok(), is_allowed, "{byte:#x}: bit {bit} of word {word}");
                // The short way to a reservation says nothing else than the long one.
                if let Ok(rule) = Rule::of(&sqe)
                    && rule.is_plain(&sqe)
                {
                    assert_eq!(rule.reservation(&sqe), (Class::Local, 1), "{byte:#x}");
                }
            }
        }
    }
}
