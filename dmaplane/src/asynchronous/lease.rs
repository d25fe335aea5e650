//! Leases: granting, exporting, revoking, claiming.

use super::AsyncPlane;
use super::connection::AsyncPeer;
use super::operation::{Ends, Makes, Operation, Uses};
use crate::buffer::{Import, LeaseTarget, Leased};
use crate::error::Error;
use crate::objects::Dropped;
use dmaplane_ring::abi::{Errno, ImportHandle, LeaseHandle, MAX_TOKEN_BYTES, Rights};
use dmaplane_ring::build::{ImportRelease, LeaseExport, LeaseGrant, LeaseImport, LeaseRevoke};
use std::time::Duration;

impl AsyncPlane {
    /// Leases a whole buffer, or a list's segments, to the first peer that shows the token.
    ///
    /// Dropped early, the lease ends and what it was on is freed.
    pub async fn grant<T: LeaseTarget + Send + 'static>(&self, target: T, rights: Rights) -> Result<Leased<T>, Error> {
        let what = "granting a lease";
        let grant = target.grant(rights).map_err(|source| Error::Value { what, source })?;
        self.granted(what, grant, target).await
    }

    /// Leases a whole buffer, or a list's segments, to one peer.
    ///
    /// Dropped early, the lease ends and what it was on is freed.
    pub async fn grant_to<T: LeaseTarget + Send + 'static>(
        &self,
        target: T,
        rights: Rights,
        to: &AsyncPeer,
    ) -> Result<Leased<T>, Error> {
        let what = "granting a lease";
        self.check_peer(what, to)?;
        let grant = target.grant(rights).map_err(|source| Error::Value { what, source })?;
        self.granted(what, grant.to_peer(to.handle()), target).await
    }

    async fn granted<T: LeaseTarget + Send + 'static>(
        &self,
        what: &'static str,
        grant: LeaseGrant,
        target: T,
    ) -> Result<Leased<T>, Error> {
        self.check(what, target.hold())?;
        let made = |bits| LeaseHandle::from_bits(bits).map(Dropped::Lease);
        let (result, used) = Operation::new(self, what, grant.sqe(), Makes { made, from: target }).await;
        let handle = result.map(|cqe| LeaseHandle::from_bits(cqe.word0))?;
        match (handle, used) {
            (Some(handle), Some(Makes { from: target, .. })) => {
                Ok(Leased { handle, hold: self.hold(Dropped::Lease(handle)), target })
            }
            _ => Err(Error::Operation { what, errno: Errno::EIO }),
        }
    }

    /// The token with which a peer claims a lease: bytes for it to show, through whatever router.
    ///
    /// Dropping it early does nothing to the lease.
    pub async fn token<T: LeaseTarget>(&self, leased: &Leased<T>) -> Result<Vec<u8>, Error> {
        let what = "exporting a lease";
        self.check(what, &leased.hold)?;
        let (handle, hold) = (leased.handle, leased.hold.share());
        let scratch = self.scratch(MAX_TOKEN_BYTES).await?;
        let (buffer, offset) = scratch.place();
        let export = LeaseExport::new(handle, buffer, offset).sqe();
        match Operation::new(self, what, export, Uses((scratch, hold))).await {
            (Ok(cqe), Some(Uses((scratch, _)))) => Ok(scratch.read(cqe.res as usize)),
            (result, _) => Err(result.err().unwrap_or(Error::Operation { what, errno: Errno::EIO })),
        }
    }

    /// Ends a lease now: transfers in flight under it are stopped. Once it has ended, nothing lands any more.
    ///
    /// Dropped early, the revoke goes on, and what the lease was on stays out of everybody's reach until it has ended;
    /// then it is freed.
    pub async fn revoke<T: LeaseTarget + Send + 'static>(&self, leased: Leased<T>) -> Result<T, Error> {
        self.revoked(leased, LeaseRevoke::now).await
    }

    /// Ends a lease, letting what is in flight end within `grace`.
    ///
    /// Dropped early: as [`AsyncPlane::revoke`].
    pub async fn revoke_gracefully<T: LeaseTarget + Send + 'static>(
        &self,
        leased: Leased<T>,
        grace: Duration,
    ) -> Result<T, Error> {
        let nanoseconds = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        self.revoked(leased, |lease| LeaseRevoke::graceful(lease, nanoseconds)).await
    }

    async fn revoked<T: LeaseTarget + Send + 'static>(
        &self,
        leased: Leased<T>,
        revoke: impl FnOnce(LeaseHandle) -> LeaseRevoke,
    ) -> Result<T, Error> {
        let what = "revoking a lease";
        self.check(what, &leased.hold)?;
        let Leased { handle, hold, target } = leased;
        let (result, used) = Operation::new(self, what, revoke(handle).sqe(), Ends { hold, target }).await;
        result?;
        let Ends { mut hold, target } = used.ok_or(Error::Closed { what })?;
        hold.ended();
        Ok(target)
    }

    /// Claims a lease by its token.
    ///
    /// Dropped early, the claim goes on; the lease is given back as soon as it is ours.
    pub async fn import(&self, peer: &AsyncPeer, token: &[u8]) -> Result<Import, Error> {
        let what = "claiming a lease";
        self.check_peer(what, peer)?;
        let scratch = self.scratch_of(token).await?;
        let (buffer, offset) = scratch.place();
        let import = LeaseImport::new(buffer, offset, token.len() as u64);
        let import = import.map_err(|source| Error::Value { what, source })?.from_peer(peer.handle());
        let made = |bits| ImportHandle::from_bits(bits).map(Dropped::Import);
        let cqe = Operation::new(self, what, import.sqe(), Makes { made, from: scratch }).await.0?;
        let handle = ImportHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(Import { handle, length: cqe.word1, hold: self.hold(Dropped::Import(handle)) })
    }

    /// Gives a claimed lease back; one that is dropped is given back by itself.
    ///
    /// Dropped early, it goes on.
    pub async fn release(&self, import: Import) -> Result<(), Error> {
        let what = "releasing a lease";
        self.check(what, &import.hold)?;
        let Import { handle, hold, .. } = import;
        let ends = Ends { hold, target: () };
        let (result, used) = Operation::new(self, what, ImportRelease::new(handle).sqe(), ends).await;
        result?;
        if let Some(Ends { mut hold, .. }) = used {
            hold.ended();
        }
        Ok(())
    }
}
