//! How messages and bytes reach peers.

pub(crate) mod address;
pub(crate) mod frames;
pub(crate) mod shakes;
pub(crate) mod shm;
pub(crate) mod tcp;

use dmaplane_engine::PeerInfo;

/// A connection whose handshake is done and which no engine has adopted yet.
pub(crate) struct Pending {
    pub info: PeerInfo,
    pub connection: Connection,
}

/// A connection of either fabric.
pub(crate) enum Connection {
    Shm(Box<shm::Link>),
    Tcp(Box<tcp::Sockets>),
}
