//! READs of peers: what they are shown, until they have said that they are done.

use super::copies::{self, Prepared};
use super::lane::Job;
use super::notes::Note;
use super::{EmbeddedHost, PeerSlot};
use crate::fabric::shm::{Entry, Kind};
use crate::memory::Region;
use crate::storage::Heap;
use dmaplane_engine::{Engine, Event, OpId, Outcome, Target};
use dmaplane_ring::abi::{Errno, Handle, MAX_OPERATION_BYTES};
use std::sync::Arc;

/// Bytes that may be bounced for one peer's READs at a time: one READ of any length fits.
const BOUNCED_BYTES_MAX: u64 = MAX_OPERATION_BYTES;

/// A READ of a peer that we serve.
pub(crate) struct Serving {
    pub peer: Handle,
    /// Makes what the peer is shown, where something has to be made.
    pub job: Arc<Job>,
    pub scratch: Option<Arc<Region>>,
    pub bytes: u64,
    /// Bytes of memory made for it.
    pub bounced: u64,
}

impl EmbeddedHost {
    pub(super) fn start_serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Outcome {
        if let Some(connection) = self.tcp_connection(peer) {
            return match self.serve_tcp(connection, transfer, frame, source) {
                Ok(outcome) => outcome,
                Err(errno) => Outcome::failed(errno),
            };
        }
        match self.try_serve(transfer, peer, frame, source) {
            Ok(()) => Outcome::Started,
            Err(errno) => {
                self.serving.remove(&transfer.bits());
                Outcome::failed(errno)
            }
        }
    }

    pub(super) fn try_serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Result<(), Errno> {
        let handle = self.peer_handle(peer)?;
        let words = self.frames.get(frame).ok_or(Errno::EPROTO)?.words;
        let reader = words[7];
        let job = Arc::new(Job::default());
        let serving = Serving { peer: handle, job: job.clone(), scratch: None, bytes: 0, bounced: 0 };
        self.serving.insert(transfer.bits(), serving);
        match *source {
            Target::Range { buffer, offset, length } => {
                let region = self.region(buffer)?;
                if region.descriptor().is_some() {
                    let number = self.share(peer, &region)?;
                    if let Some(serving) = self.serving.get_mut(&transfer.bits()) {
                        serving.bytes = length;
                    }
                    let words = [reader, transfer.bits(), number.into(), offset];
                    self.send_entry(peer, Entry::of_fabric(Kind::Serve, words), Vec::new());
                    return Ok(());
                }
                if !self.may_bounce(handle, length) {
                    // A peer that never says that it is done would have us make a window full of copies.
                    return Err(Errno::EAGAIN);
                }
                if let Some(serving) = self.serving.get_mut(&transfer.bits()) {
                    serving.bounced = length;
                }
                self.give_for(peer, job, move |shared, job| {
                    let prepared = copies::bounce(&region, offset, length, job.stop_flag());
                    shared.note(Note::ServeReady { peer: handle, transfer, reader, prepared });
                });
            }
            Target::List { list, count } => {
                let number = u32::try_from(words[1]).map_err(|_| Errno::EPROTO)?;
                if Kind::from_word(words[0]) != Some(Kind::ListIndex) {
                    return Err(Errno::EPROTO);
                }
                let segments = self.segments(list, Some(peer))?;
                let slot = self.peers.get_mut(peer as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
                let index = slot.link().ok_or(Errno::ECONNRESET)?.peer_region(number)?;
                let offset = words[2];
                self.give_for(peer, job, move |shared, _| {
                    let pairs = copies::read_remote_index(&index, offset, count);
                    let prepared = pairs.and_then(|pairs| segments.sources(Kind::ServeList, &pairs));
                    shared.note(Note::ServeReady { peer: handle, transfer, reader, prepared });
                });
            }
        }
        Ok(())
    }

    pub(super) fn may_bounce(&self, peer: Handle, length: u64) -> bool {
        let of_peer = self.serving.values().filter(|serving| serving.peer == peer);
        of_peer.map(|serving| serving.bounced).sum::<u64>() + length <= BOUNCED_BYTES_MAX
    }

    pub(super) fn serve_prepared(
        &mut self,
        engine: &mut Engine<Heap>,
        peer: Handle,
        transfer: OpId,
        reader: u64,
        prepared: Result<Prepared, Errno>,
    ) {
        if !self.serving.contains_key(&transfer.bits()) {
            // Stopped meanwhile: its end has been reported.
            return;
        }
        let sent = prepared.and_then(|prepared| {
            let number = self.share(peer.index(), &prepared.region)?;
            if let Some(serving) = self.serving.get_mut(&transfer.bits()) {
                serving.scratch = Some(prepared.region);
                serving.bytes = prepared.bytes;
            }
            let kind = if prepared.kind == Kind::ServeList { Kind::ServeList } else { Kind::Serve };
            let words = [reader, transfer.bits(), number.into(), prepared.offset];
            self.send_entry(peer.index(), Entry::of_fabric(kind, words), Vec::new());
            Ok(())
        });
        if let Err(errno) = sent {
            self.serving.remove(&transfer.bits());
            engine.handle(self, Event::TransferDone { transfer, result: errno.as_result(), bytes: 0, checksum: 0 });
        }
    }

    /// Entries that are between the hosts alone.
    pub(super) fn take_fabric_entry(&mut self, peer: Handle, kind: Kind, entry: &Entry) -> Result<(), Errno> {
        let [_, first, second, third, fourth, ..] = entry.fabric;
        match kind {
            Kind::RegionDrop => {
                let slot = self.peers.get_mut(peer.index() as usize).and_then(Option::as_mut);
                let region = slot.and_then(PeerSlot::link).ok_or(Errno::ECONNRESET)?.forget(first)?;
                // Unmapping gigabytes takes long: not on the engine's thread.
                self.give(move |_| drop(region));
                Ok(())
            }
            Kind::ServeEnd => {
                let transfer = OpId::from_bits(first);
                if self.serving.get(&first).is_none_or(|serving| serving.peer != peer) {
                    // Stopped before the reader knew.
                    return Ok(());
                }
                let Some(serving) = self.serving.remove(&first) else { return Ok(()) };
                if let Some(scratch) = serving.scratch {
                    self.drop_scratch(peer.index(), scratch);
                }
                let result = if third == 0 { 0 } else { Errno::from_raw(third as i32).as_result() };
                let bytes = if result == 0 { serving.bytes } else { second.min(serving.bytes) };
                self.report(Event::TransferDone { transfer, result, bytes, checksum: 0 });
                Ok(())
            }
            _ => {
                let number = u32::try_from(third).map_err(|_| Errno::EPROTO)?;
                self.begin_read(peer, OpId::from_bits(first), second, number, fourth)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::sync::Weak;

    /// SEC-5: a peer that reads memory without a descriptor, and never says that it is done.
    #[test]
    fn sec_5_one_peers_reads_are_bounced_without_bound() {
        let mut host = EmbeddedHost::new(Weak::new(), &Config::default());
        let [peer, other] = [1, 2].map(Handle::from_bits);
        assert!(host.may_bounce(peer, MAX_OPERATION_BYTES));
        let bounced = MAX_OPERATION_BYTES / 2;
        host.serving.insert(1, Serving { peer, job: Arc::default(), scratch: None, bytes: 0, bounced });
        assert!(host.may_bounce(peer, bounced) && host.may_bounce(other, MAX_OPERATION_BYTES));
        assert!(!host.may_bounce(peer, MAX_OPERATION_BYTES));
    }
}
