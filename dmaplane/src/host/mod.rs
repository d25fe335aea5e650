//! Who runs the engine: this process (the embedded host), or the kernel (`/dev/dmaplane`). What follows is the same for
//! both, but for the addresses at which peers meet.

mod device;
mod mapping;
mod ring;

pub(crate) use mapping::Mapping;
pub(crate) use ring::Ring;

use crate::error::Error;
use device::DeviceContext;
use dmaplane_embedded::{Config, RunMode, Usage};
use dmaplane_ring::abi::{BufferHandle, ListenerHandle};
use std::any::Any;
use std::path::Path;
use std::sync::Arc;

/// A context, whoever runs its engine.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    Embedded(dmaplane_embedded::Context),
    Device(Arc<DeviceContext>),
}

impl Host {
    pub(crate) fn open(config: Config) -> Result<Host, Error> {
        Ok(Host::Embedded(dmaplane_embedded::Context::open(config)?))
    }

    pub(crate) fn open_device(path: &Path, config: &Config) -> Result<Host, Error> {
        Ok(Host::Device(Arc::new(DeviceContext::open(path, config)?)))
    }

    pub(crate) fn ring(&self, sq_entries: u32, cq_entries: u32) -> Result<Ring, Error> {
        match self {
            Host::Embedded(context) => Ok(Ring::Embedded(context.ring(sq_entries, cq_entries)?)),
            Host::Device(context) => Ok(Ring::Device(context.ring(sq_entries, cq_entries)?)),
        }
    }

    pub(crate) fn map(&self, buffer: BufferHandle) -> Result<Mapping, Error> {
        match self {
            Host::Embedded(context) => Ok(Mapping::Embedded(context.map(buffer)?)),
            Host::Device(context) => Ok(Mapping::Device(context.map(buffer)?)),
        }
    }

    pub(crate) fn listen(&self, address: &str) -> Result<(ListenerHandle, String), Error> {
        match self {
            Host::Embedded(context) => Ok(context.listen(address)?),
            Host::Device(context) => Ok((context.listen(address)?, address.to_owned())),
        }
    }

    /// What the context has in use.
    pub(crate) fn usage(&self) -> Usage {
        match self {
            Host::Embedded(context) => context.usage(),
            Host::Device(context) => context.usage(),
        }
    }

    /// How the engine runs. The driver runs it in the call by which a client submits, as inline mode does.
    #[cfg(feature = "tokio")]
    pub(crate) fn runs_by_entering(&self) -> bool {
        match self {
            Host::Embedded(context) => context.mode() == RunMode::Enter,
            Host::Device(_) => false,
        }
    }

    /// Something that lives as long as the context does, made by the first who asks.
    pub(crate) fn attachment(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        match self {
            Host::Embedded(context) => context.attachment(make),
            Host::Device(context) => context.attachment(make),
        }
    }
}

/// Whether a poller is asked for.
fn poller(mode: RunMode) -> Option<std::time::Duration> {
    match mode {
        RunMode::Poller { idle } => Some(idle),
        RunMode::Inline | RunMode::Enter => None,
    }
}
