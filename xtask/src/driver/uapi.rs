//! The UAPI header, made of the ring crate's types: `driver/include/dmaplane.h`.
//!
//! What the header says of sizes and offsets it also asserts, so that a C compiler finds any disagreement.

use std::fmt::Write as _;
use std::mem::offset_of;

use dmaplane_ring::abi::device::{
    COUNTERS_BYTES, COUNTERS_LATENCY, COUNTERS_OFFSET, DEVICE_CLOSE, DEVICE_ENTER, DEVICE_EVENTFD, DEVICE_IMPORT,
    DEVICE_IOCTL_TYPE, DEVICE_LISTEN, DEVICE_MAP, DEVICE_PIN, DEVICE_RING, DEVICE_SETUP, DEVICE_SLOT, DEVICE_TAKE,
    DeviceClose, DeviceCounters, DeviceEnter, DeviceEventfd, DeviceImport, DeviceListen, DeviceMap, DevicePin,
    DeviceRing, DeviceSetup, DeviceSlot, DeviceTake, LATENCY_BUCKETS, LATENCY_OPCODES, device_features, pin_flags,
    setup_flags,
};
use dmaplane_ring::abi::{
    ABI_VERSION, ClientArea, Cqe, CqeFlags, EngineArea, IndexPair, MAX_LIST_SEGMENTS, MAX_NOTIFICATION_BYTES,
    MAX_OPERATION_BYTES, MAX_SEND_BYTES, MAX_TOKEN_BYTES, Opcode, QueryWhat, RING_MAGIC, Rights, RingFlags, Run, Sqe,
    SqeFlags, op_flags,
};

/// Where the header lies, from the root of the tree.
pub const HEADER: &str = "driver/include/dmaplane.h";

/// A field: its name, C's type for it (`__u64 [4]` for an array), where it is, and its size.
type Field = (&'static str, &'static str, usize, usize);

/// A structure as C sees it.
struct Structure {
    name: &'static str,
    bytes: usize,
    fields: Vec<Field>,
}

macro_rules! structure {
    ($rust:ty as $name:literal { $($field:ident: $kind:literal),* $(,)? }) => {
        Structure {
            name: $name,
            bytes: size_of::<$rust>(),
            fields: vec![$({
                let bytes = field_bytes(|it: &$rust| size_of_val(&it.$field));
                (stringify!($field), $kind, offset_of!($rust, $field), bytes)
            }),*],
        }
    };
}

/// The size of a field, by a value of zeroes.
fn field_bytes<T: Default>(of: impl Fn(&T) -> usize) -> usize {
    of(&T::default())
}

fn structures() -> Vec<Structure> {
    vec![
        structure!(Sqe as "dmaplane_sqe" {
            opcode: "__u8", flags: "__u8", op_flags: "__u16", arg32: "__u32", local_offset: "__u64", local: "__u64",
            length: "__u64", user_data: "__u64", remote: "__u64", remote_offset: "__u64", arg64: "__u64",
        }),
        structure!(Cqe as "dmaplane_cqe" {
            user_data: "__u64", res: "__s32", flags: "__u32", word0: "__u64", word1: "__u64",
        }),
        structure!(Run as "dmaplane_run" {
            buffer: "__u64", offset_bytes: "__u64", stride_bytes: "__u64", length_bytes: "__u32", count: "__u32",
            reserved: "__u64",
        }),
        structure!(IndexPair as "dmaplane_index_pair" { local: "__u32", remote: "__u32" }),
        structure!(DeviceSetup as "dmaplane_setup" {
            abi_version: "__u32", flags: "__u32", features: "__u32", poller_idle_us: "__u32", poller_cpu: "__u32",
            rings: "__u32", operations: "__u32", buffers: "__u32", lists: "__u32", leases: "__u32", imports: "__u32",
            peers: "__u32", listeners: "__u32", slots: "__u32", inbound_per_peer: "__u32", reserved0: "__u32",
            buffer_bytes: "__u64", memory_bytes: "__u64", reserved: "__u64 [4]",
        }),
        structure!(DeviceRing as "dmaplane_ring" {
            sq_entries: "__u32", cq_entries: "__u32", flags: "__u32", index: "__u32", client_bytes: "__u64",
            engine_offset: "__u64", engine_bytes: "__u64", reserved: "__u64 [2]",
        }),
        structure!(DeviceEnter as "dmaplane_enter" {
            min_complete: "__u32", flags: "__u32", timeout_ns: "__u64", signal_mask: "__u64",
            signal_mask_bytes: "__u32", reserved: "__u32",
        }),
        structure!(DeviceEventfd as "dmaplane_eventfd" { fd: "__s32", flags: "__u32" }),
        structure!(DeviceMap as "dmaplane_map" {
            buffer: "__u64", flags: "__u64", offset: "__u64", length_bytes: "__u64",
        }),
        structure!(DeviceClose as "dmaplane_close" { flags: "__u64", reserved: "__u64" }),
        structure!(DeviceImport as "dmaplane_import" {
            fd: "__s32", flags: "__u32", buffer: "__u64", length_bytes: "__u64", reserved: "__u64",
        }),
        structure!(DevicePin as "dmaplane_pin" {
            address: "__u64", length_bytes: "__u64", flags: "__u32", reserved: "__u32", buffer: "__u64",
        }),
        structure!(DeviceSlot as "dmaplane_slot" { fd: "__s32", flags: "__u32", slot: "__u64", reserved: "__u64" }),
        structure!(DeviceCounters as "dmaplane_counters" {
            sqes_taken: "__u64", cqes_posted: "__u64", cqes_failed: "__u64", client_wakes: "__u64", works: "__u64",
            works_put_off: "__u64", copies: "__u64", copies_failed: "__u64", bytes_in: "__u64", bytes_out: "__u64",
            reserved: "__u64 [6]",
        }),
        structure!(DeviceTake as "dmaplane_take" { slot: "__u64", flags: "__u64" }),
        structure!(DeviceListen as "dmaplane_listen" {
            address: "__u64", address_bytes: "__u32", flags: "__u32", listener: "__u64", reserved: "__u64",
        }),
    ]
}

/// Constants in groups: what they are, and each with its value.
fn constants() -> Vec<(&'static str, Vec<(String, String)>)> {
    let hex = |name: &str, value: u32| (format!("DMAPLANE_{name}"), format!("{value:#x}u"));
    let bound = |name: &str, value: u64| (format!("DMAPLANE_{name}"), format!("{value}ull"));
    let offset = |name: &str, value: usize| (format!("DMAPLANE_{name}"), value.to_string());
    let opcode = |op: &Opcode| (format!("DMAPLANE_OP_{}", screaming(&format!("{op:?}"))), (*op as u8).to_string());
    vec![
        (
            "The version of all of this.",
            vec![("DMAPLANE_ABI_VERSION".into(), format!("{ABI_VERSION}u")), hex("RING_MAGIC", RING_MAGIC)],
        ),
        ("What an SQE asks for.", Opcode::ALL.iter().map(opcode).collect()),
        (
            "An SQE's flags.",
            vec![
                hex("SQE_DRAIN", SqeFlags::DRAIN.bits().into()),
                hex("SQE_LINK", SqeFlags::LINK.bits().into()),
                hex("SQE_HARDLINK", SqeFlags::HARDLINK.bits().into()),
                hex("SQE_CQE_SKIP_SUCCESS", SqeFlags::CQE_SKIP_SUCCESS.bits().into()),
            ],
        ),
        (
            "A CQE's flags.",
            vec![
                hex("CQE_MORE", CqeFlags::MORE.bits()),
                hex("CQE_IMMEDIATE", CqeFlags::IMMEDIATE.bits()),
                hex("CQE_PAYLOAD", CqeFlags::PAYLOAD.bits()),
                hex("CQE_UNVERIFIABLE", CqeFlags::UNVERIFIABLE.bits()),
                hex("CQE_CHECKSUM", CqeFlags::CHECKSUM.bits()),
            ],
        ),
        (
            "Flags of a ring's areas.",
            vec![
                hex("RING_NEED_WAKEUP", RingFlags::NEED_WAKEUP.bits()),
                hex("RING_CLOSED", RingFlags::CLOSED.bits()),
                hex("RING_CQ_BLOCKED", RingFlags::CQ_BLOCKED.bits()),
            ],
        ),
        (
            "Where words lie in the client's area, and its entries.",
            vec![
                offset("CLIENT_SQ_TAIL", ClientArea::SQ_TAIL),
                offset("CLIENT_CQ_HEAD", ClientArea::CQ_HEAD),
                offset("CLIENT_FLAGS", ClientArea::FLAGS),
                offset("CLIENT_SQES", ClientArea::ENTRIES),
            ],
        ),
        (
            "Where words lie in the engine's area, and its entries.",
            vec![
                offset("ENGINE_MAGIC", EngineArea::MAGIC),
                offset("ENGINE_VERSION", EngineArea::VERSION),
                offset("ENGINE_SQ_ENTRIES", EngineArea::SQ_ENTRIES),
                offset("ENGINE_CQ_ENTRIES", EngineArea::CQ_ENTRIES),
                offset("ENGINE_SQ_HEAD", EngineArea::SQ_HEAD),
                offset("ENGINE_CQ_TAIL", EngineArea::CQ_TAIL),
                offset("ENGINE_FLAGS", EngineArea::FLAGS),
                offset("ENGINE_CQES", EngineArea::ENTRIES),
            ],
        ),
        (
            "Bounds of operations.",
            vec![
                bound("MAX_OPERATION_BYTES", MAX_OPERATION_BYTES),
                bound("MAX_LIST_SEGMENTS", MAX_LIST_SEGMENTS),
                bound("MAX_SEND_BYTES", MAX_SEND_BYTES),
                bound("MAX_NOTIFICATION_BYTES", MAX_NOTIFICATION_BYTES),
                bound("MAX_TOKEN_BYTES", MAX_TOKEN_BYTES as u64),
            ],
        ),
        (
            "An SQE's op_flags; each opcode knows its own.",
            vec![
                hex("OP_CANCEL_ALL", op_flags::CANCEL_ALL.into()),
                hex("OP_CANCEL_HANDLE", op_flags::CANCEL_HANDLE.into()),
                hex("OP_CANCEL_ANY", op_flags::CANCEL_ANY.into()),
                hex("OP_CANCEL_FORCE", op_flags::CANCEL_FORCE.into()),
                hex("OP_TIMEOUT_ABSOLUTE", op_flags::TIMEOUT_ABSOLUTE.into()),
                hex("OP_WAIT_WORD", op_flags::WAIT_WORD.into()),
                hex("OP_ALLOC_NODE", op_flags::ALLOC_NODE.into()),
                hex("OP_ALLOC_STRICT", op_flags::ALLOC_STRICT.into()),
                hex("OP_ALLOC_HUGE", op_flags::ALLOC_HUGE.into()),
                hex("OP_ALLOC_RECYCLE", op_flags::ALLOC_RECYCLE.into()),
                hex("OP_FREE_REVOKE", op_flags::FREE_REVOKE.into()),
                hex("OP_GRANT_PEER", op_flags::GRANT_PEER.into()),
                hex("OP_REVOKE_NOW", op_flags::REVOKE_NOW.into()),
                hex("OP_NO_CREDIT_WAIT", op_flags::NO_CREDIT_WAIT.into()),
                hex("OP_LIST_NOTIFY", op_flags::LIST_NOTIFY.into()),
                hex("OP_CHECKSUM", op_flags::CHECKSUM.into()),
                hex("OP_GRANT_SLOTS", op_flags::GRANT_SLOTS.into()),
                hex("OP_SYNC_END", op_flags::SYNC_END.into()),
            ],
        ),
        (
            "What QUERY asks for.",
            vec![
                bound("QUERY_EVENTS", QueryWhat::Events as u64),
                bound("QUERY_REFUSED", QueryWhat::Refused as u64),
                bound("QUERY_IN_FLIGHT", QueryWhat::InFlight as u64),
            ],
        ),
        (
            "Rights of a lease.",
            vec![hex("RIGHT_READ", Rights::READ.bits().into()), hex("RIGHT_WRITE", Rights::WRITE.bits().into())],
        ),
        (
            "A context's counters, and what follows them: a histogram an opcode, of powers of two of nanoseconds.",
            vec![
                bound("COUNTERS_OFFSET", COUNTERS_OFFSET),
                bound("COUNTERS_BYTES", COUNTERS_BYTES),
                bound("COUNTERS_LATENCY", COUNTERS_LATENCY),
                bound("LATENCY_OPCODES", LATENCY_OPCODES),
                bound("LATENCY_BUCKETS", LATENCY_BUCKETS),
            ],
        ),
        (
            "Flags and features of a set-up, and flags of calls.",
            vec![
                hex("PIN_READ_ONLY", pin_flags::READ_ONLY),
                hex("SETUP_POLLER", setup_flags::POLLER),
                hex("SETUP_POLLER_CPU", setup_flags::POLLER_CPU),
                hex("FEATURE_PLACEMENT", device_features::PLACEMENT),
            ],
        ),
    ]
}

/// `LeaseGrant` as `LEASE_GRANT`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for (place, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            out.push('_');
        }
        out.extend(letter.to_uppercase());
    }
    out
}

/// The header's text.
#[must_use]
pub fn header() -> String {
    let mut out = String::from(
        "/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */\n\
         /*\n * What crosses /dev/dmaplane. Made of the types in ring/src/abi by `cargo xtask uapi`; do not edit.\n \
         * What they mean stands in sqe-cqe-spec.md.\n */\n\
         #ifndef DMAPLANE_UAPI_H\n#define DMAPLANE_UAPI_H\n\n#include <linux/ioctl.h>\n#include <linux/types.h>\n",
    );
    for (what, names) in constants() {
        let _ = writeln!(out, "\n/* {what} */");
        for (name, value) in names {
            let _ = writeln!(out, "#define {name} {value}");
        }
    }
    let structures = structures();
    for Structure { name, fields, .. } in &structures {
        let _ = writeln!(out, "\nstruct {name} {{");
        for (field, kind, ..) in fields {
            let (kind, array) = kind.split_once(' ').unwrap_or((kind, ""));
            let _ = writeln!(out, "\t{kind} {field}{array};");
        }
        out.push_str("};\n");
    }
    let _ = writeln!(out, "\n/* Calls on a context; ENTER and EVENTFD are on a ring, CLOSE is on both. */");
    let calls = [
        ("SETUP", "dmaplane_setup", DEVICE_SETUP),
        ("RING", "dmaplane_ring", DEVICE_RING),
        ("ENTER", "dmaplane_enter", DEVICE_ENTER),
        ("MAP", "dmaplane_map", DEVICE_MAP),
        ("EVENTFD", "dmaplane_eventfd", DEVICE_EVENTFD),
        ("LISTEN", "dmaplane_listen", DEVICE_LISTEN),
        ("CLOSE", "dmaplane_close", DEVICE_CLOSE),
        ("IMPORT", "dmaplane_import", DEVICE_IMPORT),
        ("PIN", "dmaplane_pin", DEVICE_PIN),
        ("SLOT", "dmaplane_slot", DEVICE_SLOT),
        ("TAKE", "dmaplane_take", DEVICE_TAKE),
    ];
    for (call, structure, number) in calls {
        let (name, low) = (format!("DMAPLANE_IOCTL_{call}"), number & 0xff);
        let _ = writeln!(out, "#define {name} _IOWR({DEVICE_IOCTL_TYPE:#x}, {low}, struct {structure})");
    }
    out.push_str("\n#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L\n");
    for Structure { name, bytes, fields } in &structures {
        let _ = writeln!(out, "_Static_assert(sizeof(struct {name}) == {bytes}, \"{name}\");");
        for (field, _, offset, size) in fields {
            let _ = writeln!(
                out,
                "_Static_assert(__builtin_offsetof(struct {name}, {field}) == {offset} &&\n\t\t       \
                 sizeof(((struct {name} *)0)->{field}) == {size},\n\t       \"{name}.{field}\");"
            );
        }
    }
    for (call, _, number) in calls {
        let _ = writeln!(out, "_Static_assert(DMAPLANE_IOCTL_{call} == {number:#x}u, \"{call}\");");
    }
    out.push_str("#endif\n\n#endif\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::capture;
    use crate::workspace::Workspace;

    /// The committed header is what the types make. `cargo xtask uapi` writes it anew.
    #[test]
    fn the_committed_header_is_not_stale() {
        let path = Workspace::discover().unwrap().root.join(HEADER);
        assert!(std::fs::read_to_string(&path).unwrap() == header(), "{HEADER} is stale: cargo xtask uapi");
    }

    /// C and Rust agree on each offset, size and call; and a header that says something else is refused.
    #[test]
    fn c_and_rust_agree_on_every_offset_and_a_wrong_one_is_noticed() {
        let workspace = Workspace::discover().unwrap();
        let folder = workspace.target.join("uapi-test");
        std::fs::create_dir_all(&folder).unwrap();
        let compiles = |text: String| {
            let file = folder.join("header.c");
            std::fs::write(&file, text).unwrap();
            let mut command = workspace.command("cc");
            command.args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only"]).arg(&file);
            capture(command)
        };
        compiles(header()).unwrap();
        let swapped =
            header().replacen("\t__u64 local_offset;\n\t__u64 local;", "\t__u64 local;\n\t__u64 local_offset;", 1);
        assert_ne!(swapped, header());
        assert!(compiles(swapped).unwrap_err().to_string().contains("dmaplane_sqe.local"));
    }

    #[test]
    fn names_are_put_in_capitals() {
        assert_eq!((screaming("Nop"), screaming("LeaseGrant")), ("NOP".into(), "LEASE_GRANT".into()));
    }
}
