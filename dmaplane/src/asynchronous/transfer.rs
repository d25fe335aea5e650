//! Moving bytes. A transfer owns its memory until its end and gives it back with its result.

use super::AsyncPlane;
use super::operation::{Operation, Uses};
use super::scratch::Scratch;
use crate::buffer::{Buffer, Import, List};
use crate::error::Error;
use crate::objects::Hold;
use dmaplane_ring::abi::{Errno, IndexPair, Sqe};
use dmaplane_ring::build::{BuildError, Read, ReadList, Write, WriteImm, WriteList};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a write may take bytes from: a [`Buffer`], or one that several writes share.
pub trait Source: sealed::Sealed<Buffer> + Send + 'static {}
impl Source for Buffer {}
impl Source for Arc<Buffer> {}

/// What a list write may take bytes from: a [`List`], or one that several writes share.
pub trait ListSource: sealed::Sealed<List> + Send + 'static {}
impl ListSource for List {}
impl ListSource for Arc<List> {}

mod sealed {
    pub trait Sealed<T> {
        #[doc(hidden)]
        fn object(&self) -> &T;
    }

    impl<T> Sealed<T> for T {
        fn object(&self) -> &T {
            self
        }
    }

    impl<T> Sealed<T> for std::sync::Arc<T> {
        fn object(&self) -> &T {
            self
        }
    }
}

/// A transfer that came to nothing, or to a part.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed<T> {
    /// Why.
    pub error: Error,
    /// The memory; not where the plane was closed under the transfer, which may go on for a while.
    pub memory: Option<T>,
}

impl<T> From<Failed<T>> for Error {
    fn from(failed: Failed<T>) -> Error {
        failed.error
    }
}

/// The bytes moved, and the memory.
type Moved<T> = Result<(u64, T), Failed<T>>;
/// What a transfer uses: its memory, its import, its indices.
type Used<T> = Uses<(T, Hold, Option<Scratch>)>;

/// A transfer: a future of the bytes moved and the memory.
///
/// Nothing happens before its first poll. Dropped later it is cancelled: its memory stays out of everybody's reach
/// until the transfer has ended, and is freed then. One that is with the peer already is not stopped by that, since
/// only the connection's end could: it may have moved its bytes. Where it must not, the lease's owner revokes the
/// lease.
#[must_use = "it does nothing unless awaited"]
pub struct Transfer<T: Send + 'static>(Step<T>);

enum Step<T: Send + 'static> {
    /// It cannot be asked for. `None`: that was said.
    Refused(Option<Failed<T>>),
    Runs(Operation<Used<T>>),
}

// Nothing is pinned.
impl<T: Send + 'static> Unpin for Transfer<T> {}

impl<T: Send + 'static> std::fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Transfer<T> {
    fn refused(error: Error, memory: T) -> Transfer<T> {
        Transfer(Step::Refused(Some(Failed { error, memory: Some(memory) })))
    }

    /// Asks for its end, as dropping it does; await it afterwards to have the memory back.
    ///
    /// ```no_run
    /// # async fn late(mut write: dmaplane::asynchronous::Transfer<dmaplane::Buffer>) -> Option<dmaplane::Buffer> {
    /// match tokio::time::timeout(std::time::Duration::from_secs(1), &mut write).await {
    ///     Ok(Ok((_bytes, buffer))) => Some(buffer),
    ///     Ok(Err(failed)) => failed.memory,
    ///     Err(_) => {
    ///         write.cancel();
    ///         write.await.map_or_else(|failed| failed.memory, |(_bytes, buffer)| Some(buffer))
    ///     }
    /// }
    /// # }
    /// ```
    pub fn cancel(&mut self) {
        if let Step::Runs(operation) = &self.0 {
            operation.cancel();
        }
    }
}

impl<T: Send + 'static> Future for Transfer<T> {
    type Output = Moved<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Step::Refused(failed) => {
                let failed = failed.take();
                let error = Error::Closed { what: "a transfer that was refused before" };
                Poll::Ready(Err(failed.unwrap_or(Failed { error, memory: None })))
            }
            Step::Runs(operation) => Pin::new(operation).poll(context).map(|(result, used)| {
                let memory = used.map(|Uses((memory, ..))| memory);
                match (result, memory) {
                    (Ok(cqe), Some(memory)) => Ok((cqe.word0, memory)),
                    (Ok(_), None) => Err(Failed { error: Error::Closed { what: "a transfer" }, memory: None }),
                    (Err(error), memory) => Err(Failed { error, memory }),
                }
            }),
        }
    }
}

fn value<T>(what: &'static str, built: Result<T, BuildError>) -> Result<T, Error> {
    built.map_err(|source| Error::Value { what, source })
}

impl AsyncPlane {
    fn transfer<T: Send + 'static>(
        &self,
        what: &'static str,
        sqe: Result<Sqe, Error>,
        memory: T,
        import: &Import,
        index: Option<Scratch>,
    ) -> Transfer<T> {
        match self.check(what, &import.hold).and(sqe) {
            Ok(sqe) => {
                Transfer(Step::Runs(Operation::new(self, what, sqe, Uses((memory, import.hold.share(), index)))))
            }
            Err(error) => Transfer::refused(error, memory),
        }
    }

    /// Writes bytes of a buffer into a lease.
    pub fn write<S: Source>(&self, from: S, offset: u64, to: &Import, at: u64, length: u64) -> Transfer<S> {
        let what = "writing";
        let buffer = from.object();
        let sqe = self.check(what, &buffer.hold);
        let sqe = sqe.and_then(|()| value(what, Write::new(buffer.handle, offset, to.handle, at, length)));
        self.transfer(what, sqe.map(Write::sqe), from, to, None)
    }

    /// Writes, and delivers 32 bits after the last byte. Waits for the peer to receive: at most so many are under way.
    pub fn write_imm<S: Source>(
        &self,
        from: S,
        offset: u64,
        to: &Import,
        at: u64,
        length: u64,
        immediate: u32,
    ) -> Transfer<S> {
        let what = "writing";
        let buffer = from.object();
        let sqe = self.check(what, &buffer.hold);
        let sqe = sqe.and_then(|()| value(what, WriteImm::new(buffer.handle, offset, to.handle, at, length)));
        self.transfer(what, sqe.map(|write| write.immediate(immediate).sqe()), from, to, None)
    }

    /// Reads bytes of a lease into a buffer.
    pub fn read(&self, into: Buffer, offset: u64, from: &Import, at: u64, length: u64) -> Transfer<Buffer> {
        let what = "reading";
        let sqe = self.check(what, &into.hold);
        let sqe = sqe.and_then(|()| value(what, Read::new(into.handle, offset, from.handle, at, length)));
        self.transfer(what, sqe.map(Read::sqe), into, from, None)
    }

    /// Writes segments of a list into a leased list's segments, then delivers an immediate and at most 256 bytes. One
    /// operation, whatever the number of fragments.
    ///
    /// Dropped early: as [`Transfer`].
    pub async fn write_list<L: ListSource>(
        &self,
        list: L,
        to: &Import,
        pairs: &[IndexPair],
        immediate: u32,
        notification: &[u8],
    ) -> Result<(u64, L), Failed<L>> {
        let what = "writing a list";
        let index = match self.index(what, &list.object().hold, pairs, notification).await {
            Ok(index) => index,
            Err(error) => return Err(Failed { error, memory: Some(list) }),
        };
        let (buffer, offset) = index.place();
        let pairs_bytes = size_of_val(pairs) as u64;
        let write = WriteList::new(list.object().handle, to.handle, buffer, offset, pairs.len() as u64);
        let write = write.and_then(|write| write.notify(immediate, offset + pairs_bytes, notification.len() as u64));
        self.transfer(what, value(what, write).map(WriteList::sqe), list, to, Some(index)).await
    }

    /// Reads segments of a leased list into segments of a list.
    ///
    /// Dropped early: as [`Transfer`].
    pub async fn read_list(&self, list: List, from: &Import, pairs: &[IndexPair]) -> Result<(u64, List), Failed<List>> {
        let what = "reading a list";
        let index = match self.index(what, &list.hold, pairs, &[]).await {
            Ok(index) => index,
            Err(error) => return Err(Failed { error, memory: Some(list) }),
        };
        let (buffer, offset) = index.place();
        let read = ReadList::new(list.handle, from.handle, buffer, offset, pairs.len() as u64);
        self.transfer(what, value(what, read).map(ReadList::sqe), list, from, Some(index)).await
    }

    /// Index pairs, and a notification behind them.
    async fn index(
        &self,
        what: &'static str,
        list: &Hold,
        pairs: &[IndexPair],
        notification: &[u8],
    ) -> Result<Scratch, Error> {
        self.check(what, list)?;
        if pairs.is_empty() {
            return Err(Error::Operation { what: "a list transfer without fragments", errno: Errno::EINVAL });
        }
        let mut bytes = Vec::with_capacity(size_of_val(pairs) + notification.len());
        for pair in pairs {
            bytes.extend_from_slice(&pair.local.to_le_bytes());
            bytes.extend_from_slice(&pair.remote.to_le_bytes());
        }
        bytes.extend_from_slice(notification);
        self.scratch_of(&bytes).await
    }
}
