//! Addresses: `shm:PATH` (a socket in the file system) and `tcp:HOST:PORT`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Shm(PathBuf),
    Tcp(String),
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is no address: write shm:PATH or tcp:HOST:PORT")]
pub(crate) struct BadAddress {
    text: String,
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress { text: text.to_owned() };
        let (fabric, rest) = text.split_once(':').ok_or_else(bad)?;
        match fabric {
            "shm" if !rest.is_empty() => Ok(Address::Shm(PathBuf::from(rest))),
            "tcp"
                if rest
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Ok(Address::Tcp(rest.to_owned()))
            }
            _ => Err(bad()),
        }
    }
}

/// The socket addresses of `HOST:PORT`. May ask a name server: not for the engine's thread.
pub(crate) fn resolve(host_port: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok(host_port.to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_by_name() {
        assert_eq!("shm:/run/x".parse(), Ok(Address::Shm(PathBuf::from("/run/x"))));
        assert_eq!("tcp:[::1]:80".parse(), Ok(Address::Tcp("[::1]:80".into())));
        for bad in ["", "shm:", "tcp:host", "tcp:host:x", "tcp:host:70000", "tcp::1", "rdma:x:1"] {
            assert_eq!(
                bad.parse::<Address>().unwrap_err().to_string(),
                format!("'{bad}' is no address: write shm:PATH or tcp:HOST:PORT")
            );
        }
    }
}
