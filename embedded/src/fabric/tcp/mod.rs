//! The fabric between hosts without RDMA (clauses TCP-1 to TCP-10).
//!
//! A peer has two sockets: messages go on one, data and the requests that carry it on the other, so that a message
//! never waits behind data. One thread a context moves the bytes. The receiver decides where they go: its engine sees
//! the header before the first byte lands, and a transfer that it stops lands no byte more, whatever the sender does.
//!
//! From the wire inwards: `hello` and `handshake` (how a connection comes about), `noise` (the key), `wire` (records as
//! bytes), `socket`, `receive` and `send` (the data lane), `connection`, `lines` (all of them), `io_thread`, `command`
//! (what the host says) and `report` (what it hears). `events` is what the kernel says, by `uring` or epoll: `backend`
//! chooses. `span` is the memory that a transfer touches, `guard` what may stop it, and `pace`
//! tells bulk that moves from bulk that merely could.

mod backend;
mod command;
mod connection;
mod events;
mod guard;
mod handshake;
mod hello;
mod io_thread;
mod lines;
mod noise;
mod pace;
mod receive;
mod report;
mod send;
mod socket;
mod span;
mod uring;
pub(crate) mod wire;

pub use backend::{TcpBackend, tcp_backend};
pub(crate) use command::Command;
pub(crate) use connection::Sockets;
pub(crate) use guard::Guard;
pub(crate) use handshake::{Acceptor, ListenError, Own, connect, listen};
pub(crate) use io_thread::IoThread;
pub(crate) use receive::Landing;
pub(crate) use report::{ANSWER_BYTES_MAX, Arrived, Ending, Load, Told};
pub(crate) use send::{OutBody, OutFrame};
pub(crate) use span::Span;
pub(crate) use wire::Fragment;
