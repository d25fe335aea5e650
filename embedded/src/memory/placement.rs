//! Where pages lie: mbind to place them, move_pages to look (clause BUF-6).

use dmaplane_engine::PlacementReport;
use dmaplane_ring::abi::Errno;
use std::ptr::NonNull;
use std::sync::OnceLock;

const PAGE_BYTES: usize = 4096;
const MPOL_BIND: libc::c_int = 2;
const MPOL_PREFERRED: libc::c_int = 1;
/// Pages asked about in one system call.
const BATCH: usize = 1024;

/// Whether this process may place memory and see where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Both.
    Verifiable,
    /// The system forbids it, as containers do by default: strict placement fails.
    Unverifiable {
        /// What was refused, and how.
        reason: String,
    },
}

/// Finds out, once.
pub fn placement_support() -> &'static Placement {
    static SUPPORT: OnceLock<Placement> = OnceLock::new();
    SUPPORT.get_or_init(|| {
        let page = 0u64;
        let here = NonNull::from(&page).cast::<u8>();
        match node_of_pages(here, 1) {
            Ok(_) => Placement::Verifiable,
            Err(error) => Placement::Unverifiable { reason: format!("move_pages: {error}") },
        }
    })
}

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Asks the kernel to take the range's pages from a node. Preferred placement that is forbidden is no error: PLACEMENT
/// tells what came of it.
pub(super) fn bind(base: NonNull<u8>, length: usize, node: u32, strict: bool) -> Result<(), Errno> {
    if node >= 1024 {
        return Err(Errno::EINVAL);
    }
    let mut mask = [0u64; 16];
    mask[node as usize / 64] |= 1 << (node % 64);
    let mode = if strict { MPOL_BIND } else { MPOL_PREFERRED };
    // SAFETY: the range is our mapping, the mask has as many bits as we say; mbind changes no contents.
    let result =
        unsafe { libc::syscall(libc::SYS_mbind, base.as_ptr(), length, mode, mask.as_ptr(), mask.len() * 64 + 1, 0) };
    match result {
        0 => Ok(()),
        _ if strict => Err(match last_errno() {
            error if error.raw() == libc::EPERM || error.raw() == libc::ENOSYS => Errno::EOPNOTSUPP,
            error => error,
        }),
        _ => Ok(()),
    }
}

/// Counts the range's pages on `node`, page by page.
pub(super) fn verify(base: NonNull<u8>, length: usize, node: u32) -> Result<PlacementReport, Errno> {
    let pages = length.div_ceil(PAGE_BYTES);
    let mut report = PlacementReport { pages_on_node: 0, pages: pages as u64 };
    for first in (0..pages).step_by(BATCH) {
        let count = BATCH.min(pages - first);
        // SAFETY: within the range.
        let start = unsafe { base.add(first * PAGE_BYTES) };
        let nodes = node_of_pages(start, count).map_err(|error| match error.raw() {
            libc::EPERM | libc::ENOSYS => Errno::EOPNOTSUPP,
            _ => error,
        })?;
        report.pages_on_node += nodes.iter().filter(|&&found| found == node as i32).count() as u64;
    }
    Ok(report)
}

fn node_of_pages(start: NonNull<u8>, count: usize) -> Result<Vec<i32>, Errno> {
    let pages: Vec<*mut u8> = (0..count).map(|page| start.as_ptr().wrapping_add(page * PAGE_BYTES)).collect();
    let mut status = vec![-1i32; count];
    let no_nodes = std::ptr::null::<i32>();
    // SAFETY: both arrays have `count` entries; without target nodes the call moves nothing and only reports.
    let result =
        unsafe { libc::syscall(libc::SYS_move_pages, 0, count, pages.as_ptr(), no_nodes, status.as_mut_ptr(), 0) };
    if result == 0 { Ok(status) } else { Err(last_errno()) }
}
