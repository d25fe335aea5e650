//! Operations as futures on a tokio runtime (feature `tokio`).
//!
//! An [`AsyncPlane`] is a handle that tasks clone. Each operation begins when its future is first polled, on the thread
//! that polls it; a task of the plane's own sleeps in the runtime's reactor, on the ring's eventfd, and wakes whoever
//! waits. Where nothing is under way nothing runs: the engine's thread sleeps too
//! ([`RunMode::Poller`](crate::RunMode::Poller) after its idle time).
//!
//! **Dropping a future is safe at any time**, be it by `select!`, by `timeout` or with its task. The operation is
//! cancelled, never by force, and what it uses stays out of everybody's reach until it has ended; then it is freed, as
//! is what it has made. Each method says what being dropped early means for it. The same goes for the objects: what is
//! dropped is ended by the plane's task.
//!
//! Operations wait in order for their turn where there are more than the ring may hold, 1,500 with peers; none fails
//! for their number. A plane receives from 92 peers at a time; further ones are -ENOBUFS when they connect.
//!
//! When the runtime is shut down its planes are closed: what is in flight is given up, and whoever still waits gets
//! [`Error::Closed`]. Dropping the last handle ends the context as dropping a [`Context`](crate::Context) does, which
//! takes as long as copies in flight take to stop.
//!
//! ```
//! use dmaplane::asynchronous::AsyncPlane;
//! use dmaplane::{Config, Rights};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), dmaplane::Error> {
//! let directory = tempfile::tempdir()?;
//! let address = format!("shm:{}", directory.path().join("decode").display());
//! let (decode, prefill) = (AsyncPlane::open(Config::default())?, AsyncPlane::open(Config::default())?);
//! let (listener, _) = decode.listen(&address)?;
//! let (from_prefill, to_decode) = tokio::try_join!(decode.accept(&listener), prefill.connect(&address))?;
//!
//! let leased = decode.grant(decode.alloc(4096).await?, Rights::WRITE).await?;
//! let import = prefill.import(&to_decode, &decode.token(&leased).await?).await?;
//! let mut source = prefill.alloc(4096).await?;
//! source.as_mut_slice()[..5].copy_from_slice(b"hello");
//! let writing = tokio::spawn(prefill.write_imm(source, 0, &import, 0, 5, 42));
//!
//! assert_eq!(from_prefill.receive().await?.immediate, Some(42));
//! let buffer = decode.revoke(leased).await?;
//! assert_eq!(&buffer.as_slice()[..5], b"hello");
//! let (bytes, _source) = writing.await.expect("the task does not panic")?;
//! assert_eq!(bytes, 5);
//! # Ok(())
//! # }
//! ```

mod connection;
mod desk;
mod driver;
mod lease;
mod line;
mod operation;
mod scratch;
mod transfer;

#[cfg(test)]
mod tests;

pub use connection::{Arrivals, AsyncPeer, Receive};
pub use transfer::{Failed, ListSource, Source, Transfer};

use crate::buffer::{Buffer, List};
use crate::error::Error;
use crate::host::Host;
use crate::objects::{Dropped, Hold, Objects};
use crate::plane::Plane;
use desk::Shared;
use dmaplane_embedded::{Config, Usage};
use dmaplane_ring::abi::{BufferHandle, Errno, ListHandle, Run};
use dmaplane_ring::build::{Alloc, Free, ListFree, ListPrepare, PagePlacement};
use driver::Driver;
use line::{CQ_ENTRIES, Line, SQ_ENTRIES};
use operation::{Ends, Makes, Operation};
use scratch::Pool;
use std::sync::Arc;
use std::time::Duration;

/// How long an operation that only needs this host may take before something is badly wrong.
const LOCAL_PATIENCE: Duration = Duration::from_secs(120);

/// A ring over a context, for the tasks of a runtime: clone it for each of them.
#[derive(Clone)]
pub struct AsyncPlane {
    handle: Arc<Handle>,
}

/// What goes with the last handle, in this order: the ring, its memory, the context.
struct Handle {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    context: Host,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for AsyncPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncPlane").field("context", &self.handle.context).finish_non_exhaustive()
    }
}

impl AsyncPlane {
    /// Opens a context of its own. To be called within a runtime whose I/O is enabled.
    pub fn open(config: Config) -> Result<AsyncPlane, Error> {
        AsyncPlane::of(&Host::open(config)?)
    }

    /// Opens a context of the kernel driver's: see [`Plane::open_device`].
    pub fn open_device(path: impl AsRef<std::path::Path>, config: &Config) -> Result<AsyncPlane, Error> {
        AsyncPlane::of(&Host::open_device(path.as_ref(), config)?)
    }

    /// A plane of the context of another one, whose objects it shares.
    pub fn beside(plane: &Plane) -> Result<AsyncPlane, Error> {
        AsyncPlane::of(plane.context())
    }

    fn of(context: &Host) -> Result<AsyncPlane, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(std::io::Error::other)?;
        let what = "opening a plane";
        let mut ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
        let alloc = Alloc::new(Pool::BYTES).map_err(|source| Error::Value { what, source })?;
        // The ring is new, and empty.
        let _ = ring.push(alloc);
        ring.submit();
        let waited = LOCAL_PATIENCE;
        let cqe = ring.wait_one(waited).ok_or(Error::TimedOut { what, waited })?;
        cqe.result().map_err(|errno| Error::Operation { what, errno })?;
        let eventfd = ring.eventfd()?.try_clone_to_owned()?;
        let line = Line::new(ring, context.runs_by_entering());
        let shared = Arc::new(Shared::new(line, Objects::of(context)));
        let pool = Pool::new(buffer_of(context, &shared.objects, what, cqe.word0)?);
        runtime.spawn(Driver::new(shared.clone(), eventfd)?);
        Ok(AsyncPlane { handle: Arc::new(Handle { shared, pool, context: context.clone() }) })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.handle.pool
    }

    fn context(&self) -> &Host {
        &self.handle.context
    }

    fn hold(&self, what: Dropped) -> Hold {
        Hold::new(&self.shared().objects, what)
    }

    fn check(&self, what: &'static str, hold: &Hold) -> Result<(), Error> {
        if hold.is_of(&self.shared().objects) { Ok(()) } else { Err(Error::Foreign { what }) }
    }

    fn check_same(&self, what: &'static str, objects: &Arc<Objects>) -> Result<(), Error> {
        if Arc::ptr_eq(objects, &self.shared().objects) { Ok(()) } else { Err(Error::Foreign { what }) }
    }

    /// What the context has in use: of its own a plane has one buffer.
    pub fn usage(&self) -> Usage {
        self.context().usage()
    }

    /// Allocates zeroed memory anywhere; its length is rounded up to pages.
    ///
    /// Dropped early it is cancelled, or the buffer freed.
    pub async fn alloc(&self, length_bytes: u64) -> Result<Buffer, Error> {
        self.alloc_placed(length_bytes, PagePlacement::Any).await
    }

    /// Allocates zeroed memory on a node.
    ///
    /// Dropped early it is cancelled, or the buffer freed.
    pub async fn alloc_placed(&self, length_bytes: u64, placement: PagePlacement) -> Result<Buffer, Error> {
        let what = "allocating a buffer";
        let alloc = Alloc::new(length_bytes).map_err(|source| Error::Value { what, source })?;
        let made = |bits| BufferHandle::from_bits(bits).map(Dropped::Buffer);
        let makes = Makes { made, from: () };
        let cqe = Operation::new(self, what, alloc.placement(placement).sqe(), makes).await.0?;
        buffer_of(self.context(), &self.shared().objects, what, cqe.word0)
    }

    /// Frees a buffer; one that is dropped is freed by itself.
    ///
    /// Dropped early, it goes on.
    pub async fn free(&self, buffer: Buffer) -> Result<(), Error> {
        let what = "freeing a buffer";
        self.check(what, &buffer.hold)?;
        let (sqe, hold) = (Free::new(buffer.handle).sqe(), buffer.hold.share());
        let (result, used) = Operation::new(self, what, sqe, Ends { hold, target: buffer }).await;
        result?;
        if let Some(Ends { mut hold, .. }) = used {
            hold.ended();
        }
        Ok(())
    }

    /// Makes a list of segments over buffers, which it takes. Each run names its buffer by its position in `buffers`.
    ///
    /// Dropped early it is cancelled, or the list ended; the buffers are freed.
    pub async fn prepare_list(&self, buffers: Vec<Buffer>, runs: &[(usize, Run)]) -> Result<List, Error> {
        let what = "preparing a list";
        buffers.iter().try_for_each(|buffer| self.check(what, &buffer.hold))?;
        let mut table = Vec::with_capacity(runs.len() * Run::BYTES as usize);
        for (buffer, run) in runs {
            let buffer = buffers.get(*buffer).ok_or(Error::Operation { what, errno: Errno::EBADF })?;
            let run = Run { buffer: buffer.handle.handle().bits(), ..*run };
            table.extend(run.to_words().iter().flat_map(|word| word.to_le_bytes()));
        }
        let table = self.scratch_of(&table).await?;
        let (buffer, offset) = table.place();
        let prepare = ListPrepare::new(buffer, offset, runs.len() as u64);
        let sqe = prepare.map_err(|source| Error::Value { what, source })?.sqe();
        let made = |bits| ListHandle::from_bits(bits).map(Dropped::List);
        let (result, used) = Operation::new(self, what, sqe, Makes { made, from: (buffers, table) }).await;
        let cqe = result?;
        match (ListHandle::from_bits(cqe.word0), used) {
            (Some(handle), Some(Makes { from: (buffers, _), .. })) => {
                Ok(List { handle, segments: cqe.word1, hold: self.hold(Dropped::List(handle)), buffers })
            }
            _ => Err(Error::Operation { what, errno: Errno::EIO }),
        }
    }

    /// Drops a list; its buffers come back. One that is dropped is ended by itself, and its buffers freed.
    ///
    /// Dropped early, it goes on, and the buffers are freed.
    pub async fn free_list(&self, list: List) -> Result<Vec<Buffer>, Error> {
        let what = "freeing a list";
        self.check(what, &list.hold)?;
        let List { handle, hold, buffers, .. } = list;
        let ends = Ends { hold, target: buffers };
        let (result, used) = Operation::new(self, what, ListFree::new(handle).sqe(), ends).await;
        result?;
        let Ends { mut hold, target } = used.ok_or(Error::Closed { what })?;
        hold.ended();
        Ok(target)
    }
}

fn buffer_of(context: &Host, objects: &Arc<Objects>, what: &'static str, bits: u64) -> Result<Buffer, Error> {
    let handle = BufferHandle::from_bits(bits).ok_or(Error::Operation { what, errno: Errno::EIO })?;
    let hold = Hold::new(objects, Dropped::Buffer(handle));
    Ok(Buffer { handle, mapping: context.map(handle)?, hold })
}
