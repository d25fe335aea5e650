//! What travelled with a message, kept until the engine drops it.

use super::tcp::Arrived;

/// 64-bit words that a fabric adds to a message.
pub(crate) const FABRIC_WORDS: usize = 8;

/// One frame.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// The words of an shm peer: where the bytes are.
    pub words: [u64; FABRIC_WORDS],
    /// A SEND's bytes or a notification.
    pub payload: Vec<u8>,
    /// What else came from a tcp peer.
    pub arrived: Option<Arrived>,
}

/// Frames by number. Number 0 is the frame of messages with which nothing travelled.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    frames: Vec<Option<Frame>>,
    free: Vec<u32>,
}

impl Frames {
    pub(crate) fn insert(&mut self, frame: Frame) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.frames.push(None);
            self.frames.len() as u32
        });
        self.frames[index as usize - 1] = Some(frame);
        index
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Frame> {
        self.frames.get((index as usize).checked_sub(1)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Frame> {
        self.frames.get_mut((index as usize).checked_sub(1)?)?.as_mut()
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Frame> {
        let frame = self.frames.get_mut((index as usize).checked_sub(1)?)?.take()?;
        self.free.push(index);
        Some(frame)
    }
}
