//! Many transfers at once over one shard's blocks, driven by one thread that never waits for a peer.
//!
//! A worker has an [`Exchange`] for each of its tensor-parallel shards. It owns that shard's plane, pool and peers, and
//! every transfer that is under way; [`Exchange::poll`] moves all of them on and says what has happened.
//!
//! | | who owns the blocks that the other touches | the other |
//! |---|---|---|
//! | push | the receiver: [`Exchange::land`] | [`Exchange::push`], [`Exchange::send_layers`] |
//! | pull | the sender: [`Exchange::offer`], [`Exchange::ready_layers`] | [`Exchange::pull`] |
//!
//! The owner's manifests, one for each shard of the other side that it concerns, go to the other side as bytes, through
//! whatever router. Layers move as soon as they are computed, each group of layers as a part of its own; a transfer is
//! whole by count, in any order, and every part is checked.
//!
//! Each [`Ticket`] ends with exactly one of the events [`Event::Landed`], [`Event::Pushed`], [`Event::Pulled`],
//! [`Event::Served`], [`Event::Failed`] and [`Event::Aborted`]; whatever was taken for it is free again then, but for
//! the blocks that the event hands out.
//!
//! ```
//! use dmaplane::{Config, Plane};
//! use dmaplane_kv::exchange::{Event, Exchange, FarSide};
//! use dmaplane_kv::transfer::PagedPool;
//! use dmaplane_kv::{Attention, CacheLayout, DType, Shard, TransferManifest};
//!
//! let attention = Attention::GroupedQuery { kv_heads: 4, head_size: 16 };
//! let model = CacheLayout::new(3, attention, DType::BF16, 16)?;
//! let open = |name: &str, model, shard| {
//!     let mut plane = Plane::open(Config::default())?;
//!     let pool = PagedPool::of_shard(&mut plane, model, shard, 32, 7)?;
//!     Exchange::new(plane, pool, name)
//! };
//! // Prefill is one shard of blocks of 16 tokens; decode is two, of blocks of 32. This is the second one.
//! let mut prefill = open("P.0", model, Shard::WHOLE)?;
//! let mut decode = open("D.1", model.with_block_tokens(32)?, Shard::new(1, 2)?)?;
//! let directory = tempfile::tempdir()?;
//! let address = decode.listen(&format!("shm:{}", directory.path().join("d1").display()))?;
//! prefill.dial("D.1", &address);
//! while decode.peer("P.0").is_none() || prefill.peer("D.1").is_none() {
//!     (prefill.poll(), decode.poll());
//! }
//!
//! // Decode makes room for 40 tokens, and the router carries a manifest to prefill.
//! let from = FarSide { shards: 1, block_tokens: 16, part_layers: 1 };
//! let (landing, manifests) = decode.land(40, &from, &[decode.peer("P.0")], None)?;
//! let bytes = manifests[0].1.encode()?;
//!
//! // Prefill computes a layer and sends it, and computes the next one.
//! let table = prefill.pool_mut().allocate(40)?;
//! let peer = prefill.peer("D.1").ok_or("gone")?;
//! let push = prefill.push(peer, &table, &TransferManifest::decode(&bytes)?)?;
//! for layer in 0..3 {
//!     let keys = prefill.pool().geometry().block_range(layer, 0, table.blocks()[0])?;
//!     prefill.pool_mut().slice_mut(keys)?.fill(layer as u8 + 1);
//!     prefill.send_layers(push, layer..layer + 1, if layer == 2 { b"first token" } else { b"" })?;
//!     prefill.poll();
//! }
//! let landed = loop {
//!     prefill.poll();
//!     if let Some(event) = decode.poll().pop() {
//!         break event;
//!     }
//! };
//! let Event::Landed { ticket, table, user, .. } = landed else { panic!("{landed:?}") };
//! assert_eq!((ticket, user.as_slice()), (landing, &b"first token"[..]));
//! let values = decode.pool().geometry().block_range(2, 0, table.blocks()[0])?;
//! assert_eq!(decode.pool().slice(values)?[0], 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod event;
mod landing;
mod links;
mod offer;
mod pulling;
mod pushing;
mod signal;
mod turn;

pub use crate::transfer::Moved;
pub use event::{Event, PeerId, Ticket};

use crate::transfer::{PagedPool, Terms, TransferError};
use crate::{BlockTable, LayoutError, Shard, TransferManifest, TransferSlots, legs};
use core::ops::Range;
use dmaplane::Plane;
use landing::Landing;
use links::{Link, Links};
use offer::Offer;
use pulling::Pull;
use pushing::Push;
use signal::MESSAGE_BYTES_MAX;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Landings that one exchange has at a time at most, counted by source shard.
const SLOTS: u32 = 4096;

/// What has to be known of the other side's workers before there is a manifest: the router knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarSide {
    /// Its shards.
    pub shards: u32,
    /// Tokens of its blocks.
    pub block_tokens: u32,
    /// How many layers a part of the transfer has at most; 0: all of them.
    pub part_layers: u32,
}

/// A peer, and the way to it.
type Side<'a> = (PeerId, &'a Link);

/// How something ends.
#[derive(Debug)]
enum End<T> {
    Done(T),
    Failed(TransferError),
    Aborted,
}

fn deadline(ttl: Option<Duration>) -> Option<Instant> {
    ttl.and_then(|ttl| Instant::now().checked_add(ttl))
}

impl FarSide {
    /// The legs from this far side into a pool, by shard of the far side.
    fn legs_into(&self, pool: &PagedPool) -> Result<Vec<(u32, Terms)>, TransferError> {
        let (model, index) = (self.model(pool)?, pool.shard().index);
        let legs = legs(&model, self.shards, pool.shard().count)?;
        self.terms(pool, legs.iter().filter(|leg| leg.destination == index).map(|leg| leg.source))
    }

    /// The legs from a pool to this far side, by shard of the far side.
    fn legs_from(&self, pool: &PagedPool) -> Result<Vec<(u32, Terms)>, TransferError> {
        let (model, index) = (self.model(pool)?, pool.shard().index);
        let legs = legs(&model, pool.shard().count, self.shards)?;
        self.terms(pool, legs.iter().filter(|leg| leg.source == index).map(|leg| leg.destination))
    }

    fn model(&self, pool: &PagedPool) -> Result<crate::CacheLayout, LayoutError> {
        pool.geometry().layout().unsharded(pool.shard().count)
    }

    fn terms(&self, pool: &PagedPool, shards: impl Iterator<Item = u32>) -> Result<Vec<(u32, Terms)>, TransferError> {
        let mut all = Vec::new();
        for index in shards {
            let shard = Shard { index, count: self.shards };
            if let Some(mut terms) = Terms::between(pool, shard, self.block_tokens)? {
                if self.part_layers > 0 {
                    terms.part_layers = self.part_layers.min(terms.part_layers);
                }
                all.push((index, terms));
            }
        }
        Ok(all)
    }
}

/// One shard's end of all its transfers.
#[derive(Debug)]
pub struct Exchange {
    plane: Plane,
    pool: PagedPool,
    slots: TransferSlots,
    links: Links,
    landings: BTreeMap<Ticket, Landing>,
    pushes: BTreeMap<Ticket, Push>,
    offers: BTreeMap<Ticket, Offer>,
    pulls: BTreeMap<Ticket, Pull>,
    next_ticket: u64,
    next_offer: u32,
    events: VecDeque<Event>,
}

impl Exchange {
    /// Of a pool on a plane. Peers are told `name`.
    pub fn new(plane: Plane, pool: PagedPool, name: &str) -> Result<Exchange, TransferError> {
        Ok(Exchange {
            plane,
            pool,
            slots: TransferSlots::new(SLOTS)?,
            links: Links::new(name),
            landings: BTreeMap::new(),
            pushes: BTreeMap::new(),
            offers: BTreeMap::new(),
            pulls: BTreeMap::new(),
            next_ticket: 1,
            next_offer: 0,
            events: VecDeque::new(),
        })
    }

    /// The plane.
    pub fn plane(&mut self) -> &mut Plane {
        &mut self.plane
    }

    /// The pool.
    pub fn pool(&self) -> &PagedPool {
        &self.pool
    }

    /// The pool: blocks are taken and given back, and their bytes written, through it.
    pub fn pool_mut(&mut self) -> &mut PagedPool {
        &mut self.pool
    }

    /// Takes in peers that come to this address; returns it with the port that was picked where it said 0. A peer is
    /// who it says it is: whoever can connect (a process of this user, or who has the key) can take another's name,
    /// which ends that one's connection.
    pub fn listen(&mut self, address: &str) -> Result<String, TransferError> {
        self.links.listen(&mut self.plane, address)
    }

    /// Connects to somebody, again and again while it fails, and anew when the connection is lost. Under a name that is
    /// dialled already: at this address from now on. Two may dial each other: one of their connections stays.
    pub fn dial(&mut self, name: &str, address: &str) {
        self.links.dial(name, address);
    }

    /// Dials a name no more, and ends its connection and what was under way with it.
    pub fn hang_up(&mut self, name: &str) {
        self.links.hang_up(name);
        if let Some(peer) = self.links.named(name) {
            self.lose(peer, TransferError::PeerGone { name: name.to_owned() });
        }
    }

    /// Who is connected under that name.
    pub fn peer(&self, name: &str) -> Option<PeerId> {
        self.links.named(name)
    }

    /// Sends a message of at most 4,000 bytes; messages to one peer arrive in order. The peer's next
    /// [`poll`](Exchange::poll) says [`Event::Message`]. [`TransferError::Overrun`] while the peer lets 2,048 signals
    /// or 512 KiB wait; at twice of that it is taken for gone.
    pub fn send(&mut self, peer: PeerId, bytes: &[u8]) -> Result<(), TransferError> {
        let (found, most) = (bytes.len(), MESSAGE_BYTES_MAX);
        if found > most {
            return Err(TransferError::UserBytes { found, most });
        }
        self.links.live(peer)?;
        self.links.get_mut(peer).map_or(Ok(()), |link| link.send(bytes))
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Takes blocks for `tokens` tokens and leases them to the shards of `from` that have heads of this one:
    /// `peers[i]` is its shard i, `None` where that is whoever first shows the token. The manifests are for those
    /// shards, by index. Without `ttl` the leases last until the landing ends.
    pub fn land(
        &mut self,
        tokens: u32,
        from: &FarSide,
        peers: &[Option<PeerId>],
        ttl: Option<Duration>,
    ) -> Result<(Ticket, Vec<(u32, TransferManifest)>), TransferError> {
        let sides = sides(&self.links, peers)?;
        let Exchange { plane, pool, slots, .. } = self;
        let (landing, manifests) = Landing::open(plane, pool, slots, tokens, from, &sides, ttl)?;
        let ticket = self.ticket();
        self.landings.insert(ticket, landing);
        Ok((ticket, manifests))
    }

    /// Starts to push a sequence to where a manifest says. Nothing leaves before [`Exchange::send_layers`]. The blocks
    /// may be [released](PagedPool::release) at any time: they are free when this has ended.
    pub fn push(
        &mut self,
        peer: PeerId,
        table: &BlockTable,
        theirs: &TransferManifest,
    ) -> Result<Ticket, TransferError> {
        let link = self.links.live(peer)?;
        let push = Push::start(&mut self.plane, &mut self.pool, (peer, link), table, theirs)?;
        let ticket = self.ticket();
        self.pushes.insert(ticket, push);
        Ok(ticket)
    }

    /// These layers are computed: they leave, and are not to be changed until the push has ended. `user` (at most 232
    /// bytes) arrives with the part that is sent last; only the call that makes the layers complete needs it.
    pub fn send_layers(&mut self, push: Ticket, layers: Range<u32>, user: &[u8]) -> Result<(), TransferError> {
        let push = self.pushes.get_mut(&push).ok_or_else(|| no_transfer(push))?;
        push.send_layers(&mut self.pool, layers, user)
    }

    /// Leases a sequence for reading to the shards of `to` that want heads of this one: `peers[j]` is its shard j,
    /// `None` where that is whoever first shows the token. Nothing is announced before [`Exchange::ready_layers`].
    pub fn offer(
        &mut self,
        table: &BlockTable,
        to: &FarSide,
        peers: &[Option<PeerId>],
        ttl: Option<Duration>,
    ) -> Result<(Ticket, Vec<(u32, TransferManifest)>), TransferError> {
        let sides = sides(&self.links, peers)?;
        let Exchange { plane, pool, next_offer, .. } = self;
        let (offer, manifests) = Offer::open(plane, pool, next_offer, table, to, &sides, ttl)?;
        let ticket = self.ticket();
        self.offers.insert(ticket, offer);
        Ok((ticket, manifests))
    }

    /// These layers are computed: they may be read, and are not to be changed until the offer has ended. `user` (at
    /// most 232 bytes) goes with the last of them.
    pub fn ready_layers(&mut self, ticket: Ticket, layers: Range<u32>, user: &[u8]) -> Result<(), TransferError> {
        let offer = self.offers.get_mut(&ticket).ok_or_else(|| no_transfer(ticket))?;
        offer.ready_layers(&mut self.pool, layers, user)?;
        offer.announce(&mut self.links);
        if offer.is_served() {
            self.end_offer(ticket, End::Done(()));
        }
        Ok(())
    }

    /// Takes blocks and reads a sequence into them as its owners announce it; `from` are the shards that have heads of
    /// this one, each with its manifest.
    pub fn pull(&mut self, from: &[(PeerId, &TransferManifest)]) -> Result<Ticket, TransferError> {
        let mut legs = Vec::new();
        for &(peer, theirs) in from {
            legs.push(((peer, self.links.live(peer)?), theirs));
        }
        let pull = Pull::start(&mut self.plane, &mut self.pool, &legs)?;
        let ticket = self.ticket();
        self.pulls.insert(ticket, pull);
        Ok(ticket)
    }

    /// Gives the leases of a landing or an offer a new end: so long from now.
    pub fn renew(&mut self, ticket: Ticket, ttl: Duration) -> Result<(), TransferError> {
        let Exchange { plane, landings, offers, .. } = self;
        match (landings.get_mut(&ticket), offers.get_mut(&ticket)) {
            (Some(landing), _) => landing.renew(plane, ttl),
            (_, Some(offer)) => offer.renew(plane, ttl),
            _ if self.pushes.contains_key(&ticket) || self.pulls.contains_key(&ticket) => {
                Err(TransferError::WrongKind { what: "renew", why: "the lease is the other side's, which renews it" })
            }
            _ => Err(no_transfer(ticket)),
        }
    }

    /// Ends a transfer at whatever point it is, and tells the other side.
    ///
    /// Of a landing and an offer the leases are over when this returns: nothing lands in the blocks any more, nothing
    /// is read from them, and they are free. A push and a pull keep theirs until what is with the peer has ended, and
    /// then say [`Event::Aborted`].
    pub fn abort(&mut self, ticket: Ticket) -> Result<(), TransferError> {
        let Exchange { plane, pushes, pulls, .. } = self;
        if let Some(push) = pushes.get_mut(&ticket) {
            push.give_up(plane, End::Aborted);
        } else if let Some(pull) = pulls.get_mut(&ticket) {
            pull.give_up(plane, End::Aborted);
        } else if self.landings.contains_key(&ticket) {
            self.end_landing(ticket, End::Aborted);
        } else if self.offers.contains_key(&ticket) {
            self.end_offer(ticket, End::Aborted);
        } else {
            return Err(no_transfer(ticket));
        }
        Ok(())
    }

    /// Tickets that have not ended.
    pub fn in_flight(&self) -> usize {
        self.landings.len() + self.pushes.len() + self.offers.len() + self.pulls.len()
    }
}

fn no_transfer(ticket: Ticket) -> TransferError {
    TransferError::NoTransfer { what: ticket.to_string() }
}

fn sides<'a>(links: &'a Links, peers: &[Option<PeerId>]) -> Result<Vec<Option<Side<'a>>>, TransferError> {
    let side = |peer: &Option<PeerId>| peer.map(|peer| Ok((peer, links.live(peer)?))).transpose();
    peers.iter().map(side).collect()
}
