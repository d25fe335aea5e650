//! Where pages lie: mbind to place them, move_pages to look (clauses BUF-2, BUF-6).
//!
//! Containers forbid both by default. With the capability SYS_NICE Docker's profile allows mbind and get_mempolicy, not
//! move_pages; so that is asked where move_pages is refused, page by page. It brings in a page that is not there, so
//! mincore tells first which are.

use dmaplane_engine::PlacementReport;
use dmaplane_ring::abi::Errno;
use std::ptr::NonNull;

const PAGE_BYTES: usize = 4096;
const MPOL_DEFAULT: libc::c_int = 0;
const MPOL_PREFERRED: libc::c_int = 1;
const MPOL_BIND: libc::c_int = 2;
/// get_mempolicy: the node, not the policy.
const MPOL_F_NODE: libc::c_ulong = 1;
/// get_mempolicy: of the page at an address.
const MPOL_F_ADDR: libc::c_ulong = 2;
/// Pages asked about in one system call.
const BATCH: usize = 1024;

/// Whether this process may place memory and see where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Both.
    Verifiable,
    /// The system forbids one or both, as containers do by default: strict placement fails.
    Unverifiable {
        /// What was refused, and how.
        reason: String,
    },
}

/// Finds out by asking, for the calling thread: filters of system calls are a thread's.
pub fn placement_support() -> Placement {
    let mut refused = Vec::new();
    // An empty range: it changes nothing.
    // SAFETY: no address is looked at, since the length is 0.
    if unsafe { libc::syscall(libc::SYS_mbind, 0, 0, MPOL_DEFAULT, 0, 0, 0) } != 0 {
        refused.push(format!("mbind: {}", name(last_errno())));
    }
    let page = 0u64;
    let here = NonNull::from(&page).cast::<u8>();
    if let Err(first) = move_pages(here, 1)
        && let Err((call, second)) = look_one_by_one(here, 1)
    {
        refused.push(format!("move_pages: {}, {call}: {}", name(first), name(second)));
    }
    if refused.is_empty() {
        return Placement::Verifiable;
    }
    Placement::Unverifiable { reason: refused.join(", ") }
}

/// Whether PLACEMENT can tell anything.
pub(crate) fn can_look() -> bool {
    let page = 0u64;
    !matches!(node_of_pages(NonNull::from(&page).cast(), 1), Err(error) if is_refusal(error))
}

/// The system does not let us, whatever we ask about.
fn is_refusal(error: Errno) -> bool {
    matches!(error.raw(), libc::EPERM | libc::ENOSYS | libc::EACCES)
}

/// The ABI has no names for those that never reach a CQE.
fn name(errno: Errno) -> String {
    match errno.raw() {
        libc::EPERM => "EPERM".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        _ => errno.to_string(),
    }
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
            error if is_refusal(error) => Errno::EOPNOTSUPP,
            error => error,
        }),
        _ => Ok(()),
    }
}

/// Counts the range's pages on `node`, page by page. Pages that the system does not tell of are not counted as looked
/// at: where it tells of none, both numbers are 0.
pub(super) fn verify(base: NonNull<u8>, length: usize, node: u32) -> Result<PlacementReport, Errno> {
    let pages = length.div_ceil(PAGE_BYTES);
    let mut report = PlacementReport { pages_on_node: 0, pages: 0 };
    for first in (0..pages).step_by(BATCH) {
        let count = BATCH.min(pages - first);
        // SAFETY: within the range.
        let start = unsafe { base.add(first * PAGE_BYTES) };
        let nodes = match node_of_pages(start, count) {
            Ok(nodes) => nodes,
            Err(error) if is_refusal(error) => return Ok(PlacementReport { pages_on_node: 0, pages: 0 }),
            Err(error) => return Err(error),
        };
        // A page that is not there (-ENOENT) lies on no node, and that is known.
        let told = |&&found: &&i32| found >= 0 || found == -libc::ENOENT;
        report.pages += nodes.iter().filter(told).count() as u64;
        report.pages_on_node += nodes.iter().filter(|&&found| found == node as i32).count() as u64;
    }
    Ok(report)
}

/// Each page's node, or a negative errno for it.
fn node_of_pages(start: NonNull<u8>, count: usize) -> Result<Vec<i32>, Errno> {
    match move_pages(start, count) {
        Err(error) if is_refusal(error) => look_one_by_one(start, count).map_err(|(_, error)| error),
        told => told,
    }
}

fn move_pages(start: NonNull<u8>, count: usize) -> Result<Vec<i32>, Errno> {
    let pages: Vec<*mut u8> = (0..count).map(|page| start.as_ptr().wrapping_add(page * PAGE_BYTES)).collect();
    let mut status = vec![-libc::EIO; count];
    let no_nodes = std::ptr::null::<i32>();
    // SAFETY: both arrays have `count` entries; without target nodes the call moves nothing and only reports.
    let result =
        unsafe { libc::syscall(libc::SYS_move_pages, 0, count, pages.as_ptr(), no_nodes, status.as_mut_ptr(), 0) };
    if result == 0 { Ok(status) } else { Err(last_errno()) }
}

/// The same by get_mempolicy, of those pages that are there; an error comes with the call that the system refuses.
fn look_one_by_one(start: NonNull<u8>, count: usize) -> Result<Vec<i32>, (&'static str, Errno)> {
    let there = there(start, count).map_err(|error| ("mincore", error))?;
    let node_of = |(page, state): (usize, i32)| {
        if state != 0 {
            return Ok(state);
        }
        get_mempolicy(start.as_ptr().wrapping_add(page * PAGE_BYTES)).map_err(|error| ("get_mempolicy", error))
    };
    there.into_iter().enumerate().map(node_of).collect()
}

/// Of each page 0 where it is in memory, -ENOENT where it is not, -EFAULT where nothing is mapped.
fn there(start: NonNull<u8>, count: usize) -> Result<Vec<i32>, Errno> {
    // The user's memory may begin within a page.
    let first = start.as_ptr().map_addr(|address| address & !(PAGE_BYTES - 1));
    let mut found = vec![0u8; count];
    let mincore = |page: usize, found: &mut [u8]| {
        let address = first.wrapping_add(page * PAGE_BYTES);
        // SAFETY: the call writes one byte a page, as many as there is room for, and touches no page.
        match unsafe { libc::mincore(address.cast(), found.len() * PAGE_BYTES, found.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    };
    let state = |found: u8| if found & 1 == 0 { -libc::ENOENT } else { 0 };
    match mincore(0, &mut found) {
        Ok(()) => Ok(found.into_iter().map(state).collect()),
        Err(error) if is_refusal(error) => Err(error),
        // One of them is nobody's: one by one, then.
        Err(_) => {
            let mut one = [0];
            let each = |page| mincore(page, &mut one).map_or(-libc::EFAULT, |()| state(one[0]));
            Ok((0..count).map(each).collect())
        }
    }
}

/// The node of the page at an address, or a negative errno for it. The page should be there: it would be brought in.
fn get_mempolicy(address: *mut u8) -> Result<i32, Errno> {
    let mut node: libc::c_int = -libc::EIO;
    let no_mask = std::ptr::null_mut::<libc::c_ulong>();
    let flags = MPOL_F_NODE | MPOL_F_ADDR;
    // SAFETY: the call writes one int, and no mask; of the page it looks up where it lies.
    let result = unsafe { libc::syscall(libc::SYS_get_mempolicy, &mut node, no_mask, 0, address, flags) };
    match result {
        0 => Ok(node),
        _ => match last_errno() {
            error if is_refusal(error) => Err(error),
            error => Ok(-error.raw()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmaplane_engine::AllocRequest;

    /// BUF-6: the two ways to look agree, so that a container that has but the second is told the same. Where the
    /// machine forbids both there is nothing to compare, and `unverifiable.rs` tests what is said then.
    #[test]
    fn buf_6_get_mempolicy_tells_another_node_than_move_pages() {
        let length_bytes = 64 * PAGE_BYTES as u64;
        let request = AllocRequest::plain(length_bytes);
        let region = super::super::Region::allocate(&request).unwrap();
        let start = region.at(0, length_bytes).unwrap();
        match (move_pages(start, 64), look_one_by_one(start, 64)) {
            (Ok(one), Ok(other)) => assert_eq!(one, other),
            (one, other) => assert_eq!(can_look(), one.is_ok() || other.is_ok()),
        }
    }

    /// BUF-6: where move_pages is forbidden, a look made the page that it looked for: all of a sparse buffer's.
    #[test]
    fn buf_6_a_look_by_get_mempolicy_makes_the_pages_that_are_not_there() {
        const PAGES: usize = 64;
        let fd = rustix::fs::memfd_create("sparse", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, (PAGES * PAGE_BYTES) as u64).unwrap();
        let region = super::super::Region::sparse(&fd, PAGES * PAGE_BYTES);
        let there = [3, 4, 60];
        for page in there {
            region.write((page * PAGE_BYTES) as u64, &[1]).unwrap();
        }
        let blocks = || rustix::fs::fstat(&fd).unwrap().st_blocks;
        let before = blocks();
        let start = region.at(0, (PAGES * PAGE_BYTES) as u64).unwrap();
        match look_one_by_one(start, PAGES) {
            Ok(nodes) => {
                for (page, node) in nodes.into_iter().enumerate() {
                    assert_eq!(node >= 0, there.contains(&page), "page {page}: {node}");
                    assert!(node >= 0 || node == -libc::ENOENT, "page {page}: {node}");
                }
                // The user's memory may begin anywhere in a page.
                let within = look_one_by_one(region.at(100, 1).unwrap(), 4).unwrap();
                assert_eq!(within.iter().map(|&node| node >= 0).collect::<Vec<_>>(), [false, false, false, true]);
            }
            Err((_, error)) => assert!(is_refusal(error), "{error}"),
        }
        assert_eq!(blocks(), before, "looking has made pages");
    }

    /// BUF-6: a page of no mapping is not one that is merely not in memory, which counts as looked at.
    #[test]
    fn buf_6_a_page_of_no_mapping_is_taken_for_one_that_is_not_in_memory() {
        let page = Box::new([7u8; PAGE_BYTES]);
        assert_eq!(there(NonNull::dangling(), 2).unwrap(), [-libc::EFAULT; 2]);
        assert_eq!(there(NonNull::from(page.as_ref()).cast(), 1).unwrap(), [0]);
    }

    /// BUF-6: a page that cannot be looked at is not counted as looked at.
    #[test]
    fn buf_6_a_page_of_no_mapping_is_counted_as_looked_at() {
        // The first page is nobody's.
        let nowhere = NonNull::<u8>::dangling();
        let found = verify(nowhere, PAGE_BYTES, 0).unwrap();
        assert_eq!(found, PlacementReport { pages_on_node: 0, pages: 0 });
    }
}
