//! Checksums of a file that goes by from its first byte to its last: one of it all, one of each tensor.

use super::header::{self, FormatError, LENGTH_BYTES, Span};
use serde::{Deserialize, Serialize};
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// Small enough to stay in a core's cache while it is hashed twice.
const STRIDE_BYTES: usize = 128 << 10;

/// The checksums of a file: xxh3, 64 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checksums {
    /// Of all its bytes, as `xxhsum -H3` prints it.
    pub file: u64,
    /// Of each tensor's data, in file order.
    pub tensors: Vec<u64>,
}

/// What is known at the end.
#[derive(Debug)]
pub struct Summary {
    pub checksums: Checksums,
    pub spans: Vec<Span>,
}

/// Moves bytes to `head` until it has so many; the rest.
fn fill<'a>(head: &mut Vec<u8>, bytes: &'a [u8], until: u64) -> &'a [u8] {
    let missing = (until as usize).saturating_sub(head.len());
    let (taken, rest) = bytes.split_at(bytes.len().min(missing));
    head.extend_from_slice(taken);
    rest
}

/// Reads the header as it comes by and checks it; hashes everything.
pub struct FileDigest {
    file_bytes: u64,
    position: u64,
    /// The file's start, as long as it is not all there.
    head: Vec<u8>,
    spans: Option<Vec<Span>>,
    whole: XxHash3_64,
    /// Of the tensor under way, the one after `done`.
    current: XxHash3_64,
    done: Vec<u64>,
}

impl FileDigest {
    pub fn new(file_bytes: u64) -> FileDigest {
        FileDigest {
            file_bytes,
            position: 0,
            head: Vec::new(),
            spans: None,
            whole: XxHash3_64::new(),
            current: XxHash3_64::new(),
            done: Vec::new(),
        }
    }

    /// The file's next bytes.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        for stride in bytes.chunks(STRIDE_BYTES) {
            self.whole.write(stride);
            let data = self.read_head(stride)?;
            self.position += (stride.len() - data.len()) as u64;
            self.hash_tensors(data);
        }
        Ok(())
    }

    /// Takes what belongs to the header; the rest.
    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
        if self.spans.is_some() {
            return Ok(bytes);
        }
        // One byte more than the length, to see the brace.
        let rest = fill(&mut self.head, bytes, (LENGTH_BYTES + 1).min(self.file_bytes));
        if self.head.len() as u64 <= LENGTH_BYTES && (self.head.len() as u64) < self.file_bytes {
            return Ok(rest);
        }
        let data_start = header::data_start(&self.head, self.file_bytes)?;
        let rest = fill(&mut self.head, rest, data_start);
        if self.head.len() as u64 == data_start {
            self.spans = Some(header::parse(&self.head, self.file_bytes)?);
            self.head = Vec::new();
        }
        Ok(rest)
    }

    fn hash_tensors(&mut self, mut data: &[u8]) {
        let Some(spans) = &self.spans else { return };
        while let Some(span) = spans.get(self.done.len()) {
            let left = span.bytes.end - self.position;
            let (ours, rest) = data.split_at(data.len().min(left as usize));
            self.current.write(ours);
            self.position += ours.len() as u64;
            data = rest;
            if self.position < span.bytes.end {
                break;
            }
            let finished = std::mem::replace(&mut self.current, XxHash3_64::new());
            self.done.push(finished.finish());
        }
    }

    /// The checksums, when all bytes have come by.
    pub fn finish(self) -> Result<Summary, FormatError> {
        match self.spans {
            Some(spans) if self.done.len() == spans.len() && self.position == self.file_bytes => {
                let checksums = Checksums { file: self.whole.finish(), tensors: self.done };
                Ok(Summary { checksums, spans })
            }
            _ => Err(FormatError::Truncated { needed: self.file_bytes, found: self.position }),
        }
    }
}

impl Summary {
    /// Compares with what the sender saw; the first difference in words.
    pub fn check(&self, sent: &Checksums) -> Result<(), String> {
        let ours = &self.checksums;
        if ours.tensors.len() != sent.tensors.len() {
            return Err(format!("{} tensors arrived, {} were sent", ours.tensors.len(), sent.tensors.len()));
        }
        let pairs = ours.tensors.iter().zip(&sent.tensors).zip(&self.spans);
        for ((ours, sent), span) in pairs {
            if ours != sent {
                return Err(format!("tensor {:?} was damaged on its way: {ours:016x}, not {sent:016x}", span.name));
            }
        }
        if ours.file != sent.file {
            return Err(format!("the file was damaged on its way: {:016x}, not {:016x}", ours.file, sent.file));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let json = r#"{"x":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},
            "z":{"dtype":"F32","shape":[0],"data_offsets":[5,5]},
            "y":{"dtype":"U8","shape":[300000],"data_offsets":[5,300005]}}"#;
        let mut file = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        file.extend((0..300_005u32).map(|i| (i * 7 % 251) as u8));
        file
    }

    fn digest(file: &[u8], step: usize) -> Summary {
        let mut digest = FileDigest::new(file.len() as u64);
        file.chunks(step).for_each(|bytes| digest.update(bytes).unwrap());
        digest.finish().unwrap()
    }

    #[test]
    fn the_checksums_do_not_depend_on_how_the_file_is_cut() {
        let file = sample();
        let whole = digest(&file, file.len());
        let data = &file[file.len() - 300_005..];
        assert_eq!(whole.checksums.file, XxHash3_64::oneshot(&file));
        let tensors = [&data[..5], &[], &data[5..]].map(XxHash3_64::oneshot);
        assert_eq!(whole.checksums.tensors, tensors);
        for step in [1, 7, 8, 9, 100, 4096] {
            assert_eq!(digest(&file, step).checksums, whole.checksums, "{step}");
        }
    }

    #[test]
    fn what_changed_is_named_and_what_is_missing_too() {
        let mut file = sample();
        let sent = digest(&file, 1000).checksums;
        *file.last_mut().unwrap() ^= 1;
        let changed = digest(&file, 1000);
        assert!(changed.check(&sent).unwrap_err().starts_with("tensor \"y\" was damaged"));
        assert!(changed.check(&changed.checksums).is_ok());
        let mut digest = FileDigest::new(file.len() as u64);
        digest.update(&file[..file.len() - 1]).unwrap();
        assert!(digest.finish().unwrap_err().to_string().starts_with("truncated"));
    }
}
