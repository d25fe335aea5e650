//! `driver/engine.h` and `types.rs` say the same of every field: a C compiler is asked.

use dmaplane_engine::ListShape;
use dmaplane_engine_object::types::{
    GlueAlloc, GlueIncoming, GlueOutcome, GluePeerInfo, GluePlace, GluePost, GlueRecord, GlueSighting, GlueTarget,
    GlueUsage, Setup,
};
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;
use std::process::{Command, Output};

/// A structure's assertions: its size, and each field's place.
macro_rules! structure {
    ($out:ident, $rust:ty as $c:literal { $($field:ident),* $(,)? }) => {
        let _ = writeln!($out, "_Static_assert(sizeof(struct {}) == {}, \"{}\");", $c, size_of::<$rust>(), $c);
        $(
            let (name, offset) = (stringify!($field), offset_of!($rust, $field));
            let place = format!("__builtin_offsetof(struct {}, {name})", $c);
            let _ = writeln!($out, "_Static_assert({place} == {offset}, \"{}.{name}\");", $c);
        )*
    };
}

fn assertions() -> String {
    let mut out = String::new();
    structure!(out, Setup as "dmp_setup" {
        buffer_bytes, context, token_key, rings, operations, buffers, lists, leases, imports, peers, listeners, slots,
        inbound_per_peer,
    });
    structure!(out, GlueOutcome as "dmp_outcome" { word0, word1, result, started });
    structure!(out, GlueAlloc as "dmp_alloc" { length_bytes, node, flags });
    structure!(out, GluePost as "dmp_post" {
        kind, object, offset, length, index_buffer, notification_bytes, index_offset, notification_offset,
    });
    structure!(out, GlueTarget as "dmp_target" { kind, object, offset, length });
    structure!(out, GluePeerInfo as "dmp_peer_info" { context, window, reserved });
    structure!(out, GlueIncoming as "dmp_incoming" { peer, words, kind, frame, errno, reserved });
    structure!(out, GluePlace as "dmp_place" { offset, buffer, length_bytes });
    structure!(out, GlueUsage as "dmp_usage" {
        refused, breaches, operations, buffers, lists, leases, imports, peers, inbound, slots, listeners,
        awaiting_glue,
    });
    structure!(out, GlueSighting as "dmp_sighting" { op, user_data, state, ring, opcode, result, reserved });
    structure!(out, GlueRecord as "dmp_record" { handle, state, words, index, reserved });
    out
}

/// What the header takes of the kernel's own.
const KERNELS: [(&str, &str); 2] = [
    ("build_bug.h", "#define static_assert(what, ...) _Static_assert(what, #what)\n"),
    (
        "types.h",
        "#include <stdbool.h>\n#include <stdint.h>\n\
         typedef uint64_t u64;\ntypedef uint32_t u32;\ntypedef int32_t s32;\n",
    ),
];

fn compiles(header: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("linux")).unwrap();
    for (name, text) in KERNELS {
        std::fs::write(folder.path().join("linux").join(name), text).unwrap();
    }
    let file = folder.path().join("engine.c");
    std::fs::write(&file, format!("{header}\n{}", assertions())).unwrap();
    Command::new("cc").args(["-std=gnu11", "-fsyntax-only", "-I"]).arg(folder.path()).arg(&file).output().unwrap()
}

#[test]
fn c_and_rust_agree_on_every_field_and_a_wrong_one_is_noticed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine.h");
    let header = std::fs::read_to_string(path).unwrap();
    let output = compiles(&header);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let swapped = header.replacen("\tu32 index;\n\tu32 reserved;", "\tu32 reserved;\n\tu32 index;", 1);
    assert_ne!(swapped, header);
    let said = compiles(&swapped).stderr;
    assert!(String::from_utf8_lossy(&said).contains("dmp_record.index"), "{}", String::from_utf8_lossy(&said));
    // What C keeps of a list is opaque to it, and aligned to 8.
    assert_eq!(align_of::<ListShape>(), 8);
}
