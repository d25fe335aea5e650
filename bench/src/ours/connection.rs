//! A process that writes, connected with one that has leased memory to it.

use super::child::Child;
use super::workload;
use anyhow::{Result, ensure};
use dmaplane::{Buffer, Config, Context, Import, Peer, Plane};
use std::time::Duration;

pub const WAIT: Duration = Duration::from_secs(30);
const VERDICT_BYTES_MAX: usize = 4096;
const TOKEN_BYTES_MAX: usize = 4096;

/// How the two processes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fabric {
    Shm,
    Tcp,
}

impl Fabric {
    pub const BOTH: [Fabric; 2] = [Fabric::Shm, Fabric::Tcp];

    pub fn name(self) -> &'static str {
        match self {
            Fabric::Shm => "shm",
            Fabric::Tcp => "tcp",
        }
    }

    /// Where to listen; the folder is for the socket of shm.
    pub fn address(self, folder: &tempfile::TempDir) -> String {
        match self {
            Fabric::Shm => format!("shm:{}", folder.path().join("bench").display()),
            Fabric::Tcp => "tcp:127.0.0.1:0".to_owned(),
        }
    }
}

/// The writing side: a context, a filled buffer of its own, and the other's lease of as many bytes.
pub struct Connection {
    pub context: Context,
    pub plane: Plane,
    pub peer: Peer,
    pub source: Buffer,
    pub leased: Import,
    pub receiver: Child,
    /// Where the socket of shm lies.
    _folder: tempfile::TempDir,
}

impl Connection {
    /// Starts the other process and connects with it.
    pub fn open(fabric: Fabric, config: Config, bytes: u64) -> Result<Connection> {
        let folder = tempfile::tempdir()?;
        let address = fabric.address(&folder);
        let mut receiver = Child::start(&["receive", &address, &bytes.to_string()])?;
        let address = receiver.line()?;
        let context = Context::open(config)?;
        // SAFETY: what is pushed to the context's other rings are no-ops, queries, and reads of `source` for writes,
        // which nobody has a mutable slice of meanwhile.
        let mut plane = unsafe { Plane::attach(&context) }?;
        let peer = plane.connect(&address, WAIT)?;
        let token = plane.receive_message(&peer, TOKEN_BYTES_MAX, WAIT)?;
        let leased = plane.import(&peer, &token)?;
        let mut source = plane.alloc(bytes)?;
        workload::fill(source.as_mut_slice());
        // Once before anything is timed: pages are there and mapped on both sides, and the check finds content.
        plane.write(&source, 0, &leased, 0, bytes)?;
        Ok(Connection { context, plane, peer, source, leased, receiver, _folder: folder })
    }

    /// Asks for a lease on a list of that many blocks of that many bytes.
    pub fn leased_list(&mut self, block_bytes: u64, blocks: u64) -> Result<Import> {
        let mut request = workload::LIST.to_vec();
        request.extend_from_slice(&block_bytes.to_le_bytes());
        request.extend_from_slice(&blocks.to_le_bytes());
        self.plane.send(&self.peer, &request, WAIT)?;
        let token = self.plane.receive_message(&self.peer, TOKEN_BYTES_MAX, WAIT)?;
        Ok(self.plane.import(&self.peer, &token)?)
    }

    /// Lets the receiver compare what has arrived with what was sent, and ends it.
    pub fn check(mut self) -> Result<()> {
        self.plane.send(&self.peer, workload::CHECK, WAIT)?;
        let verdict = self.plane.receive_message(&self.peer, VERDICT_BYTES_MAX, WAIT)?;
        ensure!(verdict.is_empty(), "{}: our figures mean nothing", String::from_utf8_lossy(&verdict));
        self.close()
    }

    pub fn close(mut self) -> Result<()> {
        Ok(self.plane.disconnect(self.peer)?)
    }
}
