//! Memory of this context: sealed memfds, and the user's own.

use super::placement;
use dmaplane_engine::AllocRequest;
use dmaplane_ring::abi::Errno;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE_BYTES: u64 = 4096;
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// A system error as a CQE carries it.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Mapped memory that operations may use. It lives until the last user lets go of it.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    length: usize,
    backing: Backing,
    /// What was asked for, where it is to be recycled.
    recycling: Option<AllocRequest>,
    /// Somebody was given its descriptor, and may look into it for as long as it lives.
    handed_out: AtomicBool,
}

#[derive(Debug)]
enum Backing {
    /// Sealed: nobody can shrink it, punch holes into it, or map or write it anew for writing. Our own mapping, made
    /// before the seal, is the only way to write it. So it can be handed to a peer, who then can but read it.
    Memfd(OwnedFd),
    /// Somebody else's, who may write it, and map it anew for writing, whatever we do. So it is never handed to peers,
    /// who would refuse it, but copied for them like the user's.
    Imported(OwnedFd),
    /// The user's, kept alive by what it gave us. It has no descriptor to hand over.
    User { _keep: Box<dyn Any + Send + Sync> },
}

// SAFETY: a region is plain shared memory; every access goes through raw copies or a `Mapping`, whose users (the
// typed API above) see to exclusive access.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Makes zeroed memory, placed and faulted in. The length is rounded up to pages.
    pub(crate) fn allocate(request: &AllocRequest) -> Result<Region, Errno> {
        let page = if request.huge { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        let length = request.length_bytes.checked_next_multiple_of(page).ok_or(Errno::EMSGSIZE)?;
        let length = usize::try_from(length).map_err(|_| Errno::EMSGSIZE)?;
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if request.huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let fd = rustix::fs::memfd_create("dmaplane", flags).map_err(errno)?;
        rustix::fs::ftruncate(&fd, length as u64).map_err(errno)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)
        }
        .map_err(errno)?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::ENOMEM)?;
        let mut region = Region::of(base, length, Backing::Memfd(fd));
        region.recycling = request.recycle.then_some(*request);
        if let Some(node) = request.node {
            placement::bind(region.base, length, node, request.strict)?;
        }
        region.populate()?;
        if request.strict
            && let Some(node) = request.node
        {
            region.verify_strictly(node)?;
        }
        region.seal()?;
        Ok(region)
    }

    fn of(base: NonNull<u8>, length: usize, backing: Backing) -> Region {
        Region { base, length, backing, recycling: None, handed_out: AtomicBool::new(false) }
    }

    /// Whether it can be given to the next user of this context: that was asked for, and nobody else can look into it.
    pub(crate) fn is_recyclable(&self) -> bool {
        // Relaxed: whoever hands it out and whoever asks hold the baton.
        let is_known = self.handed_out.load(Ordering::Relaxed) && !cfg!(feature = "broken-recycling");
        self.recycling.is_some() && !is_known
    }

    /// Whether it is what another request would make, but for its contents.
    pub(crate) fn suits(&self, request: &AllocRequest) -> bool {
        self.recycling.is_some_and(|made| {
            let page = if request.huge { HUGE_PAGE_BYTES } else { PAGE_BYTES };
            let length = request.length_bytes.checked_next_multiple_of(page);
            let AllocRequest { length_bytes: _, node, strict: _, huge, recycle } = *request;
            recycle && length == Some(self.length_bytes()) && (node, huge) == (made.node, made.huge)
        })
    }

    /// BUF-2: whether strict placement holds.
    pub(crate) fn verify_strictly(&self, node: u32) -> Result<(), Errno> {
        let found = placement::verify(self.base, self.length, node)?;
        if found.pages == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if found.pages_on_node != self.length as u64 / PAGE_BYTES {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Faults all pages in, so that no later copy can fail for want of memory.
    fn populate(&self) -> Result<(), Errno> {
        if let Backing::Memfd(fd) = &self.backing {
            // Made by the file, pages cost less than made by faults. Where a file cannot, faults do it.
            match rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), 0, self.length as u64) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOSPC) => return Err(Errno::ENOMEM),
                Err(error) => return Err(errno(error)),
            }
        }
        // SAFETY: the range is ours; populating changes no contents.
        let populated =
            unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.length, Advice::LinuxPopulateWrite) };
        match populated {
            Ok(()) => Ok(()),
            // A kernel before 5.14: touch each page.
            Err(rustix::io::Errno::INVAL) => {
                for offset in (0..self.length).step_by(PAGE_BYTES as usize) {
                    // SAFETY: in range; nobody else has the memory yet.
                    unsafe { self.base.add(offset).write_volatile(0) };
                }
                Ok(())
            }
            Err(rustix::io::Errno::FAULT) => Err(Errno::ENOMEM),
            Err(error) => Err(errno(error)),
        }
    }

    fn seal(&self) -> Result<(), Errno> {
        let Backing::Memfd(fd) = &self.backing else { return Ok(()) };
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(fd, seals).map_err(errno)
    }

    /// Takes memory of the user's.
    ///
    /// # Safety
    /// `base` must be valid for reads and writes of `length` bytes for as long as `keep` lives.
    pub(crate) unsafe fn user(base: NonNull<u8>, length: usize, keep: Box<dyn Any + Send + Sync>) -> Region {
        Region::of(base, length, Backing::User { _keep: keep })
    }

    /// Takes a descriptor that another device or process exported, if it can be mapped. Its contents are not touched.
    pub(crate) fn import(fd: OwnedFd) -> Result<Region, Errno> {
        must_not_shrink(&fd)?;
        let length = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0)).map_err(errno)?;
        let length = usize::try_from(length).map_err(|_| Errno::EMSGSIZE)?;
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &fd, 0) }
            .map_err(errno)?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::ENOMEM)?;
        let region = Region::of(base, length, Backing::Imported(fd));
        region.populate_by_reading()?;
        Ok(region)
    }

    /// Faults all pages in without a write: the contents are somebody's.
    fn populate_by_reading(&self) -> Result<(), Errno> {
        // SAFETY: the range is ours; reading changes no contents.
        match unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.length, Advice::LinuxPopulateRead) } {
            Ok(()) => Ok(()),
            // A kernel before 5.14, or memory of a device's, which is mapped page by page.
            Err(rustix::io::Errno::INVAL) => {
                self.touch();
                Ok(())
            }
            Err(rustix::io::Errno::FAULT) => Err(Errno::ENOMEM),
            Err(error) => Err(errno(error)),
        }
    }

    fn touch(&self) {
        for offset in (0..self.length).step_by(PAGE_BYTES as usize) {
            // SAFETY: in range, of memory that cannot shrink; others may change it meanwhile, and the value is not
            // used.
            unsafe { self.base.add(offset).read_volatile() };
        }
    }

    /// A file of a test's, none of whose pages is brought in.
    #[cfg(test)]
    pub(super) fn sparse(fd: &OwnedFd, length: usize) -> Region {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, fd, 0) };
        let base = NonNull::new(base.unwrap().cast::<u8>()).unwrap();
        Region::of(base, length, Backing::Imported(fd.try_clone().unwrap()))
    }

    /// Bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length as u64
    }

    /// The descriptor to hand to a peer, where there is one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Memfd(fd) => Some(self.hand_out(fd)),
            Backing::Imported(_) | Backing::User { .. } => None,
        }
    }

    /// The descriptor to hand to this context's own user, where there is one.
    pub(crate) fn exportable(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Memfd(fd) | Backing::Imported(fd) => Some(self.hand_out(fd)),
            Backing::User { .. } => None,
        }
    }

    fn hand_out<'a>(&self, fd: &'a OwnedFd) -> BorrowedFd<'a> {
        // Relaxed: as in `is_recyclable`.
        self.handed_out.store(true, Ordering::Relaxed);
        fd.as_fd()
    }

    /// A pointer to `length` bytes at `offset`; `None` outside the region.
    pub(crate) fn at(&self, offset: u64, length: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        if end > self.length as u64 {
            return None;
        }
        // SAFETY: within the mapping, by the check.
        Some(unsafe { self.base.add(offset as usize) })
    }

    /// Looks where the pages lie; no page looked at: the system does not tell.
    pub(crate) fn verify(&self, node: u32) -> Result<dmaplane_engine::PlacementReport, Errno> {
        placement::verify(self.base, self.length, node)
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let source = self.at(offset, bytes.len() as u64).ok_or(Errno::ERANGE)?;
        // SAFETY: both ranges are valid and do not overlap (`bytes` is no region's).
        unsafe { super::copy::copy(NonNull::from(&mut *bytes).cast(), source, bytes.len()) };
        Ok(())
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let target = self.at(offset, bytes.len() as u64).ok_or(Errno::ERANGE)?;
        // SAFETY: as in `read`.
        unsafe { super::copy::copy(target, NonNull::from(bytes).cast(), bytes.len()) };
        Ok(())
    }

    /// One 32-bit word, which others may change meanwhile.
    pub(crate) fn word(&self, offset: u64) -> Option<u32> {
        let word = self.at(offset, 4)?.cast::<std::sync::atomic::AtomicU32>();
        if !word.is_aligned() {
            return None;
        }
        // SAFETY: in range and aligned; atomics may be shared with anybody.
        // Acquire: pairs with the signaller's release; what it wrote before the word is visible.
        Some(unsafe { word.as_ref() }.load(std::sync::atomic::Ordering::Acquire))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Backing::Memfd(_) | Backing::Imported(_) = self.backing {
            // SAFETY: our mapping, and no user is left, since users hold the `Arc`.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        }
    }
}

/// A file that shrinks takes pages from under our copies, which is a signal. So a memfd must have F_SEAL_SHRINK
/// (-EPERM), and a file that has no seals must be a dma-buf, whose size is fixed, or at least no regular file
/// (-EINVAL).
fn must_not_shrink(fd: &OwnedFd) -> Result<(), Errno> {
    const DMA_BUF_MAGIC: i64 = 0x444d_4142;
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => Ok(()),
        Ok(_) => {
            tracing::warn!("a memfd without F_SEAL_SHRINK cannot be imported: it might shrink under a copy");
            Err(Errno::from_raw(libc::EPERM))
        }
        Err(_) if rustix::fs::fstatfs(fd).is_ok_and(|system| system.f_type == DMA_BUF_MAGIC) => Ok(()),
        Err(_) => {
            let mode = rustix::fs::fstat(fd).map_err(errno)?.st_mode;
            let regular = rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::RegularFile;
            if regular { Err(Errno::EINVAL) } else { Ok(()) }
        }
    }
}

/// A client's view of a buffer's memory. Holding it keeps the memory, not the buffer.
#[derive(Clone, Debug)]
pub struct Mapping(pub(crate) Arc<Region>);

impl Mapping {
    /// The memory's start.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.0.length
    }

    /// Never: a buffer has at least one page.
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// Copies bytes out; `false` outside the buffer.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        self.0.read(offset, bytes).is_ok()
    }

    /// Copies bytes in; `false` outside the buffer.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        self.0.write(offset, bytes).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd(seals: SealFlags) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &[7; 8192]).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    /// BUF-9: what might shrink under a copy is refused.
    #[test]
    fn buf_9_an_imported_file_shrinks_under_a_copy() {
        assert_eq!(Region::import(memfd(SealFlags::GROW)).unwrap_err().raw(), libc::EPERM);
        assert!(Region::import(tempfile::tempfile().unwrap().into()).is_err());
    }

    /// BUF-9, SHM-4: an import keeps its contents, and is not handed to peers, who would refuse it.
    #[test]
    fn buf_9_an_import_is_written_to_and_handed_to_peers() {
        let region = Region::import(memfd(SealFlags::SHRINK)).unwrap();
        region.touch();
        let mut bytes = [0; 8192];
        region.read(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert!(region.descriptor().is_none() && region.exportable().is_some());
    }
}
