//! How a file is cut: at its tensors. A piece is the header, or as many whole tensors as it has room for, or a part of
//! one tensor that is too large for a piece; the parts of one header are pieces too. The sender, who knows the header,
//! cuts; the receiver, who leases the places, says how long a piece may be.

use super::header::Span;
use std::ops::Range;

const PIECE_BYTES_MIN: u64 = 64 << 10;
const PIECE_BYTES_MAX: u64 = 16 << 20;
/// What the pieces of a short file are, so that it is read, moved and written at the same time all the same.
const PIECES_WANTED: u64 = 8;

/// How long the pieces of such a file are to be at most; `None` for one that nobody can send.
pub fn longest_wanted(file_bytes: u64) -> Option<u64> {
    let wanted = file_bytes.div_ceil(PIECES_WANTED).checked_next_multiple_of(PIECE_BYTES_MIN)?;
    let longest = wanted.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    most_pieces(file_bytes, longest).map(|_| longest)
}

/// No cut of such a file has more pieces than this: besides full ones, a long tensor makes a short one, its last part,
/// and the small tensors behind it make another. `None`: more than 32 bits can count, or no file.
fn most_pieces(file_bytes: u64, longest: u64) -> Option<u64> {
    let most = file_bytes.div_ceil(longest).checked_mul(4)?.checked_add(4)?;
    (file_bytes > 0 && most <= u64::from(u32::MAX)).then_some(most)
}

/// A file's pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Where each ends; the first starts at 0. Invariant: none is empty, and there is one at least.
    ends: Vec<u64>,
}

impl Pieces {
    /// Cuts a file whose data begin at `data_start`. `None`: no receiver asks for such a length.
    pub fn cut(data_start: u64, tensors: &[Span], longest: u64) -> Option<Pieces> {
        if !(PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&longest) {
            return None;
        }
        let mut pieces = Pieces { ends: Vec::new() };
        pieces.push_parts(0..data_start, longest);
        let mut packed = data_start..data_start;
        for tensor in tensors {
            if tensor.bytes.end - packed.start <= longest {
                packed.end = tensor.bytes.end;
                continue;
            }
            pieces.push_parts(packed, longest);
            packed = tensor.bytes.clone();
            if packed.end - packed.start > longest {
                pieces.push_parts(packed, longest);
                packed = tensor.bytes.end..tensor.bytes.end;
            }
        }
        pieces.push_parts(packed, longest);
        Some(pieces)
    }

    fn push_parts(&mut self, range: Range<u64>, longest: u64) {
        let mut start = range.start;
        while start < range.end {
            start = range.end.min(start + longest);
            self.ends.push(start);
        }
    }

    /// As a sender said. `None`: these are not the pieces of such a file.
    pub fn of_lengths(lengths: &[u64], file_bytes: u64, longest: u64) -> Option<Pieces> {
        if lengths.len() as u64 > most_pieces(file_bytes, longest)? {
            return None;
        }
        let mut end = 0u64;
        let mut ends = Vec::with_capacity(lengths.len());
        for &length in lengths {
            end = end.checked_add(length).filter(|_| (1..=longest).contains(&length))?;
            ends.push(end);
        }
        (end == file_bytes).then_some(Pieces { ends })
    }

    /// The length of each.
    pub fn lengths(&self) -> Vec<u64> {
        (0..self.count()).map(|piece| self.length(piece)).collect()
    }

    pub fn file_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// A piece's place in the file.
    pub fn range(&self, piece: u32) -> Range<u64> {
        let start = if piece == 0 { 0 } else { self.ends[piece as usize - 1] };
        start..self.ends[piece as usize]
    }

    pub fn length(&self, piece: u32) -> u64 {
        let range = self.range(piece);
        range.end - range.start
    }

    /// The length of the longest.
    pub fn longest(&self) -> u64 {
        (0..self.count()).map(|piece| self.length(piece)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: u64 = PIECE_BYTES_MIN;

    /// Tensors of these lengths, one after the other.
    fn tensors(data_start: u64, lengths: &[u64]) -> Vec<Span> {
        let mut end = data_start;
        let span = |length: &u64| {
            let start = end;
            end += length;
            Span { name: format!("at {start}"), bytes: start..end }
        };
        lengths.iter().map(span).collect()
    }

    fn cut(data_start: u64, lengths: &[u64]) -> Vec<u64> {
        Pieces::cut(data_start, &tensors(data_start, lengths), LONGEST).unwrap().lengths()
    }

    #[test]
    fn small_tensors_share_a_piece_and_large_ones_have_pieces_of_their_own() {
        assert_eq!(cut(100, &[]), [100]);
        assert_eq!(cut(100, &[0, 0]), [100]);
        assert_eq!(cut(100, &[1, 0, 2]), [100, 3]);
        assert_eq!(cut(100, &[LONGEST, 1]), [100, LONGEST, 1]);
        assert_eq!(cut(100, &[LONGEST - 1, 1, 1]), [100, LONGEST, 1]);
        assert_eq!(cut(100, &[7, LONGEST + 5, 9, 2]), [100, 7, LONGEST, 5, 11]);
        assert_eq!(cut(100, &[3 * LONGEST]), [100, LONGEST, LONGEST, LONGEST]);
        assert_eq!(cut(2 * LONGEST + 3, &[4]), [LONGEST, LONGEST, 3, 4]);
    }

    #[test]
    fn pieces_cover_the_file_once_and_none_spans_a_large_tensor_and_another() {
        let mut random = 1u64;
        for round in 0..500 {
            let lengths: Vec<u64> = (0..round % 40)
                .map(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((random >> 33) % (4 * LONGEST)) >> (random >> 60)
                })
                .collect();
            let tensors = tensors(8 + round, &lengths);
            let file_bytes = tensors.last().map_or(8 + round, |last| last.bytes.end);
            let pieces = Pieces::cut(8 + round, &tensors, LONGEST).unwrap();
            assert_eq!(Pieces::of_lengths(&pieces.lengths(), file_bytes, LONGEST), Some(pieces.clone()));
            assert!(pieces.longest() <= LONGEST && pieces.file_bytes() == file_bytes);
            for piece in (0..pieces.count()).map(|piece| pieces.range(piece)) {
                let touched = tensors.iter().filter(|t| t.bytes.start < piece.end && piece.start < t.bytes.end);
                let cut = touched.clone().filter(|t| t.bytes.start < piece.start || piece.end < t.bytes.end);
                assert!(cut.count() == 0 || touched.count() == 1, "{piece:?} of {lengths:?}");
                assert!(piece.end <= 8 + round || piece.start >= 8 + round, "the header is by itself");
            }
        }
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        assert_eq!(longest_wanted(0), None);
        assert_eq!(longest_wanted(u64::MAX - (1 << 20)), None);
        assert_eq!(longest_wanted(1), Some(PIECE_BYTES_MIN));
        assert_eq!(longest_wanted(5 << 30), Some(PIECE_BYTES_MAX));
        for longest in [0, 1, 1 << 40] {
            assert_eq!(Pieces::cut(100, &[], longest), None);
        }
        for lengths in [&[][..], &[99], &[101], &[50, 0, 50], &[u64::MAX, 101], &[1; 100]] {
            assert_eq!(Pieces::of_lengths(lengths, 100, LONGEST), None, "{lengths:?}");
        }
        assert_eq!(Pieces::of_lengths(&[LONGEST + 1], LONGEST + 1, LONGEST), None);
        assert!(Pieces::of_lengths(&[60, 40], 100, LONGEST).is_some());
    }
}
