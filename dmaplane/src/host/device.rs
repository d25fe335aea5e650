//! A context of the kernel driver's.

use super::poller;
use super::ring::DeviceRing;
use crate::error::Error;
use dmaplane_device::{Device, Mapping};
use dmaplane_embedded::{Config, Limits, Usage};
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::abi::{BufferHandle, ListenerHandle};
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The driver's own bounds (`driver/context.c`): entries of a table, and bytes of a buffer.
const ENTRIES_MAX: u32 = 1 << 18;
const BUFFER_BYTES_MAX: u64 = 1 << 36;
const LISTENERS_MAX: u32 = 1024;
const INBOUND_MAX: u32 = 4096;

/// A context, closed when it is dropped, whatever mappings of it are left: they keep their memory.
#[derive(Debug)]
pub(crate) struct DeviceContext {
    device: Device,
    attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// What went wrong, with what was asked for.
pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Device { what, source }
}

impl DeviceContext {
    pub(super) fn open(path: &Path, config: &Config) -> Result<DeviceContext, Error> {
        let opened = Device::open_bare(path).map_err(failed(format!("opening {}", path.display())))?;
        let device = Device::set_up(opened, setup(config)).map_err(failed("setting a context up"))?;
        Ok(DeviceContext { device, attachment: OnceLock::new() })
    }

    pub(super) fn ring(&self, sq_entries: u32, cq_entries: u32) -> Result<DeviceRing, Error> {
        let ring = self.device.ring(sq_entries, cq_entries).map_err(failed("attaching a ring"))?;
        Ok(DeviceRing::new(ring))
    }

    pub(super) fn map(&self, buffer: BufferHandle) -> Result<Mapping, Error> {
        self.device.map(buffer).map_err(failed("mapping a buffer"))
    }

    pub(super) fn listen(&self, address: &str) -> Result<ListenerHandle, Error> {
        self.device.listen(address).map_err(failed(format!("listening at {address}")))
    }

    /// All zero where the system does not tell.
    pub(super) fn usage(&self) -> Usage {
        let told = self.device.information().unwrap_or_default();
        let of = |name: &str| told.get(name).and_then(|&count| u32::try_from(count).ok()).unwrap_or(0);
        Usage {
            operations: of("operations"),
            buffers: of("buffers"),
            lists: of("lists"),
            leases: of("leases"),
            imports: of("imports"),
            peers: of("peers"),
            inbound: of("inbound"),
            slots: of("slots"),
            listeners: of("listeners"),
        }
    }

    pub(super) fn attachment(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        self.attachment.get_or_init(make).clone()
    }
}

impl Drop for DeviceContext {
    fn drop(&mut self) {
        // Nothing is left to say it to; the last close of the descriptor does the same.
        let _ = self.device.close();
    }
}

/// What a configuration comes to: limits beyond the driver's bounds become those.
fn setup(config: &Config) -> DeviceSetup {
    let idle = poller(config.mode);
    let Limits {
        rings,
        operations,
        buffers,
        buffer_bytes,
        lists,
        leases,
        imports,
        peers,
        listeners,
        slots,
        inbound_per_peer,
    } = config.limits;
    let entries = |asked: u32| asked.min(ENTRIES_MAX);
    DeviceSetup {
        flags: if idle.is_some() { setup_flags::POLLER } else { 0 },
        // 0 would be the driver's own choice.
        poller_idle_us: idle.map_or(0, |idle| u32::try_from(idle.as_micros()).unwrap_or(u32::MAX).max(1)),
        rings: entries(rings),
        operations: entries(operations),
        buffers: entries(buffers),
        buffer_bytes: buffer_bytes.min(BUFFER_BYTES_MAX),
        lists: entries(lists),
        leases: entries(leases),
        imports: entries(imports),
        peers: entries(peers),
        listeners: listeners.min(LISTENERS_MAX),
        slots: entries(slots),
        inbound_per_peer: inbound_per_peer.min(INBOUND_MAX),
        ..DeviceSetup::default()
    }
}
