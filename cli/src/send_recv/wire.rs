//! A connected peer, as the file's protocol sees it.

use super::message::{Assembly, Message, shown};
use dmaplane::{Errno, Error, Peer, Plane};
use std::time::{Duration, Instant};

/// How long the last words of a peer may take after its end was seen.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long our own may take: a peer that does not listen is not waited for.
const OWN_LAST_WORDS: Duration = Duration::from_secs(1);

/// How a transfer fails on the peer's side of things.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("{who} gave up: {reason}")]
    GaveUp { who: &'static str, reason: String },
    #[error("{who} is gone: its connection ended in the middle of the transfer")]
    Gone { who: &'static str },
    #[error("{who} is cut off: {error}")]
    Ended { who: &'static str, error: Error },
    #[error("{who} has said nothing for {seconds} s (--patience)")]
    Silent { who: &'static str, seconds: u64 },
    #[error("{who} speaks another protocol: {what}")]
    Protocol { who: &'static str, what: &'static str },
    #[error(transparent)]
    Fabric(#[from] Error),
}

/// What comes from the peer.
#[derive(Debug)]
pub enum Event {
    /// All bytes of a piece are there.
    Piece(u32),
    Message(Message),
}

/// The plane and its one peer.
pub struct Wire {
    pub plane: Plane,
    pub peer: Peer,
    who: &'static str,
    patience: Duration,
    heard: Instant,
    assembly: Assembly,
}

impl Wire {
    /// `who` is what errors call the peer.
    pub fn new(mut plane: Plane, peer: Peer, who: &'static str, patience: Duration) -> Wire {
        plane.set_patience(patience);
        Wire { plane, peer, who, patience, heard: Instant::now(), assembly: Assembly::default() }
    }

    pub fn say(&mut self, message: &Message) -> Result<(), WireError> {
        let bytes = message.encode().map_err(|error| Error::System(error.into()))?;
        let sent = self.plane.send_message(&self.peer, &bytes, self.patience);
        sent.map_err(|error| self.explain(error))
    }

    /// What has come, or comes within `slice`. A peer's Abort is an error.
    pub fn poll(&mut self, slice: Duration) -> Result<Option<Event>, WireError> {
        let arrival = match self.plane.receive(&self.peer, slice) {
            Ok(arrival) => arrival,
            Err(Error::TimedOut { .. }) => return Ok(None),
            Err(error) if error.is_disconnect() => return Err(WireError::Gone { who: self.who }),
            Err(error) => return Err(WireError::Ended { who: self.who, error }),
        };
        self.heard = Instant::now();
        if let Some(piece) = arrival.immediate {
            return Ok(Some(Event::Piece(piece)));
        }
        match self.assembly.feed(&arrival.payload) {
            Ok(None) => Ok(None),
            Ok(Some(Message::Abort { reason })) => Err(WireError::GaveUp { who: self.who, reason: shown(&reason) }),
            Ok(Some(message)) => Ok(Some(Event::Message(message))),
            Err(_) => Err(self.protocol("what it sent is no message")),
        }
    }

    /// An error when the peer has been silent for too long.
    pub fn check_patience(&self) -> Result<(), WireError> {
        if self.heard.elapsed() > self.patience {
            return Err(WireError::Silent { who: self.who, seconds: self.patience.as_secs() });
        }
        Ok(())
    }

    /// Starts the peer's time anew: it was our turn.
    pub fn forgive(&mut self) {
        self.heard = Instant::now();
    }

    /// The peer's next message other than Busy.
    pub fn next_message(&mut self) -> Result<Message, WireError> {
        loop {
            match self.poll(Duration::from_millis(100))? {
                Some(Event::Message(Message::Busy)) => {}
                Some(Event::Message(message)) => return Ok(message),
                Some(Event::Piece(_)) => return Err(self.protocol("a piece that nobody asked for")),
                None => self.check_patience()?,
            }
        }
    }

    pub fn protocol(&self, what: &'static str) -> WireError {
        WireError::Protocol { who: self.who, what }
    }

    /// Why an operation failed: what the peer said before, if it said anything, else what the fabric says.
    pub fn explain(&mut self, error: Error) -> WireError {
        if let Error::TimedOut { waited, .. } = error {
            return WireError::Silent { who: self.who, seconds: waited.as_secs() };
        }
        // EPROTO: the peer broke the fabric's rules, and its connection was ended for it.
        let ends = [Errno::EKEYREVOKED, Errno::ESTALE, Errno::EPROTO];
        let ended = error.is_disconnect() || error.errno().is_some_and(|errno| ends.contains(&errno));
        if !ended {
            return error.into();
        }
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            match self.poll(Duration::from_millis(20)) {
                Err(words) => return words,
                Ok(_) if Instant::now() > deadline => return error.into(),
                Ok(_) => {}
            }
        }
    }

    /// Tells the peer why we stop, unless it is the peer that did. As long as it takes, but not long.
    pub fn give_up(&mut self, error: &anyhow::Error) {
        let peers_doing = matches!(
            error.downcast_ref(),
            Some(
                WireError::GaveUp { .. } | WireError::Gone { .. } | WireError::Ended { .. } | WireError::Silent { .. }
            )
        );
        if peers_doing {
            return;
        }
        let abort = Message::Abort { reason: format!("{error:#}") };
        if let Ok(bytes) = abort.encode()
            && self.plane.send_message(&self.peer, &bytes, OWN_LAST_WORDS).is_ok()
        {
            self.await_end(OWN_LAST_WORDS);
        }
    }

    /// Waits until the peer has hung up, so that it has our last message for certain.
    pub fn await_end(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && self.poll(Duration::from_millis(20)).is_ok() {}
    }
}
