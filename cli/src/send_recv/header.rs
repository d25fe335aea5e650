//! The header of a safetensors file, checked before anything in it is believed: 8 bytes of length, then JSON that
//! names each tensor's type, shape and place. The places must fill the rest of the file, without holes or overlaps.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Bytes of the length before the JSON.
pub const LENGTH_BYTES: u64 = 8;
/// The format's own limit.
const JSON_BYTES_MAX: u64 = 100_000_000;

/// Why something is not a safetensors file.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum FormatError {
    #[error("not a safetensors file: {0} bytes are too few for the length of a header")]
    Short(u64),
    #[error("not a safetensors file: its header would have {0} bytes, at most {JSON_BYTES_MAX} are allowed")]
    HeaderLength(u64),
    #[error("not a safetensors file: no '{{' where its header should begin")]
    NoBrace,
    #[error("not a safetensors file: its header is not the JSON that it should be: {0}")]
    Json(String),
    #[error("not a safetensors file: tensor {name:?} {what}")]
    Tensor { name: String, what: String },
    #[error("truncated: the header alone needs {needed} bytes, the file has {found}")]
    HeaderTruncated { needed: u64, found: u64 },
    #[error("truncated: the header describes a file of {needed} bytes, it has {found}")]
    Truncated { needed: u64, found: u64 },
    #[error("not a safetensors file: {0} bytes after its last tensor")]
    Trailing(u64),
}

/// A tensor's name and place in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: String,
    pub bytes: Range<u64>,
}

/// Where the tensors' data begin, from the first bytes of a file: its first 8 and, if there is one, the ninth.
pub fn data_start(first: &[u8], file_bytes: u64) -> Result<u64, FormatError> {
    let Some((length, json)) = first.split_first_chunk::<{ LENGTH_BYTES as usize }>() else {
        return Err(FormatError::Short(file_bytes));
    };
    let length = u64::from_le_bytes(*length);
    if length > JSON_BYTES_MAX {
        return Err(FormatError::HeaderLength(length));
    }
    if json.first().is_some_and(|&byte| byte != b'{') || length == 0 {
        return Err(FormatError::NoBrace);
    }
    let needed = LENGTH_BYTES + length;
    if needed > file_bytes {
        return Err(FormatError::HeaderTruncated { needed, found: file_bytes });
    }
    Ok(needed)
}

/// The tensors in the order of their data, from the file's bytes before that.
pub fn parse(head: &[u8], file_bytes: u64) -> Result<Vec<Span>, FormatError> {
    let data_start = data_start(head, file_bytes)?;
    let json = head.get(LENGTH_BYTES as usize..data_start as usize).ok_or(FormatError::Short(head.len() as u64))?;
    let json = std::str::from_utf8(json).map_err(|error| FormatError::Json(error.to_string()))?;
    let Tensors(tensors) = serde_json::from_str(json).map_err(|error| FormatError::Json(error.to_string()))?;
    let mut spans = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let place = tensor.data_offsets;
        if let Err(what) = tensor.check() {
            return Err(FormatError::Tensor { name, what });
        }
        spans.push((place, name));
    }
    // Empty tensors come before what begins at the same place.
    spans.sort();
    let mut end = 0;
    for ((start, next), name) in &spans {
        if *start != end {
            let what = format!("begins at byte {start} of the data, where {end} is due: a hole or an overlap");
            return Err(FormatError::Tensor { name: name.clone(), what });
        }
        end = *next;
    }
    let needed = data_start.saturating_add(end);
    if needed > file_bytes {
        return Err(FormatError::Truncated { needed, found: file_bytes });
    }
    if needed < file_bytes {
        return Err(FormatError::Trailing(file_bytes - needed));
    }
    let absolute = |((start, end), name)| Span { name, bytes: data_start + start..data_start + end };
    Ok(spans.into_iter().map(absolute).collect())
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Tensor {
    fn check(&self) -> Result<(), String> {
        let (start, end) = self.data_offsets;
        let bits = bits_of(&self.dtype).ok_or_else(|| format!("has the unknown type {:?}", self.dtype))?;
        let numbers = self.shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        let size_bits = numbers.and_then(|numbers| numbers.checked_mul(bits));
        let size_bits = size_bits.ok_or_else(|| format!("has a shape that overflows: {:?}", self.shape))?;
        if size_bits % 8 != 0 {
            return Err(format!("ends within a byte: {} of shape {:?}", self.dtype, self.shape));
        }
        let size = size_bits / 8;
        if end.checked_sub(start) != Some(size) {
            return Err(format!("has {size} bytes by its shape, but its place is {start}..{end}"));
        }
        Ok(())
    }
}

fn bits_of(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// The JSON object, read without building a tree of it, each name once.
struct Tensors(Vec<(String, Tensor)>);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TensorsVisitor)
    }
}

struct TensorsVisitor;

impl<'de> Visitor<'de> for TensorsVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name:?} twice")));
            }
            if name == "__metadata__" {
                map.next_value::<HashMap<String, String>>()?;
            } else {
                tensors.push((name, map.next_value()?));
            }
        }
        Ok(Tensors(tensors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data_bytes: u64) -> (Vec<u8>, u64) {
        let head = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        let total = head.len() as u64 + data_bytes;
        (head, total)
    }

    fn refusal(json: &str, data_bytes: u64) -> String {
        let (head, total) = file(json, data_bytes);
        parse(&head, total).unwrap_err().to_string()
    }

    #[test]
    fn tensors_come_in_the_order_of_their_data_the_empty_ones_too() {
        let json = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},
            "none":{"dtype":"F32","shape":[0,7],"data_offsets":[8,8]},
            "a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#;
        let (head, total) = file(json, 11);
        let spans = parse(&head, total).unwrap();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["a", "none", "b"]);
        assert_eq!(spans[2].bytes, total - 3..total);
        let (head, total) = file("{}", 0);
        assert_eq!(parse(&head, total).unwrap(), []);
    }

    #[test]
    fn cut_files_are_called_truncated() {
        let json = r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
        let (head, total) = file(json, 3);
        let message = parse(&head, total - 1).unwrap_err().to_string();
        assert_eq!(message, "truncated: the header describes a file of 64 bytes, it has 63");
        let message = data_start(&head[..9], 20).unwrap_err().to_string();
        assert_eq!(message, "truncated: the header alone needs 61 bytes, the file has 20");
    }

    #[test]
    fn other_files_are_called_so() {
        assert!(data_start(b"PK\x03\x04", 4).unwrap_err().to_string().contains("4 bytes are too few"));
        assert!(data_start(b"Some text.", 10).unwrap_err().to_string().contains("header would have"));
        assert_eq!(data_start(b"\x02\0\0\0\0\0\0\0[]", 10), Err(FormatError::NoBrace));
        assert_eq!(data_start(&[0; 9], 9), Err(FormatError::NoBrace));
        for (json, data, part) in [
            (r#"{"a":1}"#, 0, "invalid type"),
            (r#"{"a":"#, 0, "EOF"),
            (
                r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}}"#,
                4,
                "3 bytes by its shape, but its place is 0..4",
            ),
            (r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[4,1]}}"#, 4, "its place is 4..1"),
            (r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}"#, 4, "begins at byte 1"),
            (r#"{"a":{"dtype":"X9","shape":[3],"data_offsets":[0,3]}}"#, 3, "unknown type \"X9\""),
            (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1, "within a byte"),
            (r#"{"a":{"dtype":"U8","shape":[9999999999,9999999999],"data_offsets":[0,1]}}"#, 1, "overflows"),
            (r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 2, "1 bytes after its last tensor"),
            (
                r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},
                    "a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
                0,
                "\"a\" twice",
            ),
        ] {
            let message = refusal(json, data);
            assert!(message.starts_with("not a safetensors file: ") && message.contains(part), "{json}: {message}");
            assert!(!message.contains('\n'));
        }
    }
}
