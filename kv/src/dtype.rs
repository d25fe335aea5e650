//! The element types that a KV cache is stored in.
//!
//! Only the size in bytes matters to a transfer; the rest matters to
//! [`TensorView`](crate::TensorView), which refuses to read one type as another. Scales of
//! quantised caches (`F8E4M3`, `I8`) are not part of the cache: send them as the manifest's [user
//! bytes](crate::manifest::TransferManifest::user).

use core::fmt;
use core::str::FromStr;

/// What is wrong with the name or the code of an element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DTypeError {
    /// A code that no version of this crate has given out.
    #[error("element type code {code} is unknown; this crate knows 1 to {}", DType::ALL.len())]
    UnknownCode {
        /// The code as found.
        code: u8,
    },
    /// A name that [`DType::name`] never returns.
    #[error("element type {name:?} is unknown; use one of f32, f16, bf16, f8e4m3, f8e5m2, i8")]
    UnknownName {
        /// The name as found.
        name: String,
    },
}

/// The type of one element of a key, value or latent vector. Bytes are little endian.
///
/// ```
/// use dmaplane_kv::DType;
///
/// assert_eq!(DType::BF16.size_bytes(), 2);
/// assert_eq!("bf16".parse(), Ok(DType::BF16));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper 16 bits of a binary32: 8 exponent bits, 7 fraction bits.
    BF16,
    /// 8 bits, 4 of exponent and 3 of fraction, as in the Open Compute Project's 8-bit floating
    /// point specification.
    F8E4M3,
    /// 8 bits, 5 of exponent and 2 of fraction, from the same specification.
    F8E5M2,
    /// Two's complement, 8 bits.
    I8,
}

impl DType {
    /// Every element type, in the order of [`DType::code`].
    pub const ALL: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::I8];

    /// Bytes of one element.
    pub const fn size_bytes(self) -> u32 {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::F8E4M3 | DType::F8E5M2 | DType::I8 => 1,
        }
    }

    /// The code in manifests and fingerprints. Zero is never a code, so that zeroed memory is not a
    /// valid type.
    pub const fn code(self) -> u8 {
        match self {
            DType::F32 => 1,
            DType::F16 => 2,
            DType::BF16 => 3,
            DType::F8E4M3 => 4,
            DType::F8E5M2 => 5,
            DType::I8 => 6,
        }
    }

    /// The type with this [`DType::code`].
    pub fn from_code(code: u8) -> Result<DType, DTypeError> {
        DType::ALL.into_iter().find(|dtype| dtype.code() == code).ok_or(DTypeError::UnknownCode { code })
    }

    /// The lower-case name, as parsed by [`FromStr`].
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F8E4M3 => "f8e4m3",
            DType::F8E5M2 => "f8e5m2",
            DType::I8 => "i8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = DTypeError;

    fn from_str(name: &str) -> Result<DType, DTypeError> {
        DType::ALL
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| DTypeError::UnknownName { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_come_back() {
        for (index, dtype) in DType::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(dtype.code()), index + 1);
            assert_eq!(DType::from_code(dtype.code()), Ok(dtype));
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
    }

    #[test]
    fn unknown_codes_and_names_are_named_in_the_error() {
        assert_eq!(DType::from_code(0), Err(DTypeError::UnknownCode { code: 0 }));
        assert_eq!(DType::from_code(7), Err(DTypeError::UnknownCode { code: 7 }));
        let error = "int4".parse::<DType>().unwrap_err();
        assert!(error.to_string().contains("\"int4\""), "{error}");
    }
}
