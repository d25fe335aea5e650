//! Memory of ours that a transfer touches: pieces of regions, in order, and how far it is.

use crate::memory::{Checksum, Region};
use dmaplane_ring::abi::Errno;
use std::ptr::NonNull;
use std::sync::Arc;

/// Pieces handed to one system call at most: the kernel's limit, less what stands before and after them.
pub(crate) const PIECES_MAX: usize = 1000;

/// A piece of a region.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: NonNull<u8>,
    length: usize,
}

/// Memory in pieces. Its regions stay mapped as long as it lives; whether it may be touched, its
/// [`Guard`](super::guard::Guard) says.
#[derive(Debug)]
pub(crate) struct Span {
    pieces: Vec<Piece>,
    /// Piece and place in it where the next byte is.
    piece: usize,
    offset: usize,
    /// Bytes from there to the end.
    left: u64,
    /// Of what has landed in it.
    checksum: Checksum,
    _regions: Vec<Arc<Region>>,
}

// SAFETY: the pieces are plain memory of regions that the span holds; every access is a raw copy by the kernel or by
// the C library, which others may race with, as they may with any region.
unsafe impl Send for Span {}

impl Span {
    /// One range of a region.
    pub(crate) fn range(region: Arc<Region>, offset: u64, length: u64) -> Result<Span, Errno> {
        let start = region.at(offset, length).ok_or(Errno::ERANGE)?;
        let pieces = vec![Piece { start, length: length as usize }];
        let checksum = Checksum::new(false);
        Ok(Span { pieces, piece: 0, offset: 0, left: length, checksum, _regions: vec![region] })
    }

    /// Pieces: region, offset and length each.
    pub(crate) fn pieces<'a>(
        count: usize,
        pieces: impl Iterator<Item = Result<(&'a Arc<Region>, u64, u32), Errno>>,
    ) -> Result<Span, Errno> {
        let mut span = Span {
            pieces: Vec::with_capacity(count),
            piece: 0,
            offset: 0,
            left: 0,
            checksum: Checksum::new(false),
            _regions: Vec::new(),
        };
        for piece in pieces {
            let (region, offset, length) = piece?;
            if length == 0 {
                return Err(Errno::EINVAL);
            }
            let start = region.at(offset, length.into()).ok_or(Errno::ERANGE)?;
            let known = span._regions.last().is_some_and(|last| Arc::ptr_eq(last, region));
            if !known && !span._regions.iter().any(|other| Arc::ptr_eq(other, region)) {
                span._regions.push(region.clone());
            }
            span.left += u64::from(length);
            span.pieces.push(Piece { start, length: length as usize });
        }
        Ok(span)
    }

    /// Makes the CRC-32C of what lands in it, where that is wanted.
    pub(crate) fn checked(mut self, wanted: bool) -> Span {
        self.checksum = Checksum::new(wanted);
        self
    }

    /// The CRC-32C of what has landed in it; 0 where it is not wanted.
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum.value()
    }

    /// The kernel has put `bytes` in at the current place.
    pub(crate) fn landed(&mut self, bytes: usize) {
        let (mut left, mut offset) = (bytes, self.offset);
        for piece in &self.pieces[self.piece..] {
            if left == 0 || !self.checksum.is_wanted() {
                break;
            }
            let here = left.min(piece.length - offset);
            // SAFETY: within the piece, which its region keeps mapped.
            unsafe { self.checksum.add_shared(piece.start.add(offset), here) };
            left -= here;
            offset = 0;
        }
        self.advance(bytes);
    }

    /// Bytes that are still to be moved.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Appends up to `most` of the next bytes as a system call wants them; returns how many.
    pub(crate) fn vectors(&self, most: usize, out: &mut Vec<libc::iovec>) -> usize {
        let (mut total, mut offset) = (0, self.offset);
        for piece in self.pieces[self.piece..].iter().take(PIECES_MAX) {
            if total == most {
                break;
            }
            let length = (piece.length - offset).min(most - total);
            // SAFETY: `offset` is within the piece.
            let start = unsafe { piece.start.add(offset) };
            out.push(libc::iovec { iov_base: start.as_ptr().cast(), iov_len: length });
            total += length;
            offset = 0;
        }
        total
    }

    /// `bytes` have been moved.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        let mut bytes = bytes;
        while let Some(piece) = self.pieces.get(self.piece) {
            let here = piece.length - self.offset;
            if bytes < here {
                self.offset += bytes;
                return;
            }
            bytes -= here;
            self.piece += 1;
            self.offset = 0;
        }
    }

    /// Copies bytes in at the current place and moves on; returns how many there was room for.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len()
            && let Some(piece) = self.pieces.get(self.piece)
        {
            let length = (piece.length - self.offset).min(bytes.len() - done);
            // SAFETY: both ends are valid for `length` bytes, and private bytes do not overlap a region.
            unsafe {
                let target = piece.start.add(self.offset);
                libc::memcpy(target.as_ptr().cast(), bytes[done..].as_ptr().cast(), length);
            }
            self.checksum.add(&bytes[done..done + length]);
            done += length;
            self.advance(length);
        }
        done
    }

    /// Appends up to `most` of the next bytes to `out` and moves on; returns how many.
    pub(crate) fn take(&mut self, most: usize, out: &mut Vec<u8>) -> usize {
        let mut done = 0;
        out.reserve(most.min(self.left as usize));
        while done < most
            && let Some(piece) = self.pieces.get(self.piece)
        {
            let length = (piece.length - self.offset).min(most - done);
            // SAFETY: the source is valid for `length` bytes; so much room was reserved, since no more than `left`
            // come.
            unsafe {
                let source = piece.start.add(self.offset);
                libc::memcpy(out.as_mut_ptr().add(out.len()).cast(), source.as_ptr().cast(), length);
                out.set_len(out.len() + length);
            }
            done += length;
            self.advance(length);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmaplane_engine::AllocRequest;

    fn region(bytes: &[u8]) -> Arc<Region> {
        let request = AllocRequest::plain(bytes.len() as u64);
        let region = Region::allocate(&request).unwrap();
        region.write(0, bytes).unwrap();
        Arc::new(region)
    }

    /// TCP-6: a body is the bytes of the segments in the table's order.
    #[test]
    fn pieces_are_walked_in_order_across_their_bounds() {
        let (a, b) = (region(b"abcdef"), region(b"ghijkl"));
        let pieces = [(&a, 4, 2), (&b, 0, 3), (&a, 0, 1)];
        let mut span = Span::pieces(3, pieces.into_iter().map(Ok)).unwrap();
        assert_eq!(span.left(), 6);
        let mut out = Vec::new();
        assert_eq!(span.take(3, &mut out), 3);
        assert_eq!(span.take(9, &mut out), 3);
        assert_eq!((out.as_slice(), span.left()), (&b"efghia"[..], 0));
        let mut span = Span::pieces(3, pieces.into_iter().map(Ok)).unwrap();
        assert_eq!(span.put(b"12"), 2);
        let mut vectors = Vec::new();
        assert_eq!(span.vectors(100, &mut vectors), 4);
        assert_eq!(vectors.iter().map(|v| v.iov_len).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(span.put(b"345678"), 4);
        let mut bytes = [0; 6];
        a.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"6bcd12");
        assert_eq!(Span::range(a, 4090, 7).unwrap_err(), Errno::ERANGE);
        assert_eq!(Span::pieces(1, [Ok((&b, 0, 0))].into_iter()).unwrap_err(), Errno::EINVAL);
    }
}
