//! The dmaplane ABI and its rings.
//!
//! [`abi`] is the single source of truth for what crosses the boundary between a client and an engine: 64-byte
//! [`Sqe`](abi::Sqe)s, 32-byte [`Cqe`](abi::Cqe)s, opcodes, flags, errnos, handles and the layout of a ring's memory.
//! [`queue`] holds the single-producer single-consumer ring and its four typed ends. [`build`] makes SQEs, one builder
//! an opcode. With the feature `std`, `wait` parks a thread on a futex.
//!
//! The normative text is `sqe-cqe-spec.md`; clause numbers such as RING-3 refer to it.
//!
//! ```
//! use dmaplane_ring::abi::{Cqe, Opcode};
//! use dmaplane_ring::build::Nop;
//! use dmaplane_ring::queue::{HeapRing, RingSizes};
//!
//! let sizes = RingSizes::new(8, 16).unwrap();
//! let (mut client, mut engine) = HeapRing::pair(sizes);
//! client.submitter.push(&Nop::new().user_data(7).sqe()).unwrap();
//! let _wake = client.submitter.publish();
//!
//! let sqe = engine.submissions.peek(0).unwrap();
//! assert_eq!(sqe.opcode, Opcode::Nop as u8);
//! engine.submissions.advance(1);
//! engine.completions.push(&Cqe::new(sqe.user_data, 0)).unwrap();
//! engine.completions.publish();
//!
//! assert_eq!(client.completer.reap_one().unwrap().user_data, 7);
//! ```
#![no_std]
#![deny(missing_docs)]

#[cfg(feature = "std")]
extern crate std;

pub mod abi;
pub mod atomic;
pub mod build;
pub mod nospec;
pub mod queue;
#[cfg(feature = "std")]
pub mod wait;
