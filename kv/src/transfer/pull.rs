//! Pull: the owner leases its blocks, the other side reads them. What vLLM does by default.

use super::{Moved, PagedPool, TransferError, common_fragment, pairs_with};
use crate::{BlockTable, ChecksumAlgorithm, Digest64, LeaseToken, TransferId, TransferManifest};
use dmaplane::{Leased, List, Peer, Plane, Rights};

/// The owner's half: blocks that a peer may read.
#[derive(Debug)]
#[must_use = "close it: its lease is live"]
pub struct Source {
    lease: Leased<List>,
}

impl Source {
    /// Leases a sequence's blocks for reading, and the manifest that tells the reader of them: its user bytes are the
    /// sequence's digest (8 bytes, little endian) and then `user`. `reader_block_tokens` is the reader's block size.
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
        let mut told = pool.digest(table)?.0.to_le_bytes().to_vec();
        told.extend_from_slice(user);
        let (list, _) = pool.sequence_list(plane, table, fragment_tokens)?;
        let lease = plane.grant_list(list, Rights::READ, peer)?;
        let manifest = TransferManifest {
            layout,
            pool_blocks: pool.geometry().blocks(),
            table: table.clone(),
            fragment_tokens,
            parts: 1,
            transfer: TransferId::unpack(0),
            checksum: ChecksumAlgorithm::Xxh3,
            lease_token: LeaseToken(plane.token(&lease)?),
            user: told,
        };
        Ok((Source { lease }, manifest))
    }

    /// Ends the lease: a read that has not succeeded by now will not.
    pub fn close(self, plane: &mut Plane) -> Result<(), TransferError> {
        let list = plane.revoke(self.lease)?;
        plane.free_list(list)?;
        Ok(())
    }
}

/// The reader's half: reads the sequence into blocks of its own with one list read. Returns them with the owner's user
/// bytes. On an error the blocks are free again.
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
    let (plan, pairs) = pairs_with(pool, table, theirs)?;
    let import = plane.import(peer, &theirs.lease_token.0)?;
    let list = pool.list(plane, theirs.fragment_tokens)?;
    let moved = plane.read_list(list, &import, &pairs);
    plane.release(import)?;
    let bytes = moved?;
    let Some((expected, user)) = theirs.user.split_first_chunk::<8>() else {
        return Err(TransferError::Notice { found: theirs.user.len() });
    };
    let (found, expected) = (pool.digest(table)?, Digest64(u64::from_le_bytes(*expected)));
    if found != expected {
        return Err(TransferError::Digest { found, expected });
    }
    Ok((Moved { bytes, fragments: plan.fragments() }, user.to_vec()))
}
