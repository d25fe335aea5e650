//! `dmaplane demo serve`: a small disaggregated service.
//!
//! Two workers prefill, two decode, each with tensor-parallel shards and few blocks, so that every block is used again
//! as soon as it is free. Requests are aborted at random moments, a worker is killed, and every answer that comes is
//! compared with a run in one process, bit for bit. Where caches are pushed, what stands between an aborted request's
//! late bytes and the next one's cache is the lease alone: built with `broken-no-lease-check` the service gives wrong
//! answers. Where they are pulled the owner also tells the reader that it has ended; built with `broken-no-end-signal`
//! it does not, and the lease is alone there, too.

mod arguments;
mod cluster;
mod memory;
mod message;
mod prompts;
mod router;
mod table;
mod worker;

pub use crate::demo::arguments::Mode;
pub use arguments::{PromptArguments, ServeArguments, WorkerArguments};
pub use prompts::print_prompts;
pub use router::run;
pub use worker::run as run_worker;
