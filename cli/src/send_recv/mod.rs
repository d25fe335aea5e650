//! `dmaplane send` and `dmaplane recv`: a safetensors file from one process to another, tensor by tensor, through
//! leased buffers.
//!
//! The file is cut at its tensors: large ones into pieces of their own, small neighbours share one. The receiver leases
//! a few staging buffers to the sender, one piece each; the sender writes a piece with an immediate that names it; the
//! receiver ends that lease, and only then checks the bytes and puts them into the file. So nothing that was checked
//! can change any more, whatever the sender does. Reading, moving and writing overlap.
//!
//! The output has no name until all of it is there and its checksums are right: the whole file's, and each tensor's.

mod arguments;
mod digest;
mod disk;
mod header;
mod key;
mod message;
mod output;
mod pieces;
mod progress;
mod receiver;
mod report;
mod sender;
mod signals;
mod wire;

pub(crate) use message::{from_hex, to_hex};

pub use arguments::{RecvArguments, SendArguments};
pub use receiver::run as recv;
pub use sender::run as send;
