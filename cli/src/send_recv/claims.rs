//! Claiming leases on a thread and a ring of their own: a claim waits for the peer, and whoever waits for the claim has
//! a peer to listen to and a patience to keep.

use super::wire::Wire;
use anyhow::Result;
use dmaplane::{Error, Import};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub struct Claims {
    ask: Sender<Vec<u8>>,
    claimed: Receiver<Result<Import, Error>>,
}

impl Claims {
    /// Starts the thread. It ends with this, or with the claim that it is at.
    pub fn start(wire: &Wire) -> Result<Claims> {
        let mut plane = wire.plane.sibling()?;
        let peer = wire.peer.clone();
        let (ask, asked) = channel::<Vec<u8>>();
        let (answer, claimed) = channel();
        std::thread::Builder::new().name("claim".into()).spawn(move || {
            for token in asked {
                if answer.send(plane.import(&peer, &token)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Claims { ask, claimed })
    }

    /// Asks for the lease of a token.
    pub fn ask(&self, token: Vec<u8>) {
        // A thread that has ended answers nothing either.
        let _ = self.ask.send(token);
    }

    /// The answer to the oldest question, if it comes within `slice`.
    pub fn answer(&self, slice: Duration) -> Option<Result<Import, Error>> {
        self.claimed.recv_timeout(slice).ok()
    }
}
