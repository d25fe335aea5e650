//! Moving bytes.

use crate::buffer::{Buffer, Import, List};
use crate::error::Error;
use crate::objects::Wish;
use crate::plane::Plane;
use dmaplane_ring::abi::{Cqe, Errno, IndexPair, Sqe};
use dmaplane_ring::build::{BuildError, Read, ReadList, Write, WriteImm, WriteList};
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
        Operation { what, user_data, wish: Wish::new(plane.given_up(), user_data), resources }
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

fn value<T>(what: &'static str, built: Result<T, BuildError>) -> Result<T, Error> {
    built.map_err(|source| Error::Value { what, source })
}

impl Plane {
    fn transfer(&mut self, what: &'static str, sqe: Sqe) -> Result<u64, Error> {
        self.call(what, sqe, self.patience()).map(|cqe| cqe.word0)
    }

    /// Writes bytes of a buffer into a lease; returns how many.
    pub fn write(&mut self, from: &Buffer, offset: u64, to: &Import, at: u64, length: u64) -> Result<u64, Error> {
        let what = "writing";
        self.check(what, &from.hold).and_then(|()| self.check(what, &to.hold))?;
        let sqe = value(what, Write::new(from.handle, offset, to.handle, at, length))?.sqe();
        self.transfer(what, sqe)
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
        let what = "writing";
        self.check(what, &from.hold).and_then(|()| self.check(what, &to.hold))?;
        let write = value(what, WriteImm::new(from.handle, offset, to.handle, at, length))?;
        self.transfer(what, write.immediate(immediate).sqe())
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
        let what = "writing";
        if let Err(error) = self.check(what, &from.hold).and_then(|()| self.check(what, &to.hold)) {
            return Err((error, from));
        }
        match value(what, Write::new(from.handle, offset, to.handle, at, length)) {
            Ok(write) => Ok(Operation::new(self, what, write.sqe(), from)),
            Err(error) => Err((error, from)),
        }
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
        let what = "writing";
        if let Err(error) = self.check(what, &from.hold).and_then(|()| self.check(what, &to.hold)) {
            return Err((error, from));
        }
        match value(what, WriteImm::new(from.handle, offset, to.handle, at, length)) {
            Ok(write) => Ok(Operation::new(self, what, write.immediate(immediate).sqe(), from)),
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
        self.write_list_with(list, to, pairs, notification, |write, offset, length| {
            write.notify_with_checksum(immediate, offset, length)
        })
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
        self.write_list_with(list, to, pairs, notification, |write, offset, length| {
            write.notify(immediate, offset, length)
        })
    }

    fn write_list_with(
        &mut self,
        list: &List,
        to: &Import,
        pairs: &[IndexPair],
        notification: &[u8],
        notify: impl FnOnce(WriteList, u64, u64) -> Result<WriteList, BuildError>,
    ) -> Result<u64, Error> {
        let what = "writing a list";
        self.check(what, &list.hold).and_then(|()| self.check(what, &to.hold))?;
        let index = self.index_buffer(pairs, notification)?;
        let pairs_bytes = size_of_val(pairs) as u64;
        let built = value(what, WriteList::new(list.handle, to.handle, index.handle, 0, pairs.len() as u64));
        let built = built
            .and_then(|write| value(what, notify(write, pairs_bytes, notification.len() as u64)).map(WriteList::sqe));
        let result = built.and_then(|sqe| self.transfer(what, sqe));
        self.free(index)?;
        result
    }

    /// Reads segments of a leased list into segments of a list. Returns the bytes moved.
    pub fn read_list(&mut self, list: &mut List, from: &Import, pairs: &[IndexPair]) -> Result<u64, Error> {
        self.read_list_with(list, from, pairs, |read| read).map(|cqe| cqe.word0)
    }

    /// As [`Plane::read_list`]; returns the bytes moved and the CRC-32C of them, in the order of the pairs, made while
    /// they were copied.
    pub fn read_list_checked(
        &mut self,
        list: &mut List,
        from: &Import,
        pairs: &[IndexPair],
    ) -> Result<(u64, u32), Error> {
        self.read_list_with(list, from, pairs, ReadList::checksum).map(|cqe| (cqe.word0, cqe.word1 as u32))
    }

    fn read_list_with(
        &mut self,
        list: &mut List,
        from: &Import,
        pairs: &[IndexPair],
        with: impl FnOnce(ReadList) -> ReadList,
    ) -> Result<Cqe, Error> {
        let what = "reading a list";
        self.check(what, &list.hold).and_then(|()| self.check(what, &from.hold))?;
        let index = self.index_buffer(pairs, &[])?;
        let built = value(what, ReadList::new(list.handle, from.handle, index.handle, 0, pairs.len() as u64));
        let result = built.and_then(|read| self.call(what, with(read).sqe(), self.patience()));
        self.free(index)?;
        result
    }

    fn index_buffer(&mut self, pairs: &[IndexPair], notification: &[u8]) -> Result<Buffer, Error> {
        if pairs.is_empty() {
            return Err(Error::Operation { what: "a list transfer without fragments", errno: Errno::EINVAL });
        }
        let mut index = self.alloc((size_of_val(pairs) + notification.len()) as u64)?;
        let (head, tail) = index.as_mut_slice().split_at_mut(size_of_val(pairs));
        for (place, pair) in head.chunks_exact_mut(8).zip(pairs) {
            place[..4].copy_from_slice(&pair.local.to_le_bytes());
            place[4..].copy_from_slice(&pair.remote.to_le_bytes());
        }
        tail[..notification.len()].copy_from_slice(notification);
        Ok(index)
    }
}
