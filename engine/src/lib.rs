//! The dmaplane engine: one state machine for the kernel, the embedded host and the simulator.
//!
//! It decides and its [`Host`] acts. It never allocates, blocks, panics or does I/O; its tables are handed in once
//! ([`Storage`]), and its state is `Clone + Hash`, so that it can be searched. Whoever runs it holds the context's
//! [`Baton`]; what happens elsewhere arrives as [`Event`]s through the [`Inbox`].
//!
//! The rooms: `table` (handles), `ring` (reservation, chains, drain), `control`, `buffer`, `list`, `lease`, `import`,
//! `peer`, `credit`, `transfer` (what we asked of peers), `inbound` (what peers ask of us), `teardown`.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod baton;
mod buffer;
mod control;
mod credit;
mod engine;
mod event;
mod host;
mod import;
mod inbound;
mod inbox;
mod lease;
mod limits;
mod list;
mod message;
mod observe;
mod operation;
mod peer;
mod ring;
mod rules;
mod siphash;
mod storage;
mod submit;
mod table;
mod teardown;
mod timer;
mod token;
mod transfer;

pub use baton::{Baton, Release};
pub use engine::{Engine, Identity, Statistics, Usage};
pub use event::Event;
pub use host::{AllocRequest, Host, LocalPart, Outcome, PeerInfo, PlacementReport, Post, Target};
pub use inbox::{Inbox, InboxSlot};
pub use limits::Limits;
pub use list::{ListShape, locate_segment};
pub use message::{Message, Request, RequestKind, WIRE_WORDS};
pub use observe::{Record, RecordKind, Seen};
pub use operation::{OpId, Operation, State};
pub use ring::RingState;
pub use storage::{Storage, TableMemory};
pub use submit::{Stop, Take};
pub use table::Slot;
pub use token::Token;
