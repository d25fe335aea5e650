//! Moving bytes.

use crate::buffer::{Buffer, Import, List};
use crate::error::Error;
use crate::objects::Wish;
use crate::plane::Plane;
use dmaplane_ring::abi::{Cqe, Errno, IndexPair, Sqe};
use dmaplane_ring::build::{BuildError, Cancel, Read, ReadList, Write, WriteImm, WriteList};
use std::time::Duration;

/// An operation in flight that owns what it uses. Forgetting it leaks; dropping it leaves the operation to end by
/// itself, and its memory is freed after that.
#[derive(Debug)]
#[must_use = "finish it to have its memory back"]
pub struct Operation<T> {
    what: &'static str,
    user_data: u64,
    wish: Wish,
    resources: T,
}

impl<T> Operation<T> {
    fn new(plane: &mut Plane, what: &'static str, sqe: Sqe, resources: T) -> Operation<T> {
        let user_data = plane.begin(sqe);
        Operation::begun(plane, what, user_data, resources)
    }

    /// One that is in flight already.
    pub(crate) fn begun(plane: &Plane, what: &'static str, user_data: u64, resources: T) -> Operation<T> {
        Operation { what, user_data, wish: Wish::new(plane.given_up(), user_data), resources }
    }

    /// Asks for its early end. It still ends by its CQE: cancelled if it waited for its turn, as if nothing had been
    /// asked where its peer has been told of it already (clause CTL-9).
    pub fn cancel(&self, plane: &mut Plane) {
        if self.wish.is_of(plane.given_up()) {
            plane.begin_unwanted(Cancel::by_user_data(self.user_data).sqe());
        }
    }

    /// Waits for its end. The resources come back with the result; `Err` holds the operation when the time is up, or
    /// when it is not this plane's.
    pub fn finish(mut self, plane: &mut Plane, patience: Duration) -> Result<(Result<Cqe, Error>, T), Operation<T>> {
        if !self.wish.is_of(plane.given_up()) {
            return Err(self);
        }
        match plane.finish(self.user_data, patience) {
            None => Err(self),
            Some(cqe) => {
                self.wish.fulfilled();
                let result = cqe.result().map(|_| cqe);
                let what = self.what;
                Ok((result.map_err(|errno| Error::Operation { what, errno }), self.resources))
            }
        }
    }
}

impl Operation<()> {
    /// Its end, once, if that has come; never waits. `None` also for another plane's operation, and after its end.
    pub fn poll(&mut self, plane: &mut Plane) -> Option<Result<Cqe, Error>> {
        if !self.wish.is_of(plane.given_up()) {
            return None;
        }
        let cqe = plane.poll(self.user_data)?;
        self.wish.fulfilled();
        plane.taken(self.user_data);
        let what = self.what;
        Some(cqe.result().map(|_| cqe).map_err(|errno| Error::Operation { what, errno }))
    }
}

pub(crate) fn value<T>(what: &'static str, built: Result<T, BuildError>) -> Result<T, Error> {
    built.map_err(|source| Error::Value { what, source })
}

const WRITING: &str = "writing";
const WRITING_LIST: &str = "writing a list";
const READING_LIST: &str = "reading a list";

/// What a list write delivers after its last byte.
#[derive(Clone, Copy, Debug)]
pub struct Notification<'a> {
    /// 32 bits.
    pub immediate: u32,
    /// At most 256 bytes.
    pub bytes: &'a [u8],
    /// Whether the receiver is also told the CRC-32C of what it copied in.
    pub checksum: bool,
}

impl Plane {
    fn transfer(&mut self, what: &'static str, sqe: Sqe) -> Result<u64, Error> {
        self.call(what, sqe, self.patience()).map(|cqe| cqe.word0)
    }

    /// Writes bytes of a buffer into a lease; returns how many.
    pub fn write(&mut self, from: &Buffer, offset: u64, to: &Import, at: u64, length: u64) -> Result<u64, Error> {
        let sqe = self.write_of(from, offset, to, at, length)?;
        self.transfer(WRITING, sqe)
    }

    /// Writes, and delivers 32 bits after the last byte.
    pub fn write_imm(
        &mut self,
        from: &Buffer,
        offset: u64,
        to: &Import,
        at: u64,
        length: u64,
        immediate: u32,
    ) -> Result<u64, Error> {
        let sqe = self.write_imm_of(from, offset, to, at, length, immediate)?;
        self.transfer(WRITING, sqe)
    }

    fn write_of(&self, from: &Buffer, offset: u64, to: &Import, at: u64, length: u64) -> Result<Sqe, Error> {
        self.check(WRITING, &from.hold).and_then(|()| self.check(WRITING, &to.hold))?;
        Ok(value(WRITING, Write::new(from.handle, offset, to.handle, at, length))?.sqe())
    }

    fn write_imm_of(
        &self,
        from: &Buffer,
        offset: u64,
        to: &Import,
        at: u64,
        length: u64,
        immediate: u32,
    ) -> Result<Sqe, Error> {
        self.check(WRITING, &from.hold).and_then(|()| self.check(WRITING, &to.hold))?;
        let write = value(WRITING, WriteImm::new(from.handle, offset, to.handle, at, length))?;
        Ok(write.immediate(immediate).sqe())
    }

    /// Reads bytes of a lease into a buffer; returns how many.
    pub fn read(&mut self, into: &mut Buffer, offset: u64, from: &Import, at: u64, length: u64) -> Result<u64, Error> {
        let what = "reading";
        self.check(what, &into.hold).and_then(|()| self.check(what, &from.hold))?;
        let sqe = value(what, Read::new(into.handle, offset, from.handle, at, length))?.sqe();
        self.transfer(what, sqe)
    }

    /// Starts a write that owns its buffer.
    pub fn start_write(
        &mut self,
        from: Buffer,
        offset: u64,
        to: &Import,
        at: u64,
        length: u64,
    ) -> Result<Operation<Buffer>, (Error, Buffer)> {
        let sqe = self.write_of(&from, offset, to, at, length);
        self.start_owning(sqe, from)
    }

    /// Starts a write with an immediate that owns its buffer.
    pub fn start_write_imm(
        &mut self,
        from: Buffer,
        offset: u64,
        to: &Import,
        at: u64,
        length: u64,
        immediate: u32,
    ) -> Result<Operation<Buffer>, (Error, Buffer)> {
        let sqe = self.write_imm_of(&from, offset, to, at, length, immediate);
        self.start_owning(sqe, from)
    }

    fn start_owning(&mut self, sqe: Result<Sqe, Error>, from: Buffer) -> Result<Operation<Buffer>, (Error, Buffer)> {
        match sqe {
            Ok(sqe) => Ok(Operation::new(self, WRITING, sqe, from)),
            Err(error) => Err((error, from)),
        }
    }

    /// As [`Plane::write_list`]; the receiver is also told the CRC-32C of what it copied in
    /// ([`Arrival::checksum`](crate::Arrival::checksum)).
    pub fn write_list_checked(
        &mut self,
        list: &List,
        to: &Import,
        pairs: &[IndexPair],
        immediate: u32,
        notification: &[u8],
    ) -> Result<u64, Error> {
        let notice = Notification { immediate, bytes: notification, checksum: true };
        let (sqe, index) = self.write_list_of(list, to, pairs, notice)?;
        self.call_staged(WRITING_LIST, sqe, index, self.patience()).map(|cqe| cqe.word0)
    }

    /// Writes segments of a list into a leased list's segments, then delivers an immediate and at most 256 bytes. One
    /// operation, whatever the number of fragments. Returns the bytes moved.
    pub fn write_list(
        &mut self,
        list: &List,
        to: &Import,
        pairs: &[IndexPair],
        immediate: u32,
        notification: &[u8],
    ) -> Result<u64, Error> {
        let notice = Notification { immediate, bytes: notification, checksum: false };
        let (sqe, index) = self.write_list_of(list, to, pairs, notice)?;
        self.call_staged(WRITING_LIST, sqe, index, self.patience()).map(|cqe| cqe.word0)
    }

    /// A list write, and the buffer that holds what it is told.
    pub(crate) fn write_list_of(
        &mut self,
        list: &List,
        to: &Import,
        pairs: &[IndexPair],
        notice: Notification<'_>,
    ) -> Result<(Sqe, Buffer), Error> {
        let what = WRITING_LIST;
        self.check(what, &list.hold).and_then(|()| self.check(what, &to.hold))?;
        let index = self.index_buffer(what, pairs, notice.bytes)?;
        let (at, length) = (size_of_val(pairs) as u64, notice.bytes.len() as u64);
        let write = value(what, WriteList::new(list.handle, to.handle, index.handle, 0, pairs.len() as u64))?;
        let write = match notice.checksum {
            true => write.notify_with_checksum(notice.immediate, at, length),
            false => write.notify(notice.immediate, at, length),
        };
        Ok((value(what, write)?.sqe(), index))
    }

    /// Reads segments of a leased list into segments of a list. Returns the bytes moved.
    pub fn read_list(&mut self, list: &mut List, from: &Import, pairs: &[IndexPair]) -> Result<u64, Error> {
        let (sqe, index) = self.read_list_of(list, from, pairs, false)?;
        self.call_staged(READING_LIST, sqe, index, self.patience()).map(|cqe| cqe.word0)
    }

    /// As [`Plane::read_list`]; returns the bytes moved and the CRC-32C of them, in the order of the pairs, made while
    /// they were copied.
    pub fn read_list_checked(
        &mut self,
        list: &mut List,
        from: &Import,
        pairs: &[IndexPair],
    ) -> Result<(u64, u32), Error> {
        let (sqe, index) = self.read_list_of(list, from, pairs, true)?;
        self.call_staged(READING_LIST, sqe, index, self.patience()).map(|cqe| (cqe.word0, cqe.word1 as u32))
    }

    /// A list read, and the buffer that holds what it is told.
    pub(crate) fn read_list_of(
        &mut self,
        list: &List,
        from: &Import,
        pairs: &[IndexPair],
        checksum: bool,
    ) -> Result<(Sqe, Buffer), Error> {
        let what = READING_LIST;
        self.check(what, &list.hold).and_then(|()| self.check(what, &from.hold))?;
        let index = self.index_buffer(what, pairs, &[])?;
        let read = value(what, ReadList::new(list.handle, from.handle, index.handle, 0, pairs.len() as u64))?;
        Ok((if checksum { read.checksum() } else { read }.sqe(), index))
    }

    fn index_buffer(&mut self, what: &'static str, pairs: &[IndexPair], notification: &[u8]) -> Result<Buffer, Error> {
        if pairs.is_empty() {
            return Err(Error::Operation { what, errno: Errno::EINVAL });
        }
        let mut index = self.stage((size_of_val(pairs) + notification.len()) as u64)?;
        let (head, tail) = index.as_mut_slice().split_at_mut(size_of_val(pairs));
        for (place, pair) in head.chunks_exact_mut(8).zip(pairs) {
            place[..4].copy_from_slice(&pair.local.to_le_bytes());
            place[4..].copy_from_slice(&pair.remote.to_le_bytes());
        }
        tail[..notification.len()].copy_from_slice(notification);
        Ok(index)
    }
}
