//! Ours: two processes, one of which writes into what the other leases.

pub mod child;
pub mod connection;
pub mod pair;
pub mod receiver;
pub mod workload;

pub use pair::Pair;
