//! A context: the calls that need the caller's own process, and its end.

use crate::config::{Config, RunMode};
use crate::fabric::address::Address;
use crate::fabric::shakes::Shakes;
use crate::fabric::{Pending, shm, tcp};
use crate::memory::{Mapping, Region};
use crate::ring::Ring;
use crate::runner::Shared;
use dmaplane_engine::{Event, Statistics, Usage};
use dmaplane_ring::abi::{BufferHandle, Errno, Handle, ListenerHandle, RingLayout, SlotHandle};
use std::any::Any;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The system refused something that a context needs.
    #[error("cannot set up a context: {0}")]
    System(#[from] std::io::Error),
    /// The engine or its host refused.
    #[error("{what}: {errno}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Why not.
        errno: Errno,
    },
    /// Sizes that no ring has.
    #[error(
        "a ring of {sq_entries} SQ and {cq_entries} CQ entries: both must be powers of two up to 32768, \
         the CQ at least 16 and as long as the SQ"
    )]
    RingSizes {
        /// What was asked for.
        sq_entries: u32,
        /// What was asked for.
        cq_entries: u32,
    },
    /// Not an address.
    #[error("{0}")]
    Address(String),
    /// Without a key tcp stays on loopback.
    #[error("listening at {address}: off loopback tcp needs a pre-shared key (Config::key)")]
    NeedsKey {
        /// What was asked for.
        address: String,
    },
}

impl ContextError {
    /// The errno, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            ContextError::Refused { errno, .. } => Some(*errno),
            ContextError::NeedsKey { .. } => Some(Errno::EACCES),
            _ => None,
        }
    }
}

fn refused(what: impl Into<String>) -> impl FnOnce(Errno) -> ContextError {
    let what = what.into();
    move |errno| ContextError::Refused { what, errno }
}

/// The embedded host with one engine. Cloning gives another handle on the same context. Dropping the last handle ends
/// it, which takes as long as the copies in flight take to stop; rings that are still there take nothing more.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// What a layer above keeps with the context.
    attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
    service: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("mode", &self.inner.shared.config.mode).finish_non_exhaustive()
    }
}

impl Context {
    /// Opens a context.
    pub fn open(config: Config) -> Result<Context, ContextError> {
        let shared = Shared::new(config)?;
        let serving = shared.clone();
        let service = std::thread::Builder::new().name("dmaplane-poll".into()).spawn(move || serving.serve())?;
        Ok(Context { inner: Arc::new(Inner { shared, attachment: OnceLock::new(), service: Some(service) }) })
    }

    /// Attaches a ring. Its SQ and CQ sizes are powers of two; the CQ is at least 16 entries and as long as the SQ.
    pub fn ring(&self, sq_entries: u32, cq_entries: u32) -> Result<Ring, ContextError> {
        let layout =
            RingLayout::new(sq_entries, cq_entries).ok_or(ContextError::RingSizes { sq_entries, cq_entries })?;
        self.inner.shared.attach(layout).map_err(refused("attaching a ring"))
    }

    /// Maps a buffer into view.
    pub fn map(&self, buffer: BufferHandle) -> Result<Mapping, ContextError> {
        self.inner
            .shared
            .with_core(|_, core| {
                let index = core.engine.buffer_index(buffer.handle())?;
                core.host.region(index).map(Mapping)
            })
            .map_err(refused("mapping a buffer"))
    }

    /// Makes memory of the caller's a buffer. It is copied once on its way to an shm peer, since it has no descriptor.
    ///
    /// # Safety
    /// `base` must be valid for reads and writes of `length` bytes for as long as `keep` lives, and be accessed by the
    /// caller only as a [`Mapping`] would be.
    pub unsafe fn register_user_memory(
        &self,
        base: NonNull<u8>,
        length: usize,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Result<BufferHandle, ContextError> {
        // SAFETY: the caller's promise.
        let region = unsafe { Region::user(base, length, keep) };
        self.add_region(region, "registering user memory")
    }

    /// Makes a dma-buf or memfd of somebody else's a buffer.
    pub fn import_descriptor(&self, descriptor: OwnedFd) -> Result<BufferHandle, ContextError> {
        let region = Region::import(descriptor).map_err(refused("importing a descriptor"))?;
        self.add_region(region, "importing a descriptor")
    }

    fn add_region(&self, region: Region, what: &str) -> Result<BufferHandle, ContextError> {
        self.inner
            .shared
            .with_core(|_, core| {
                let handle = core.engine.add_buffer(region.length_bytes())?;
                core.host.put_region(handle.index(), region);
                BufferHandle::from_bits(handle.bits()).ok_or(Errno::EIO)
            })
            .map_err(refused(what))
    }

    /// Takes the descriptor that an EXPORT_DMABUF made out of its slot.
    pub fn take_descriptor(&self, slot: SlotHandle) -> Result<OwnedFd, ContextError> {
        self.inner
            .shared
            .with_core(|_, core| {
                let index = core.engine.remove_slot(slot.handle())?;
                core.host.take_descriptor(index)
            })
            .map_err(refused("taking a descriptor"))
    }

    /// Puts an eventfd into a slot, for WAIT. One that blocks is -EINVAL: of two WAITs on it one would block its thread
    /// when the other has taken the count, deaf to CANCEL.
    pub fn register_eventfd(&self, eventfd: OwnedFd) -> Result<SlotHandle, ContextError> {
        if !rustix::fs::fcntl_getfl(&eventfd).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK)) {
            return Err(refused("registering an eventfd that blocks")(Errno::EINVAL));
        }
        self.inner
            .shared
            .with_core(|_, core| {
                let handle = core.engine.add_slot()?;
                core.host.put_descriptor(handle.index(), eventfd);
                SlotHandle::from_bits(handle.bits()).ok_or(Errno::EIO)
            })
            .map_err(refused("registering an eventfd"))
    }

    /// Listens at an address; ACCEPT takes what comes. Returns the listener, and the address with the port that was
    /// picked where it said 0.
    pub fn listen(&self, address: &str) -> Result<(ListenerHandle, String), ContextError> {
        let parsed: Address = address.parse().map_err(|error| ContextError::Address(format!("{error}")))?;
        match parsed {
            Address::Shm(path) => {
                let socket = shm::listen(&path).map_err(refused(format!("listening at {address}")))?;
                let handle = self.add_listener(socket, Accepting::Shm(Arc::default()))?;
                Ok((handle, address.to_owned()))
            }
            Address::Tcp(host_port) => {
                let own = self.inner.shared.own();
                let (socket, bound) = tcp::listen(&host_port, &own).map_err(|error| match error {
                    tcp::ListenError::NeedsKey => ContextError::NeedsKey { address: address.to_owned() },
                    tcp::ListenError::Errno(errno) => refused(format!("listening at {address}"))(errno),
                })?;
                let acceptor = Arc::new(tcp::Acceptor::new(own));
                let handle = self.add_listener(socket, Accepting::Tcp(acceptor))?;
                Ok((handle, format!("tcp:{bound}")))
            }
        }
    }

    fn add_listener(&self, socket: OwnedFd, accepting_by: Accepting) -> Result<ListenerHandle, ContextError> {
        let accepting = socket.try_clone()?;
        let handle = self
            .inner
            .shared
            .with_core(|_, core| {
                let handle = core.engine.add_listener()?;
                core.host.put_listener(handle.index(), socket);
                Ok(handle)
            })
            .map_err(refused("adding a listener"))?;
        let shared = Arc::downgrade(&self.inner.shared);
        std::thread::Builder::new().name("dmaplane-accept".into()).spawn(move || {
            loop {
                let accepted = rustix::net::accept_with(&accepting, rustix::net::SocketFlags::CLOEXEC);
                let Some(shared) = shared.upgrade() else { return };
                match accepted {
                    Ok(socket) => accept_one(&shared, handle, socket, &accepting_by),
                    // The listener was closed.
                    Err(rustix::io::Errno::INVAL | rustix::io::Errno::BADF) => return,
                    // Out of descriptors or memory, or the caller went away: later ones may fare better.
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        })?;
        ListenerHandle::from_bits(handle.bits()).ok_or_else(|| refused("adding a listener")(Errno::EIO))
    }

    /// What a layer above keeps with the context, for as long as that lives: made by the first who asks.
    pub fn attachment(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        self.inner.attachment.get_or_init(make).clone()
    }

    /// Who runs the engine.
    pub fn mode(&self) -> RunMode {
        self.inner.shared.config.mode
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        self.inner.shared.with_core(|_, core| core.engine.usage())
    }

    /// Counters.
    pub fn statistics(&self) -> Statistics {
        self.inner.shared.with_core(|_, core| core.engine.statistics())
    }
}

/// Shakes hands on a thread of its own, so that one slow peer keeps nobody waiting.
fn accept_one(shared: &Arc<Shared>, listener: Handle, socket: OwnedFd, by: &Accepting) {
    if !by.begin() {
        tracing::warn!("a connection was turned away: too many shake hands already");
        return;
    }
    let (shared, shaker) = (shared.clone(), by.clone());
    let shaking = std::thread::Builder::new().name("dmaplane-shake".into());
    let spawned = shaking.spawn(move || {
        let shaken = shaker.shake(&shared, socket);
        shaker.end();
        match shaken {
            Ok(Some(pending)) => {
                let info = pending.info;
                let pending = shared.keep_pending(pending);
                shared.post(Event::Incoming { listener, pending, info });
            }
            Ok(None) => {}
            Err(errno) => {
                tracing::warn!(%errno, "a connection was turned away: the peer did not shake hands as it should");
            }
        }
    });
    if spawned.is_err() {
        by.end();
    }
}

/// How a listener shakes hands.
#[derive(Clone)]
enum Accepting {
    Shm(Arc<Shakes>),
    Tcp(Arc<tcp::Acceptor>),
}

impl Accepting {
    fn begin(&self) -> bool {
        match self {
            Accepting::Shm(shakes) => shakes.begin(),
            Accepting::Tcp(acceptor) => acceptor.begin(),
        }
    }

    fn end(&self) {
        match self {
            Accepting::Shm(shakes) => shakes.end(),
            Accepting::Tcp(acceptor) => acceptor.end(),
        }
    }

    /// `None`: it was a further socket of a connection under way.
    fn shake(&self, shared: &Shared, socket: OwnedFd) -> Result<Option<Pending>, Errno> {
        match self {
            Accepting::Shm(_) => shm::serve_incoming(socket, &shared.info).map(Some),
            Accepting::Tcp(acceptor) => acceptor.shake(socket),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.with_core(|_, core| core.engine.close(&mut core.host));
        // Everything ends by itself within the time that a worker takes over what it is at.
        let patience = Instant::now() + Duration::from_secs(10);
        while !shared.with_core(|_, core| core.engine.is_closed()) {
            if Instant::now() > patience {
                tracing::error!("a context did not close within 10 s: {:?}", shared.with_core(|_, c| c.engine.usage()));
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        shared.with_core(|_, core| core.inlets.iter_mut().flatten().for_each(|inlet| inlet.close()));
        // What the engine has given back may still be on its way to the system.
        shared.workers.wait_idle(patience);
        while shared.with_core(|_, core| core.host.wake_clients()) && Instant::now() < patience {
            std::thread::sleep(Duration::from_micros(200));
        }
        shared.stopping.store(true, Ordering::Release);
        shared.ring_bell();
        if let Some(service) = self.service.take() {
            let _ = service.join();
        }
    }
}
