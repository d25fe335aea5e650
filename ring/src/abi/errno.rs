//! Errors as CQEs carry them: negative Linux errnos in `res` (clause ERR-1).

/// A positive Linux errno.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno($value);)*

            /// The constant's name, or `None` for an errno that dmaplane never makes.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

errnos! {
    /// No such operation to cancel, or no such object.
    ENOENT = 2,
    /// The host failed to do it.
    EIO = 5,
    /// The handle is of another kind, or of no object.
    EBADF = 9,
    /// No credit, and the SQE said not to wait; or nothing to report yet.
    EAGAIN = 11,
    /// The host has no memory for it.
    ENOMEM = 12,
    /// The lease does not allow it.
    EACCES = 13,
    /// The memory went away under the copy.
    EFAULT = 14,
    /// The object is leased or in use.
    EBUSY = 16,
    /// It exists already.
    EEXIST = 17,
    /// A field is wrong; the spec says which values are right.
    EINVAL = 22,
    /// A table of the context is full.
    ENFILE = 23,
    /// The host's storage is full.
    ENOSPC = 28,
    /// Outside the object.
    ERANGE = 34,
    /// The time has come.
    ETIME = 62,
    /// The peer broke the protocol.
    EPROTO = 71,
    /// Damaged: a token or a checksum does not match.
    EBADMSG = 74,
    /// More bytes or segments than allowed.
    EMSGSIZE = 90,
    /// This host cannot do it.
    EOPNOTSUPP = 95,
    /// The address is in use.
    EADDRINUSE = 98,
    /// The connection ended.
    ECONNRESET = 104,
    /// No room in the part of the CQ that such operations may hold.
    ENOBUFS = 105,
    /// The peer is not connected.
    ENOTCONN = 107,
    /// The deadline passed.
    ETIMEDOUT = 110,
    /// Nobody listens there.
    ECONNREFUSED = 111,
    /// It was already posted; with FORCE the connection is ended.
    EALREADY = 114,
    /// The handle is of an earlier generation.
    ESTALE = 116,
    /// Cancelled.
    ECANCELED = 125,
    /// The lease's time is over.
    EKEYEXPIRED = 127,
    /// The lease was revoked.
    EKEYREVOKED = 128,
    /// Wrong key or token.
    EKEYREJECTED = 129,
    /// The memory is damaged.
    EHWPOISON = 133,
}

impl Errno {
    /// From a positive errno of the host's; anything else is [`Errno::EIO`].
    pub const fn from_raw(raw: i32) -> Errno {
        if raw > 0 && raw < 4096 { Errno(raw) } else { Errno::EIO }
    }

    /// The positive number.
    #[inline]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// What a CQE's `res` holds.
    #[inline]
    pub const fn as_result(self) -> i32 {
        -self.0
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}
