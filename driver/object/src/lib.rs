//! The Rust side of `dmaplane.ko`: what the driver's C glue calls, and what it has to offer.
//!
//! The engine decides, this crate runs it, C acts. C owns every lock, every byte of memory and every thread; this crate
//! owns the engine, its tables and its ends of the rings, in one block of memory that C hands in.
//!
//! | module | what |
//! |---|---|
//! | `glue` | every function that C has to implement, with its rules |
//! | `types` | the structures that cross the border |
//! | `tables` | the block of memory, carved into tables |
//! | `areas`, `rings` | the two areas of a ring, and the engine's ends of it |
//! | `host` | the engine's `Host`, by the glue |
//! | `context` | a context, and who may touch what of it |
//! | `run` | turns, and sleeping |
//! | `exports` | what C calls: set-up, running, closing |
//! | `posts` | what C calls: events, from any context |
//! | `calls` | what C calls: objects that enter and leave by a system call |
//! | `lists` | what C calls: where a list's segments lie |
//!
//! Built twice: by cargo, so that lints and documentation hold for it, and by `cargo xtask engine-object`, which links
//! it with ring and engine into the object that the kernel module contains. That one holds no panic, no allocation, no
//! vector register and no indirect branch.
//!
//! Speculation (clause SEC-3): nothing in this crate indexes with a number of the user's; ring indices are those that
//! `dmaplane_attach_ring` gave to C. Positions in a ring are masked with private sizes (`MappedRing` in
//! `dmaplane_ring`). Nodes, offsets and lengths are C's to check, with `array_index_nospec` where they lead to an
//! index. What remains are handles and the operation numbers of peers, which lead into the engine's tables: the mask
//! belongs into `Table` there.

#![no_std]

mod areas;
pub mod calls;
mod context;
pub mod exports;
pub mod glue;
mod host;
pub mod lists;
pub mod observe;
pub mod posts;
mod rings;
mod run;
mod tables;
pub mod types;

pub use context::Context;
