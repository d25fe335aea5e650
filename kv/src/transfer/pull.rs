//! Pull: the owner leases its blocks, the other side reads them. What vLLM does by default.

use super::read_lease::ReadLease;
use super::{Cut, Moved, PagedPool, Terms, TransferError, check_model, pairs_of, plan_with};
use crate::{BlockTable, ChecksumAlgorithm, Digest64, FragmentPlan, HeadRange, TransferManifest};
use dmaplane::{Import, Peer, Plane};

/// The owner's half: blocks that a peer may read.
#[derive(Debug)]
#[must_use = "close it: its lease is live"]
pub struct Source {
    lease: ReadLease,
}

impl Source {
    /// Leases a sequence's blocks for reading, and the manifest that tells the reader of them: its user bytes are what
    /// the sequence is checked by (8 bytes, little endian) and then `user`. `reader_block_tokens` is the block size of
    /// the reader, which is the same shard of as many.
    pub fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        peer: &Peer,
        table: &BlockTable,
        reader_block_tokens: u32,
        user: &[u8],
    ) -> Result<(Source, TransferManifest), TransferError> {
        let terms = Terms::between(pool, pool.shard(), reader_block_tokens)?;
        let wanted = pool.heads();
        let terms = terms.ok_or(TransferError::Legs { wanted, found: Vec::new() })?;
        let (mut lease, mut manifest) = ReadLease::open(plane, pool, Some(peer), table, &terms, None)?;
        let value = lease.seal(pool, table, 0..manifest.layout.layers()).and_then(|()| {
            Ok(match manifest.checksum {
                ChecksumAlgorithm::None => 0,
                ChecksumAlgorithm::Crc32c => lease.crc32c(pool, None)?.into(),
                ChecksumAlgorithm::Xxh3 => pool.digest_of(table, lease.heads())?.0,
            })
        });
        match value {
            Ok(value) => {
                manifest.user = value.to_le_bytes().to_vec();
                manifest.user.extend_from_slice(user);
                Ok((Source { lease }, manifest))
            }
            Err(error) => {
                lease.end(plane, pool)?;
                Err(error)
            }
        }
    }

    /// Ends the lease: a read that has not succeeded by now will not.
    pub fn close(self, plane: &mut Plane, pool: &mut PagedPool) -> Result<(), TransferError> {
        self.lease.end(plane, pool)
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
    check_model(pool, (&theirs.layout, theirs.shard))?;
    if theirs.is_announced {
        return Err(TransferError::Announced { announced: true });
    }
    if theirs.heads != pool.heads() {
        return Err(TransferError::Legs { wanted: pool.heads(), found: vec![theirs.heads] });
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
    let (plan, heads) = plan_with(pool, table, theirs)?;
    let import = plane.import(peer, &theirs.lease_token.0)?;
    let read = read_parts(plane, pool, (&plan, heads), &import, theirs);
    plane.release(import)?;
    let (bytes, crc32c) = read?;
    match theirs.checksum {
        ChecksumAlgorithm::None => {}
        ChecksumAlgorithm::Crc32c if u64::from(crc32c) == expected => {}
        ChecksumAlgorithm::Crc32c => {
            // The owner says one for all parts together.
            return Err(TransferError::Checksum { part: 0, found: Some(crc32c), expected: expected as u32 });
        }
        ChecksumAlgorithm::Xxh3 => {
            let (found, expected) = (pool.digest_of(table, heads)?, Digest64(expected));
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
    (plan, heads): (&FragmentPlan, HeadRange),
    import: &Import,
    theirs: &TransferManifest,
) -> Result<(u64, u32), TransferError> {
    // The owner announces nothing, so that the parts are the reader's business.
    let (fragment_bytes, most) = (plan.fragment_bytes(), pool.part_fragments(plan.fragment_bytes()));
    if most == 0 {
        return Err(TransferError::Parts { part_fragments: 1, fragment_bytes, most });
    }
    let parting = TransferManifest { part_fragments: theirs.part_fragments.min(most), ..theirs.clone() }.parting();
    let (mut bytes, mut crc32c) = (0, 0);
    for number in 0..parting.parts() as u32 {
        let part = plan.part(parting.part(number).unwrap_or_default());
        let list = pool.list(plane, Cut { tokens: plan.fragment_tokens(), heads })?;
        let pairs = pairs_of(&part);
        let moved = if theirs.checksum == ChecksumAlgorithm::Crc32c {
            let (moved, of_part) = plane.read_list_checked(list, import, &pairs)?;
            crc32c = crc32c::crc32c_combine(crc32c, of_part, moved as usize);
            moved
        } else {
            plane.read_list(list, import, &pairs)?
        };
        if moved != part.bytes_total() {
            let (found, expected) = (moved, part.bytes_total());
            return Err(TransferError::PartBytes { part: number, found, expected });
        }
        bytes += moved;
    }
    Ok((bytes, crc32c))
}
