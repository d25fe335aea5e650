//! Leases: granting, exporting, revoking, claiming.

use super::connection::Peer;
use super::{LOCAL_PATIENCE, Plane};
use crate::buffer::{Buffer, Import, LeaseTarget, Leased, List};
use crate::error::Error;
use crate::objects::Dropped;
use dmaplane_ring::abi::{Cqe, Errno, ImportHandle, LeaseHandle, Rights};
use dmaplane_ring::build::{ImportRelease, LeaseExport, LeaseGrant, LeaseImport, LeaseRenew, LeaseRevoke};
use std::time::Duration;

const GRANTING: &str = "granting a lease";

/// A time to live as the engine takes it: at least 1, since 0 would mean for ever.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl Plane {
    /// Leases a whole buffer to the first peer that shows its token.
    pub fn grant(&mut self, buffer: Buffer, rights: Rights) -> Result<Leased<Buffer>, Error> {
        self.grant_for(buffer, rights, None, None)
    }

    /// Leases a whole buffer to one peer.
    pub fn grant_to(&mut self, buffer: Buffer, rights: Rights, to: &Peer) -> Result<Leased<Buffer>, Error> {
        self.grant_for(buffer, rights, Some(to), None)
    }

    /// Leases a whole buffer to one peer, or to the first that shows its token; for a time, which [`Plane::renew`] sets
    /// anew, or until the revoke. A lease whose time is over is to be revoked all the same: only that gives the memory
    /// back.
    pub fn grant_for(
        &mut self,
        buffer: Buffer,
        rights: Rights,
        to: Option<&Peer>,
        time_to_live: Option<Duration>,
    ) -> Result<Leased<Buffer>, Error> {
        let grant = LeaseGrant::range(buffer.handle, 0, buffer.len() as u64, rights);
        self.granted(grant.map_err(|source| Error::Value { what: GRANTING, source })?, to, time_to_live, buffer)
    }

    /// Leases a list's segments to one peer.
    pub fn grant_list(&mut self, list: List, rights: Rights, to: &Peer) -> Result<Leased<List>, Error> {
        self.grant_list_for(list, rights, Some(to), None)
    }

    /// As [`Plane::grant_for`], a list's segments.
    pub fn grant_list_for(
        &mut self,
        list: List,
        rights: Rights,
        to: Option<&Peer>,
        time_to_live: Option<Duration>,
    ) -> Result<Leased<List>, Error> {
        self.granted(LeaseGrant::list(list.handle, rights), to, time_to_live, list)
    }

    fn granted<T: LeaseTarget>(
        &mut self,
        mut grant: LeaseGrant,
        to: Option<&Peer>,
        time_to_live: Option<Duration>,
        target: T,
    ) -> Result<Leased<T>, Error> {
        let what = GRANTING;
        self.check(what, target.hold())?;
        if let Some(to) = to {
            grant = grant.to_peer(self.peer_handle(what, to)?);
        }
        if let Some(time_to_live) = time_to_live {
            grant = grant.time_to_live_ns(nanoseconds(time_to_live));
        }
        let cqe = self.local(what, grant.sqe())?;
        let handle = LeaseHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(Leased { handle, hold: self.hold(Dropped::Lease(handle)), target })
    }

    /// Sets a lease's end anew: so long from now. An error says with which errno it ends, or has ended, already.
    pub fn renew<T: LeaseTarget>(&mut self, leased: &Leased<T>, time_to_live: Duration) -> Result<(), Error> {
        let what = "renewing a lease";
        self.check(what, &leased.hold)?;
        self.local(what, LeaseRenew::new(leased.handle, nanoseconds(time_to_live)).sqe()).map(drop)
    }

    /// The token with which a peer claims a lease: bytes for it to show, through whatever router.
    pub fn token<T: LeaseTarget>(&mut self, leased: &Leased<T>) -> Result<Vec<u8>, Error> {
        let what = "exporting a lease";
        self.check(what, &leased.hold)?;
        let scratch = self.put_scratch(what, &[])?;
        let cqe = self.local(what, LeaseExport::new(leased.handle, scratch, 0).sqe())?;
        let scratch = self.scratch.as_ref().ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(scratch.as_slice()[..cqe.res as usize].to_vec())
    }

    /// Ends a lease now: transfers in flight under it are stopped. When it returns, nothing lands any more.
    pub fn revoke<T: LeaseTarget>(&mut self, leased: Leased<T>) -> Result<T, Error> {
        self.revoked(leased, Duration::ZERO, LeaseRevoke::now)
    }

    /// Ends a lease, letting what is in flight end within `grace`.
    pub fn revoke_gracefully<T: LeaseTarget>(&mut self, leased: Leased<T>, grace: Duration) -> Result<T, Error> {
        let nanoseconds = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        self.revoked(leased, grace, |lease| LeaseRevoke::graceful(lease, nanoseconds))
    }

    fn revoked<T: LeaseTarget>(
        &mut self,
        leased: Leased<T>,
        grace: Duration,
        revoke: impl FnOnce(LeaseHandle) -> LeaseRevoke,
    ) -> Result<T, Error> {
        let what = "revoking a lease";
        self.check(what, &leased.hold)?;
        self.call(what, revoke(leased.handle).sqe(), LOCAL_PATIENCE.saturating_add(grace))?;
        let Leased { mut hold, target, .. } = leased;
        hold.ended();
        Ok(target)
    }

    /// Claims a lease by its token.
    pub fn import(&mut self, peer: &Peer, token: &[u8]) -> Result<Import, Error> {
        let what = "claiming a lease";
        let from = self.peer_handle(what, peer)?;
        let handle = self.put_scratch(what, token)?;
        let import = LeaseImport::new(handle, 0, token.len() as u64);
        let import = import.map_err(|source| Error::Value { what, source })?.from_peer(from);
        let cqe = self.call(what, import.sqe(), self.patience())?;
        self.import_of(what, &cqe)
    }

    pub(super) fn import_of(&self, what: &'static str, cqe: &Cqe) -> Result<Import, Error> {
        let handle = ImportHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(Import { handle, length: cqe.word1, hold: self.hold(Dropped::Import(handle)) })
    }

    /// Gives a claimed lease back.
    pub fn release(&mut self, import: Import) -> Result<(), Error> {
        let what = "releasing a lease";
        self.check(what, &import.hold)?;
        self.local(what, ImportRelease::new(import.handle).sqe())?;
        let Import { mut hold, .. } = import;
        hold.ended();
        Ok(())
    }
}
