//! How two contexts come to share a connection: two sockets, each shaken, tied together by a nonce (clause TCP-2).
//!
//! The connector opens the control socket and hears a nonce; it opens the data socket and says it. All of this blocks,
//! for [`PATIENCE`] at most a socket, so each shake has a thread of its own.

use super::connection::{Shaken, Sockets};
use super::hello::{
    HELLO_BYTES, Hello, Nonce, PREAMBLE_BYTES, Purpose, Security, preamble, read_preamble, speaks_dmaplane,
};
use super::noise::{Cipher, LENGTH_BYTES, SHAKE_BYTES, Shaking};
use crate::fabric::shakes::Shakes;
use crate::fabric::{Connection, Pending};
use dmaplane_engine::PeerInfo;
use dmaplane_ring::abi::Errno;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How long a peer may take over its part.
const PATIENCE: Duration = Duration::from_secs(2);
/// Socket buffers toward a peer on this host: what is under way then stays in the cache, which the system's own choice,
/// made for long distances, does not (it costs a fifth more CPU a byte). Toward other hosts the system chooses.
const LOCAL_BUFFER_BYTES: usize = 512 << 10;
/// Congestion control toward a peer on this host, where nothing is congested: the one that every kernel has and lets
/// everybody choose. The system's own choice may pace what it sends by a timer (bbr), which costs half the bandwidth.
const LOCAL_CONGESTION: &str = "reno";

/// What a side says of itself, and the key that it holds.
#[derive(Clone)]
pub(crate) struct Own {
    pub info: PeerInfo,
    pub key: Option<[u8; 32]>,
}

impl Own {
    fn security(&self) -> Security {
        if self.key.is_some() { Security::Sealed } else { Security::Plain }
    }

    /// Without a key nothing leaves this host (clause TCP-1).
    pub(crate) fn may_reach(&self, address: &SocketAddr) -> bool {
        self.key.is_some() || address.ip().to_canonical().is_loopback()
    }
}

/// An error of the system's, as a CQE carries it.
pub(crate) fn io_errno(error: &std::io::Error) -> Errno {
    match (error.kind(), error.raw_os_error()) {
        (std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut, _) => Errno::ETIMEDOUT,
        (std::io::ErrorKind::UnexpectedEof, _) => Errno::ECONNRESET,
        (std::io::ErrorKind::NotFound, None) => Errno::ENOENT,
        (_, Some(raw)) => Errno::from_raw(raw),
        _ => Errno::EIO,
    }
}

/// A socket during its handshake.
struct Shake {
    stream: TcpStream,
    deadline: Instant,
    cipher: Option<Box<Cipher>>,
}

impl Shake {
    fn new(stream: TcpStream) -> Result<Shake, Errno> {
        stream.set_nodelay(true).map_err(|error| io_errno(&error))?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(|error| io_errno(&error))?;
        Ok(Shake { stream, deadline: Instant::now() + PATIENCE, cipher: None })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.stream.write_all(bytes).map_err(|error| io_errno(&error))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut filled = 0;
        while filled < bytes.len() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::ETIMEDOUT);
            }
            self.stream.set_read_timeout(Some(left)).map_err(|error| io_errno(&error))?;
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(Errno::ECONNRESET),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_errno(&error)),
            }
        }
        Ok(())
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The connector's part up to the hellos.
    fn begin(&mut self, own: &Own) -> Result<(), Errno> {
        let ours = preamble(own.security());
        self.write(&ours)?;
        let theirs = self.read_array()?;
        read_preamble(&theirs, own.security())?;
        let Some(key) = &own.key else { return Ok(()) };
        let mut shaking = Shaking::new(key, &said(&ours, &theirs), true)?;
        self.write_framed(&shaking.say()?)?;
        shaking.hear(&self.read_framed()?)?;
        self.cipher = Some(Box::new(shaking.finish()?));
        Ok(())
    }

    /// The listener's.
    fn answer(&mut self, own: &Own) -> Result<(), Errno> {
        let theirs = self.read_array()?;
        if !speaks_dmaplane(&theirs) {
            return Err(Errno::EPROTO);
        }
        let ours = preamble(own.security());
        self.write(&ours)?;
        read_preamble(&theirs, own.security())?;
        let Some(key) = &own.key else { return Ok(()) };
        let mut shaking = Shaking::new(key, &said(&theirs, &ours), false)?;
        let message = self.read_framed()?;
        if let Err(errno) = shaking.hear(&message) {
            // No record is empty: this one says that the key is another.
            let _ = self.write(&[0; LENGTH_BYTES]);
            return Err(errno);
        }
        self.write_framed(&shaking.say()?)?;
        self.cipher = Some(Box::new(shaking.finish()?));
        Ok(())
    }

    fn write_framed(&mut self, message: &[u8; SHAKE_BYTES]) -> Result<(), Errno> {
        let mut bytes = (SHAKE_BYTES as u16).to_le_bytes().to_vec();
        bytes.extend_from_slice(message);
        self.write(&bytes)
    }

    fn read_framed(&mut self) -> Result<[u8; SHAKE_BYTES], Errno> {
        match usize::from(u16::from_le_bytes(self.read_array()?)) {
            SHAKE_BYTES => self.read_array(),
            0 => Err(Errno::EKEYREJECTED),
            _ => Err(Errno::EPROTO),
        }
    }

    fn say(&mut self, hello: &Hello) -> Result<(), Errno> {
        let bytes = hello.encode();
        let mut sealed = Vec::new();
        match &mut self.cipher {
            None => sealed.extend_from_slice(&bytes),
            Some(cipher) => cipher.seal(&bytes, &mut sealed)?,
        }
        self.write(&sealed)
    }

    fn hear(&mut self) -> Result<Hello, Errno> {
        if self.cipher.is_none() {
            return Hello::decode(&self.read_array()?);
        }
        let mut record = self.read_array::<LENGTH_BYTES>()?.to_vec();
        let length = usize::from(u16::from_le_bytes([record[0], record[1]]));
        record.resize(LENGTH_BYTES + length, 0);
        self.read(&mut record[LENGTH_BYTES..])?;
        let mut opened = vec![0; length];
        let cipher = self.cipher.as_mut().ok_or(Errno::EPROTO)?;
        let opened_bytes = cipher.open(&record, &mut opened)?;
        let bytes: [u8; HELLO_BYTES] = opened[..opened_bytes].try_into().map_err(|_| Errno::EPROTO)?;
        Hello::decode(&bytes)
    }

    fn finish(self) -> Result<Shaken, Errno> {
        use rustix::net::sockopt;
        self.stream.set_nonblocking(true).map_err(|error| io_errno(&error))?;
        let (here, there) = (self.stream.local_addr(), self.stream.peer_addr());
        let same_host = here.is_ok_and(|here| there.is_ok_and(|there| here.ip() == there.ip()));
        let fd = OwnedFd::from(self.stream);
        // A peer whose host vanishes says nothing: ask now and then.
        let error = crate::memory::errno;
        sockopt::set_socket_keepalive(&fd, true).map_err(error)?;
        sockopt::set_tcp_keepidle(&fd, Duration::from_secs(5)).map_err(error)?;
        sockopt::set_tcp_keepintvl(&fd, Duration::from_secs(2)).map_err(error)?;
        sockopt::set_tcp_keepcnt(&fd, 3).map_err(error)?;
        if same_host {
            sockopt::set_socket_send_buffer_size(&fd, LOCAL_BUFFER_BYTES).map_err(error)?;
            sockopt::set_socket_recv_buffer_size(&fd, LOCAL_BUFFER_BYTES).map_err(error)?;
            // A system that has taken it off its list keeps its own choice: slower, not wrong.
            if let Err(error) = sockopt::set_tcp_congestion(&fd, LOCAL_CONGESTION) {
                tracing::debug!(%error, "tcp: the system's congestion control stays");
            }
        }
        Ok(Shaken { fd, cipher: self.cipher })
    }
}

fn said(connector: &[u8; PREAMBLE_BYTES], listener: &[u8; PREAMBLE_BYTES]) -> Vec<u8> {
    [&connector[..], &listener[..]].concat()
}

fn pending(info: PeerInfo, control: Shaken, data: Shaken) -> Pending {
    Pending { info, connection: Connection::Tcp(Box::new(Sockets { control, data })) }
}

/// Connects to the first of the addresses that answers. Blocks.
pub(crate) fn connect(host_port: &str, own: &Own) -> Result<Pending, Errno> {
    let addresses = crate::fabric::address::resolve(host_port).map_err(|error| {
        tracing::warn!(host_port, %error, "tcp: no such address");
        Errno::ENOENT
    })?;
    let mut last = Errno::ENOENT;
    for address in addresses {
        if !own.may_reach(&address) {
            tracing::warn!(%address, "tcp: refusing to leave loopback without a key");
            last = Errno::EACCES;
            continue;
        }
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return connect_both(stream, &address, own),
            Err(error) => last = io_errno(&error),
        }
    }
    Err(last)
}

fn connect_both(stream: TcpStream, address: &SocketAddr, own: &Own) -> Result<Pending, Errno> {
    let mut control = Shake::new(stream)?;
    control.begin(own)?;
    control.say(&Hello { info: own.info, purpose: Purpose::Control, nonce: Nonce::default() })?;
    let heard = control.hear()?;
    if heard.purpose != Purpose::Control {
        return Err(Errno::EPROTO);
    }
    let stream = TcpStream::connect_timeout(address, PATIENCE).map_err(|error| io_errno(&error))?;
    let mut data = Shake::new(stream)?;
    data.begin(own)?;
    data.say(&Hello { info: own.info, purpose: Purpose::Data, nonce: heard.nonce })?;
    let confirmed = data.hear()?;
    if confirmed != (Hello { purpose: Purpose::Data, ..heard }) {
        return Err(Errno::EPROTO);
    }
    Ok(pending(heard.info, control.finish()?, data.finish()?))
}

/// Binds to the first of the addresses that can be bound: the socket, and the address with the port that was picked.
pub(crate) fn listen(host_port: &str, own: &Own) -> Result<(OwnedFd, SocketAddr), ListenError> {
    let mut last = ListenError::Errno(Errno::ENOENT);
    for address in crate::fabric::address::resolve(host_port).map_err(|_| ListenError::Errno(Errno::ENOENT))? {
        if !own.may_reach(&address) {
            last = ListenError::NeedsKey;
            continue;
        }
        let bound = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => return Ok((listener.into(), address)),
            Err(error) => last = ListenError::Errno(io_errno(&error)),
        }
    }
    Err(last)
}

/// Why nothing listens.
pub(crate) enum ListenError {
    NeedsKey,
    Errno(Errno),
}

/// A listener's side of handshakes under way.
pub(crate) struct Acceptor {
    own: Own,
    /// Control sockets that await their data socket.
    awaiting: Mutex<HashMap<Nonce, (PeerInfo, SyncSender<Shaken>)>>,
    shakes: Shakes,
}

impl Acceptor {
    pub(crate) fn new(own: Own) -> Acceptor {
        Acceptor { own, awaiting: Mutex::new(HashMap::new()), shakes: Shakes::default() }
    }

    /// A place for one more shake, or `false`; [`Acceptor::end`] gives it back.
    pub(crate) fn begin(&self) -> bool {
        self.shakes.begin()
    }

    pub(crate) fn end(&self) {
        self.shakes.end();
    }

    /// Does a listener's part with one that has connected. A data socket goes to who awaits it: `None`. Blocks.
    pub(crate) fn shake(&self, socket: OwnedFd) -> Result<Option<Pending>, Errno> {
        let mut shake = Shake::new(TcpStream::from(socket))?;
        shake.answer(&self.own)?;
        let heard = shake.hear()?;
        match heard.purpose {
            Purpose::Control => self.shake_control(shake, heard.info).map(Some),
            Purpose::Data => self.shake_data(shake, &heard).map(|()| None),
        }
    }

    fn shake_control(&self, mut control: Shake, info: PeerInfo) -> Result<Pending, Errno> {
        let nonce = random_nonce().map_err(|error| io_errno(&error))?;
        let (sender, receiver) = sync_channel(1);
        self.lock().insert(nonce, (info, sender));
        let said = control.say(&Hello { info: self.own.info, purpose: Purpose::Control, nonce });
        let data = said.and_then(|()| receiver.recv_timeout(PATIENCE).map_err(|_| Errno::ETIMEDOUT));
        self.lock().remove(&nonce);
        Ok(pending(info, control.finish()?, data?))
    }

    fn shake_data(&self, mut data: Shake, heard: &Hello) -> Result<(), Errno> {
        let Some((info, sender)) = self.lock().remove(&heard.nonce) else { return Err(Errno::EPROTO) };
        if info != heard.info {
            return Err(Errno::EPROTO);
        }
        data.say(&Hello { info: self.own.info, ..*heard })?;
        sender.send(data.finish()?).map_err(|_| Errno::ETIMEDOUT)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Nonce, (PeerInfo, SyncSender<Shaken>)>> {
        self.awaiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn random_nonce() -> std::io::Result<Nonce> {
    let mut nonce = Nonce::default();
    std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What paces by a timer halves the bandwidth between two processes of one host.
    #[test]
    fn sockets_on_one_host_are_left_to_a_pacing_congestion_control() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for stream in [connected, accepted] {
            let shaken = Shake::new(stream).unwrap().finish().unwrap();
            assert_eq!(rustix::net::sockopt::tcp_congestion(&shaken.fd).unwrap(), LOCAL_CONGESTION);
        }
    }
}
