//! Transfers of peers into memory of ours: copied, stopped.

use super::EmbeddedHost;
use super::crew::Crew;
use super::fragments;
use super::lane::Job;
use super::notes::Note;
use crate::fabric::shm::{FragmentSource, Kind};
use crate::memory::{Checksum, Moved, SLICE_BYTES};
use crate::runner::Shared;
use dmaplane_engine::{Event, OpId, Outcome, Target};
use dmaplane_ring::abi::Errno;
use std::sync::Arc;

impl EmbeddedHost {
    pub(super) fn start_copy_in(
        &mut self,
        transfer: OpId,
        peer: u32,
        frame: u32,
        target: &Target,
        checksum: Checksum,
    ) -> Outcome {
        let tried = match self.tcp_connection(peer) {
            Some(_) => self.copy_in_tcp(transfer, frame, target, checksum),
            None => self.try_copy_in(transfer, peer, frame, target, checksum),
        };
        match tried {
            Ok(outcome) => outcome,
            Err(errno) => Outcome::failed(errno),
        }
    }

    pub(super) fn try_copy_in(
        &mut self,
        transfer: OpId,
        peer: u32,
        frame: u32,
        target: &Target,
        checksum: Checksum,
    ) -> Result<Outcome, Errno> {
        let words = self.frames.get(frame).ok_or(Errno::EPROTO)?.words;
        let kind = Kind::from_word(words[0]);
        let number = u32::try_from(words[1]).map_err(|_| Errno::EPROTO)?;
        let slot = self.peers.get_mut(peer as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
        let link = slot.link().ok_or(Errno::ECONNRESET)?;
        let source = link.peer_region(number)?;
        let offset = words[2];
        match (*target, kind) {
            (Target::Range { buffer, offset: at, length }, Some(Kind::Source)) => {
                let region = self.region(buffer)?;
                if length <= SLICE_BYTES as u64 && source.is_ready(offset, length) {
                    let moved = fragments::copy_slice(&region, at, &source, offset, length, checksum)?;
                    return Ok(Outcome::done(moved.bytes, moved.checksum.into()));
                }
                self.run(transfer, peer, move |crew| {
                    fragments::copy_range(&region, at, &source, offset, length, checksum, crew)
                });
            }
            (Target::List { list, count }, Some(Kind::ListSource)) => {
                let regions = link.regions();
                let segments = self.segments(list, None)?;
                self.run(transfer, peer, move |crew| {
                    segments.copy_in(&regions, &source, offset, count, checksum, crew)
                });
            }
            _ => return Err(Errno::EPROTO),
        }
        Ok(Outcome::Started)
    }

    /// Runs a copy of a transfer on a worker.
    pub(super) fn run(
        &mut self,
        transfer: OpId,
        peer: u32,
        copy: impl FnOnce(&Crew<'_>) -> Result<Moved, Errno> + Send + 'static,
    ) {
        let job = Arc::new(Job::default());
        self.running.insert(transfer.bits(), job.clone());
        self.give_for(peer, job, move |shared, job| {
            let outcome = copy(&Crew::new(&shared.workers, job));
            shared.note(Note::CopyEnded { transfer, outcome });
        });
    }

    /// Gives work for a peer to a worker, behind that peer's other work.
    pub(super) fn give_for(&self, peer: u32, job: Arc<Job>, work: impl FnOnce(&Shared, &Arc<Job>) + Send + 'static) {
        if let (Some(shared), Some(Some(slot))) = (self.shared(), self.peers.get(peer as usize)) {
            slot.lane.post(&shared, job, work);
        }
    }

    pub(super) fn stop_transfer(&mut self, transfer: OpId) {
        if self.stop_tcp(transfer) {
            return;
        }
        if let Some(job) = self.running.get(&transfer.bits()) {
            if job.stop() {
                self.running.remove(&transfer.bits());
                let result = Errno::EKEYREVOKED.as_result();
                self.report(Event::TransferDone { transfer, result, bytes: 0, checksum: 0 });
            }
        } else if let Some(serving) = self.serving.remove(&transfer.bits()) {
            // What a worker still makes for it is thrown away, and nobody else sees it.
            let _ = serving.job.stop();
            if let Some(scratch) = serving.scratch {
                self.drop_scratch(serving.peer.index(), scratch);
            }
            let result = Errno::ECANCELED.as_result();
            self.report(Event::TransferDone { transfer, result, bytes: 0, checksum: 0 });
        }
    }
}

const _: () = assert!(FragmentSource::BYTES == 24);
