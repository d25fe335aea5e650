//! What travelled with a message, kept until the engine drops it.

use super::tcp::Arrived;

/// 64-bit words that a fabric adds to a message.
pub(crate) const FABRIC_WORDS: usize = 8;

/// One frame.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// Whose it is, by index.
    pub peer: u32,
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

    /// A peer is gone: what is left of it goes, too.
    pub(crate) fn remove_of_peer(&mut self, peer: u32) {
        for (place, index) in self.frames.iter_mut().zip(1..) {
            if place.take_if(|frame| frame.peer == peer).is_some() {
                self.free.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOST-3: what a peer leaves behind ends with it, and its numbers are used again.
    #[test]
    fn host_3_a_gone_peers_frames_are_kept_for_good() {
        let mut frames = Frames::default();
        let numbers = [1, 2, 1].map(|peer| frames.insert(Frame { peer, ..Frame::default() }));
        frames.remove_of_peer(1);
        assert_eq!(numbers.map(|number| frames.get(number).is_some()), [false, true, false]);
        let again = [3, 3, 3].map(|peer| frames.insert(Frame { peer, ..Frame::default() }));
        assert_eq!((again[0].max(again[1]), again[2]), (3, 4));
    }
}
