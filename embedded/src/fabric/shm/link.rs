//! A link: messages out and in, regions handed over, all without blocking.

use super::entry::{Entry, Kind};
use super::memory::{ENTRIES, Incoming, LinkMemory, Outgoing};
use crate::memory::{PeerRegion, Region};
use dmaplane_ring::abi::{Errno, RingFlags};
use dmaplane_ring::queue::{Consumer, Producer, RingWord, handshake};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::collections::{HashMap, VecDeque};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

/// Entries that may wait for a peer that does not read: beyond, the connection is ended.
const BACKLOG_LIMIT: usize = 1 << 16;

/// Regions that a peer may have handed over and not dropped: each is a descriptor of ours. All buffers of a context,
/// and what is made for its requests, fit.
const REGIONS_MAX: usize = 1 << 15;
/// Regions taken in at one look at most, since the engine's thread looks.
const REGIONS_PER_LOOK: usize = 1024;
/// After so many regions in a row an entry follows that names the last. A peer looks only when an entry makes it, and
/// the socket has room for some 200: without it a list over more buffers would wait for good.
const REGIONS_IN_A_ROW: u32 = 64;

/// Entries that may each have been rung for before the bell is emptied: far fewer than it has room for.
const BELL_RINGS: u32 = 64;

/// A number may name a live region still, so none is used twice: a link that has used them all has to end.
pub(crate) const NUMBERS_USED_UP: Errno = Errno::from_raw(libc::EOVERFLOW);

/// Regions of a peer, by its numbers. Shared with the workers, which copy out of them.
pub(crate) type PeerRegions = Arc<Mutex<HashMap<u32, Arc<PeerRegion>>>>;

/// What a peer has sent: its entry and what came with it.
type Received = (Kind, Entry, Vec<u8>);

/// What is to be sent, in order.
enum Outbound {
    Region(u32, Arc<Region>),
    Entry(Entry, Vec<u8>),
}

/// A link to one peer.
pub(crate) struct Link {
    memory: Arc<LinkMemory>,
    outgoing: Producer<Arc<LinkMemory>, Outgoing>,
    incoming: Consumer<Arc<LinkMemory>, Incoming>,
    /// Entries written and read so far, for the payload slots.
    written: u32,
    read: u32,
    /// Carries descriptors; its end is the peer's death.
    socket: OwnedFd,
    /// Rung by the peer.
    bell: OwnedFd,
    /// The peer has been asked to ring, and may have done so often since the bell was last emptied: once for each entry
    /// that came; [`BELL_RINGS`] before the first. `None`: it is to be emptied no more before the peer is asked again.
    rings_at_most: Option<u32>,
    /// The peer is asked to ring.
    asks_for_bell: bool,
    peer_bell: OwnedFd,
    backlog: VecDeque<Outbound>,
    /// Numbers of our regions that the peer has, by address. The weak reference keeps the address from being used for
    /// another region while it is listed here, whatever becomes of this one.
    shared: HashMap<usize, (u32, Weak<Region>)>,
    next_region: u32,
    regions: PeerRegions,
}

impl Link {
    pub(super) fn new(memory: LinkMemory, socket: OwnedFd, bell: OwnedFd, peer_bell: OwnedFd) -> Link {
        let memory = Arc::new(memory);
        Link {
            outgoing: Producer::new(memory.clone()),
            incoming: Consumer::new(memory.clone()),
            memory,
            written: 0,
            read: 0,
            socket,
            bell,
            rings_at_most: None,
            asks_for_bell: false,
            peer_bell,
            backlog: VecDeque::new(),
            shared: HashMap::new(),
            next_region: 1,
            regions: PeerRegions::default(),
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What the peer rings when we sleep.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(crate) fn regions(&self) -> PeerRegions {
        self.regions.clone()
    }

    /// Ends the connection: the peer sees it too.
    pub(crate) fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// The peer's number for a region of ours, which it is handed if it has not got it.
    pub(crate) fn share(&mut self, region: &Arc<Region>) -> Result<u32, Errno> {
        let key = Arc::as_ptr(region) as usize;
        if let Some((id, _)) = self.shared.get(&key) {
            return Ok(*id);
        }
        if self.shared.len() >= REGIONS_MAX - 1 {
            return Err(Errno::ENFILE);
        }
        let id = self.hand_over(region)?;
        self.shared.insert(key, (id, Arc::downgrade(region)));
        if id.is_multiple_of(REGIONS_IN_A_ROW) {
            let again = self.hand_over(region)?;
            self.send(Entry::of_fabric(Kind::RegionDrop, [again.into(), 0, 0, 0]), Vec::new());
        }
        Ok(id)
    }

    fn hand_over(&mut self, region: &Arc<Region>) -> Result<u32, Errno> {
        let id = self.next_region;
        self.next_region = id.checked_add(1).ok_or(NUMBERS_USED_UP)?;
        self.backlog.push_back(Outbound::Region(id, region.clone()));
        Ok(id)
    }

    /// Tells the peer that a region of ours is used no more; `false`: it never had it.
    pub(crate) fn unshare(&mut self, region: &Arc<Region>) -> bool {
        let shared = self.shared.remove(&(Arc::as_ptr(region) as usize));
        if let Some((id, _)) = shared {
            self.send(Entry::of_fabric(Kind::RegionDrop, [id.into(), 0, 0, 0]), Vec::new());
        }
        shared.is_some()
    }

    /// Sends an entry, in order; `false` when the peer has not read for too long.
    pub(crate) fn send(&mut self, entry: Entry, payload: Vec<u8>) -> bool {
        self.backlog.push_back(Outbound::Entry(entry, payload));
        self.backlog.len() <= BACKLOG_LIMIT
    }

    /// Moves what waits into the shared area and rings the peer's bell if it sleeps. An error is the link's end.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        while let Some(next) = self.backlog.front() {
            match next {
                Outbound::Region(id, region) => {
                    if !self.send_region(*id, region)? {
                        break;
                    }
                }
                Outbound::Entry(entry, payload) => {
                    if self.outgoing.free_at_least() == 0 && self.outgoing.free() == 0 {
                        break;
                    }
                    let mut entry = *entry;
                    entry.set_payload_bytes(payload.len() as u32);
                    self.memory.put_payload(self.written, payload)?;
                    self.outgoing.push(&entry);
                    self.written = self.written.wrapping_add(1);
                }
            }
            self.backlog.pop_front();
        }
        if self.outgoing.publish() && handshake::peer_sleeps(&*self.memory, RingWord::EngineFlags) {
            ring(&self.peer_bell);
        }
        Ok(())
    }

    /// Whether something waits for room.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// `false`: the socket is full, later.
    fn send_region(&self, id: u32, region: &Region) -> Result<bool, Errno> {
        let descriptor = region.descriptor().ok_or(Errno::EOPNOTSUPP)?;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&u64::from(id).to_le_bytes());
        bytes[8..].copy_from_slice(&region.length_bytes().to_le_bytes());
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
            Ok(_) => Ok(true),
            // The last: this user has as many descriptors under way as it may.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::TOOMANYREFS) => Ok(false),
            Err(_) => Err(Errno::ECONNRESET),
        }
    }

    /// Takes in the regions that the peer has sent, up to the one that is wanted. Quick: they are checked, not mapped.
    fn receive_regions(&mut self, wanted: u32) -> Result<(), Errno> {
        for _ in 0..REGIONS_PER_LOOK {
            // One byte more than there may be.
            let mut bytes = [0; 17];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received =
                match rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                    Ok(message) => message.bytes,
                    Err(rustix::io::Errno::AGAIN) => return Ok(()),
                    Err(_) => return Err(Errno::ECONNRESET),
                };
            let mut descriptors = ancillary.drain().flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
                _ => Vec::new(),
            });
            let (descriptor, more) = (descriptors.next(), descriptors.next());
            if received == 0 {
                return Err(Errno::ECONNRESET);
            }
            let (Some(descriptor), None, 16) = (descriptor, more, received) else { return Err(Errno::EPROTO) };
            let (id, length) = bytes[..16].split_at(8);
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            let id = u32::try_from(word(id)).map_err(|_| Errno::EPROTO)?;
            let region = PeerRegion::check(descriptor, word(length))?;
            let mut regions = self.regions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if regions.len() >= REGIONS_MAX || regions.insert(id, Arc::new(region)).is_some() {
                return Err(Errno::EPROTO);
            }
            if id == wanted {
                return Ok(());
            }
        }
        Err(Errno::EPROTO)
    }

    /// A region of the peer's; looks at the socket when it is not known yet.
    pub(crate) fn peer_region(&mut self, id: u32) -> Result<Arc<PeerRegion>, Errno> {
        let known =
            |regions: &PeerRegions| regions.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&id).cloned();
        if let Some(region) = known(&self.regions) {
            return Ok(region);
        }
        self.receive_regions(id)?;
        known(&self.regions).ok_or(Errno::EPROTO)
    }

    /// The peer uses a region of its own no more. Letting go of it may take long.
    pub(crate) fn forget(&mut self, number: u64) -> Result<Arc<PeerRegion>, Errno> {
        let id = u32::try_from(number).map_err(|_| Errno::EPROTO)?;
        self.peer_region(id)?;
        let mut regions = self.regions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        regions.remove(&id).ok_or(Errno::EPROTO)
    }

    /// The next entry of the peer's, with its payload. `Err`: it is none that an honest peer sends.
    pub(crate) fn receive(&mut self) -> Option<Result<Received, Errno>> {
        let entry = self.incoming.peek(0)?;
        self.empty_bell();
        let length = entry.payload_bytes();
        let payload = if length > 0 { self.memory.take_payload(self.read, length) } else { Some(Vec::new()) };
        self.incoming.advance(1);
        self.read = self.read.wrapping_add(1);
        let (Some(kind), Some(payload)) = (Kind::from_word(entry.fabric[0]), payload) else {
            return Some(Err(Errno::EPROTO));
        };
        Some(Ok((kind, entry, payload)))
    }

    /// Whether the peer has sent more.
    pub(crate) fn has_incoming(&mut self) -> bool {
        self.incoming.available() > 0
    }

    /// Asks the peer to ring from now on. [`settle`] has to follow, then a look at [`Link::has_incoming`].
    pub(crate) fn announce_sleep(&mut self) {
        self.rings_at_most = Some(BELL_RINGS);
        self.asks_for_bell = true;
        handshake::announce(&*self.memory, RingWord::ClientFlags, RingFlags::NONE);
    }

    /// Asks it no more.
    pub(crate) fn awake(&mut self) {
        self.asks_for_bell = false;
        // One that nothing came over since is still to be emptied.
        self.rings_at_most = self.rings_at_most.filter(|&rings| rings >= BELL_RINGS);
        handshake::lower(&*self.memory, RingWord::ClientFlags);
    }

    /// Sees to it that there is always room to ring, before a byte for each entry that came could have filled the bell.
    /// The first entry after an announcement empties it: one that has brought none needs no look, however often others
    /// wake us. A byte that comes after this, for an entry that we have seen already, stays until the next time. It
    /// wakes nobody twice, since the bell is waited for by its edges, and costs no wake-up, since each further byte is
    /// an edge of its own as long as there is room for it.
    fn empty_bell(&mut self) {
        let Some(rings) = self.rings_at_most else { return };
        if rings + 1 < BELL_RINGS {
            self.rings_at_most = Some(rings + 1);
            return;
        }
        // While the flag is up, further entries are rung for.
        self.rings_at_most = self.asks_for_bell.then_some(0);
        let mut bytes = [0u8; 256];
        while rustix::net::recv(&self.bell, &mut bytes, RecvFlags::DONTWAIT).is_ok_and(|(read, _)| read == bytes.len())
        {
        }
    }
}

/// After [`Link::announce_sleep`] of all links and before a look at any: each flag stands before each later look.
pub(crate) fn settle() {
    handshake::settle::<LinkMemory>();
}

/// Rings a bell: never blocks, whatever its other holder has made of it. One that is full has been rung.
pub(crate) fn ring(bell: &OwnedFd) {
    let _ = rustix::net::send(bell, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

const _: () = assert!(ENTRIES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::super::memory::{AREA_BYTES, new_area};
    use super::*;
    use dmaplane_engine::AllocRequest;

    /// Two links that talk to each other.
    fn pair() -> [Link; 2] {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let areas = [new_area().unwrap(), new_area().unwrap()];
        let seen = [&areas[1], &areas[0]].map(|area| {
            PeerRegion::check(area.descriptor().unwrap().try_clone_to_owned().unwrap(), AREA_BYTES).unwrap()
        });
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut sockets = [one, other].into_iter();
        let mut areas = areas.into_iter().zip(seen);
        let [(one, rings_one), (other, rings_other)] =
            std::array::from_fn(|_| super::super::handshake::new_bell().unwrap());
        let mut bells = [(one, rings_other), (other, rings_one)].into_iter();
        std::array::from_fn(|_| {
            let ((ours, theirs), socket) = (areas.next().unwrap(), sockets.next().unwrap());
            let (bell, peer_bell) = bells.next().unwrap();
            Link::new(LinkMemory::new(ours, theirs).unwrap(), socket, bell, peer_bell)
        })
    }

    fn region() -> Arc<Region> {
        let request = AllocRequest::plain(4096);
        Arc::new(Region::allocate(&request).unwrap())
    }

    /// SHM-7: numbers are never used twice.
    #[test]
    fn shm_7_numbers_begin_again_after_the_last() {
        let [mut link, _other] = pair();
        link.next_region = u32::MAX - 1;
        assert_eq!(link.share(&region()).unwrap(), u32::MAX - 1);
        assert_eq!(link.share(&region()).unwrap_err(), NUMBERS_USED_UP);
    }

    /// SEC-5: no more of a peer's regions are taken in than those before the one that is wanted.
    #[test]
    fn sec_5_a_look_for_one_region_takes_in_all_that_the_peer_sends() {
        let [mut ours, mut theirs] = pair();
        let kept: Vec<_> = (0..10).map(|_| region()).collect();
        for region in &kept {
            theirs.share(region).unwrap();
        }
        theirs.flush().unwrap();
        ours.peer_region(3).unwrap();
        assert_eq!(ours.regions.lock().unwrap().len(), 3);
        drop(ours.forget(3).unwrap());
        assert_eq!(ours.forget(1 << 32 | 2).unwrap_err(), Errno::EPROTO);
        ours.peer_region(10).unwrap();
        assert_eq!(ours.regions.lock().unwrap().len(), 9);
    }

    /// SHM-7: a number names one region for good, also when that region has died without a word.
    #[test]
    fn shm_7_a_dead_regions_number_names_another_region() {
        let [mut link, _other] = pair();
        let mut numbers = Vec::new();
        for _ in 0..32 {
            let number = link.share(&region()).unwrap();
            link.flush().unwrap();
            assert!(!numbers.contains(&number), "number {number} a second time");
            numbers.push(number);
        }
    }

    fn bytes_in_the_bell(link: &Link) -> u64 {
        rustix::io::ioctl_fionread(&link.bell).unwrap()
    }

    /// Says, when called, whether a thread that sleeps until the bell's next edge would be awake.
    fn edges_of(link: &Link) -> impl Fn() -> bool + use<> {
        use rustix::event::epoll;
        let bells = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&bells, link.bell(), epoll::EventData::new_u64(1), edges).unwrap();
        move || {
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 1];
            !epoll::wait(&bells, &mut events[..], Some(&now)).unwrap().0.is_empty()
        }
    }

    fn an_entry() -> Entry {
        Entry::of_fabric(Kind::RegionDrop, [1, 0, 0, 0])
    }

    /// SHM-3: a wake-up cost a system call for every link, also for those whose peers had sent nothing.
    #[test]
    fn shm_3_a_bell_is_emptied_for_a_link_that_received_nothing() {
        let [mut ours, mut theirs] = pair();
        ours.announce_sleep();
        settle();
        ring(&theirs.peer_bell);
        ours.awake();
        assert!(ours.receive().is_none());
        assert_eq!(bytes_in_the_bell(&ours), 1, "nobody has looked");
        theirs.send(an_entry(), Vec::new());
        theirs.flush().unwrap();
        ours.receive().unwrap().unwrap();
        assert_eq!(bytes_in_the_bell(&ours), 0);
    }

    /// SHM-3, WAKE-1: a byte that comes too late for its entry, once for every sleep, fills no bell: after far more
    /// sleeps than a bell has room for there is room to ring, and the ring is an edge.
    #[test]
    fn shm_3_late_rings_fill_the_bell_until_a_wake_up_is_lost() {
        let [mut ours, mut theirs] = pair();
        let wakes = edges_of(&ours);
        for _ in 0..5000 {
            // The entry is published and found before the bell is rung for it.
            theirs.send(an_entry(), Vec::new());
            theirs.flush().unwrap();
            ours.announce_sleep();
            settle();
            ours.receive().unwrap().unwrap();
            ring(&theirs.peer_bell);
            ours.awake();
            assert!(wakes(), "the ring was lost");
            assert!(bytes_in_the_bell(&ours) <= 2);
        }
    }

    /// SHM-3, WAKE-1: while the service thread has been woken and waits for a core, another thread runs the engine, and
    /// the peer goes on ringing for each entry, since the flag is still up. The bell filled up, and the ring for the
    /// first entry after the next sleep was no edge any more: a WRITE_IMM that never completed.
    #[test]
    fn shm_3_many_rings_in_one_sleep_fill_the_bell_until_a_wake_up_is_lost() {
        let [mut ours, mut theirs] = pair();
        let wakes = edges_of(&ours);
        let mut ring_for_one = || {
            theirs.send(an_entry(), Vec::new());
            theirs.flush().unwrap();
        };
        ours.announce_sleep();
        settle();
        for _ in 0..5000 {
            ring_for_one();
            ours.receive().unwrap().unwrap();
            assert!(bytes_in_the_bell(&ours) <= 65);
        }
        ours.awake();
        while wakes() {}
        ours.announce_sleep();
        settle();
        ring_for_one();
        assert!(wakes(), "the ring was lost");
    }
}
