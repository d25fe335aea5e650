//! Pull: the owner leases its blocks, the other side reads them. What vLLM does by default.

use super::{Moved, PagedPool, TransferError, common_fragment, pairs_of, plan_with};
use crate::{BlockTable, ChecksumAlgorithm, Digest64, FragmentPlan, LeaseToken, TransferId, TransferManifest};
use dmaplane::{Import, Leased, List, Peer, Plane, Rights};

/// The owner's half: blocks that a peer may read.
#[derive(Debug)]
#[must_use = "close it: its lease is live"]
pub struct Source {
    lease: Leased<List>,
    table: BlockTable,
}

impl Source {
    /// Leases a sequence's blocks for reading, and the manifest that tells the reader of them: its user bytes are what
    /// the sequence is checked by (8 bytes, little endian) and then `user`. `reader_block_tokens` is the reader's block
    /// size.
    pub fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        peer: &Peer,
        table: &BlockTable,
        reader_block_tokens: u32,
        user: &[u8],
    ) -> Result<(Source, TransferManifest), TransferError> {
        let layout = *pool.geometry().layout();
        let fragment_tokens = common_fragment(layout.block_tokens(), reader_block_tokens);
        pool.clear_padding(table, fragment_tokens)?;
        let (list, plan) = pool.sequence_list(plane, table, fragment_tokens)?;
        let checksum = pool.checksum();
        let value = match checksum {
            ChecksumAlgorithm::None => 0,
            ChecksumAlgorithm::Crc32c => pool.crc32c(&plan)?.into(),
            ChecksumAlgorithm::Xxh3 => pool.digest(table)?.0,
        };
        let mut told = value.to_le_bytes().to_vec();
        told.extend_from_slice(user);
        let lease = plane.grant_list(list, Rights::READ, peer)?;
        let token = match plane.token(&lease) {
            Ok(token) => token,
            Err(error) => {
                plane.revoke(lease)?;
                return Err(error.into());
            }
        };
        pool.note_lease(table, false, 1);
        let manifest = TransferManifest {
            layout,
            pool_blocks: pool.geometry().blocks(),
            table: table.clone(),
            fragment_tokens,
            parts: 1,
            transfer: TransferId::unpack(0),
            checksum,
            lease_token: LeaseToken(token),
            user: told,
        };
        Ok((Source { lease, table: table.clone() }, manifest))
    }

    /// Ends the lease: a read that has not succeeded by now will not.
    pub fn close(self, plane: &mut Plane, pool: &mut PagedPool) -> Result<(), TransferError> {
        let list = plane.revoke(self.lease)?;
        pool.note_lease(&self.table, false, -1);
        plane.free_list(list)?;
        Ok(())
    }
}

/// The reader's half: reads the sequence into blocks of its own, with one list read where that can hold it. Returns
/// them with the owner's user bytes. On an error the blocks are free again.
pub fn pull(
    plane: &mut Plane,
    pool: &mut PagedPool,
    peer: &Peer,
    theirs: &TransferManifest,
) -> Result<(BlockTable, Moved, Vec<u8>), TransferError> {
    let (theirs_are, ours) =
        (theirs.layout.compatible_fingerprint(), pool.geometry().layout().compatible_fingerprint());
    if theirs_are != ours {
        return Err(TransferError::OtherModel { theirs: theirs_are, ours });
    }
    let table = pool.allocate(theirs.table.tokens())?;
    match read(plane, pool, peer, &table, theirs) {
        Ok((moved, user)) => Ok((table, moved, user)),
        Err(error) => {
            pool.release(table)?;
            Err(error)
        }
    }
}

fn read(
    plane: &mut Plane,
    pool: &mut PagedPool,
    peer: &Peer,
    table: &BlockTable,
    theirs: &TransferManifest,
) -> Result<(Moved, Vec<u8>), TransferError> {
    let Some((expected, user)) = theirs.user.split_first_chunk::<8>() else {
        return Err(TransferError::Notice { found: theirs.user.len() });
    };
    let expected = u64::from_le_bytes(*expected);
    let plan = plan_with(pool, table, theirs)?;
    let import = plane.import(peer, &theirs.lease_token.0)?;
    let read = read_parts(plane, pool, &plan, &import, theirs.checksum);
    plane.release(import)?;
    let (bytes, crc32c) = read?;
    match theirs.checksum {
        ChecksumAlgorithm::None => {}
        ChecksumAlgorithm::Crc32c if u64::from(crc32c) == expected => {}
        ChecksumAlgorithm::Crc32c => {
            return Err(TransferError::Checksum { part: 0, found: crc32c, expected: expected as u32 });
        }
        ChecksumAlgorithm::Xxh3 => {
            let (found, expected) = (pool.digest(table)?, Digest64(expected));
            if found != expected {
                return Err(TransferError::Digest { found, expected });
            }
        }
    }
    Ok((Moved { bytes, fragments: plan.fragments() }, user.to_vec()))
}

/// Reads a plan in as many operations as it takes: bytes, and the CRC-32C of all where it is wanted.
fn read_parts(
    plane: &mut Plane,
    pool: &mut PagedPool,
    plan: &FragmentPlan,
    import: &Import,
    checksum: ChecksumAlgorithm,
) -> Result<(u64, u32), TransferError> {
    let most = pool.part_fragments(plan.fragment_bytes());
    let (mut bytes, mut crc32c) = (0, 0);
    for part in plan.chunks(most)? {
        let list = pool.list(plane, plan.fragment_tokens())?;
        let pairs = pairs_of(&part);
        let moved = if checksum == ChecksumAlgorithm::Crc32c {
            let (moved, of_part) = plane.read_list_checked(list, import, &pairs)?;
            crc32c = crc32c::crc32c_combine(crc32c, of_part, moved as usize);
            moved
        } else {
            plane.read_list(list, import, &pairs)?
        };
        if moved != part.bytes_total() {
            let (found, expected) = (moved, part.bytes_total());
            return Err(TransferError::PartBytes { part: 0, found, expected });
        }
        bytes += moved;
    }
    Ok((bytes, crc32c))
}
