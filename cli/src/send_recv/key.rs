//! Pre-shared keys in files.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const KEY_BYTES: usize = 32;
/// More than a key in hexadecimal and a line end; less than a wrong file may have.
const FILE_BYTES_MAX: u64 = 4 * KEY_BYTES as u64;

/// Reads a key. No error shows any of it.
pub fn load(path: &Path) -> Result<[u8; KEY_BYTES]> {
    let mut bytes = Vec::new();
    let file = File::open(path).context("opening the key")?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).context("reading the key")?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<[u8; KEY_BYTES]> {
    if let Ok(key) = bytes.try_into() {
        return Ok(key);
    }
    let digits = bytes.trim_ascii();
    if digits.len() != 2 * KEY_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        bail!("not a key: {} bytes; a key is 32 bytes, or 64 hexadecimal digits", bytes.len());
    }
    let mut key = [0; KEY_BYTES];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_or_64_digits() {
        assert_eq!(parse(&[7; 32]).unwrap(), [7; 32]);
        assert_eq!(parse("0a".repeat(32).as_bytes()).unwrap(), [10; 32]);
        assert_eq!(parse(format!("{}\n", "fF".repeat(32)).as_bytes()).unwrap(), [255; 32]);
    }

    #[test]
    fn anything_else_is_refused_without_being_shown() {
        for bad in [&b""[..], b"secret", &[b'a'; 63], &[b'g'; 64], &[b'a'; 65]] {
            let message = parse(bad).unwrap_err().to_string();
            assert_eq!(message, format!("not a key: {} bytes; a key is 32 bytes, or 64 hexadecimal digits", bad.len()));
        }
    }
}
