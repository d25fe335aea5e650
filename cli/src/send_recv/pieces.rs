//! How a file is cut: pieces of one size, the last one shorter. Both sides compute it from two numbers.

use std::ops::Range;

const PIECE_BYTES_MIN: u64 = 64 << 10;
const PIECE_BYTES_MAX: u64 = 16 << 20;
/// What the pieces of a short file are, so that it is read, moved and written at the same time all the same.
const PIECES_WANTED: u64 = 8;

/// A file's pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    file_bytes: u64,
    piece_bytes: u64,
}

impl Pieces {
    /// As the receiver wants them.
    pub fn choose(file_bytes: u64) -> Option<Pieces> {
        let wanted = file_bytes.div_ceil(PIECES_WANTED).next_multiple_of(PIECE_BYTES_MIN);
        Pieces::new(file_bytes, wanted.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX))
    }

    /// As a peer said; `None` for sizes that no receiver asks for, or more pieces than 32 bits can count.
    pub fn new(file_bytes: u64, piece_bytes: u64) -> Option<Pieces> {
        let right_size = (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&piece_bytes);
        let countable = right_size && file_bytes.div_ceil(piece_bytes) <= u64::from(u32::MAX);
        (countable && file_bytes > 0).then_some(Pieces { file_bytes, piece_bytes })
    }

    pub fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub fn count(&self) -> u32 {
        self.file_bytes.div_ceil(self.piece_bytes) as u32
    }

    /// A piece's place in the file.
    pub fn range(&self, piece: u32) -> Range<u64> {
        let start = u64::from(piece) * self.piece_bytes;
        start..self.file_bytes.min(start + self.piece_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_file_once() {
        for bytes in [1, 8, 65536, 65537, 1 << 20, (128 << 20) + 1, 5 << 30] {
            let pieces = Pieces::choose(bytes).unwrap();
            let mut end = 0;
            for piece in 0..pieces.count() {
                let range = pieces.range(piece);
                assert_eq!(range.start, end);
                assert!(range.end > end && range.end - end <= PIECE_BYTES_MAX);
                end = range.end;
            }
            assert_eq!(end, bytes);
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        assert_eq!(Pieces::choose(0), None);
        assert_eq!(Pieces::new(100, 1), None);
        assert_eq!(Pieces::new(100, 1 << 40), None);
        assert_eq!(Pieces::choose(u64::MAX - (1 << 20)), None);
    }
}
