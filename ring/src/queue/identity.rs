//! What a client looks at before it takes memory for a ring (clause RING-2).

use crate::abi::{ABI_VERSION, RING_MAGIC, RingLayout};
use core::fmt;

/// The identification words of an engine's area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingIdentity {
    /// [`RING_MAGIC`] in a ring.
    pub magic: u32,
    /// Version of the ABI.
    pub version: u32,
    /// SQ entries.
    pub sq_entries: u32,
    /// CQ entries.
    pub cq_entries: u32,
}

/// Why memory is not the ring that it was said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMismatch {
    /// An area is not there, shorter than these sizes make it, or lies askew.
    Areas(RingLayout),
    /// No ring, or one that its engine's side has not set up.
    Magic(u32),
    /// A ring of another version of the ABI.
    Version(u32),
    /// A ring of other sizes than the call that attached it said, or of sizes that no ring has.
    Sizes {
        /// What the call said.
        expected: RingLayout,
        /// SQ entries, as the ring says.
        sq_entries: u32,
        /// CQ entries, as the ring says.
        cq_entries: u32,
    },
}

impl RingIdentity {
    /// Of a ring of these sizes.
    pub const fn of(layout: RingLayout) -> RingIdentity {
        let RingLayout { sq_entries, cq_entries } = layout;
        RingIdentity { magic: RING_MAGIC, version: ABI_VERSION, sq_entries, cq_entries }
    }

    /// Whether this is a ring of the sizes that the call which attached it said. Those count; the words are compared
    /// and then used no more.
    pub fn check(&self, expected: RingLayout) -> Result<(), RingMismatch> {
        let RingIdentity { magic, version, sq_entries, cq_entries } = *self;
        if magic != RING_MAGIC {
            return Err(RingMismatch::Magic(magic));
        }
        if version != ABI_VERSION {
            return Err(RingMismatch::Version(version));
        }
        if RingLayout::new(sq_entries, cq_entries) != Some(expected) {
            return Err(RingMismatch::Sizes { expected, sq_entries, cq_entries });
        }
        Ok(())
    }
}

impl fmt::Display for RingMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingMismatch::Areas(layout) => write!(
                f,
                "an area is too short for {} SQ and {} CQ entries, or lies askew",
                layout.sq_entries, layout.cq_entries
            ),
            RingMismatch::Magic(found) => write!(f, "no ring: it begins with {found:#x}, not {RING_MAGIC:#x}"),
            RingMismatch::Version(found) => write!(f, "a ring of ABI version {found}, not {ABI_VERSION}"),
            RingMismatch::Sizes { expected, sq_entries, cq_entries } => write!(
                f,
                "a ring of {sq_entries} SQ and {cq_entries} CQ entries, not {} and {}",
                expected.sq_entries, expected.cq_entries
            ),
        }
    }
}

impl core::error::Error for RingMismatch {}
