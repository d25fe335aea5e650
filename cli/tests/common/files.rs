//! Safetensors files, written by hand so that they share no code with what they test.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

/// Tensors of many types, empty and odd-sized ones between them; of about so many MiB together.
fn tensors(mib: u64) -> Vec<(String, &'static str, Vec<u64>, u64)> {
    let share = (mib << 20) / 5;
    let mut tensors = Vec::new();
    for (layer, dtype, size) in [(0, "BF16", 2), (1, "F16", 2), (2, "F32", 4), (3, "I64", 8), (4, "U8", 1)] {
        let columns = 61;
        let rows = share / size / columns;
        tensors.push((format!("layers.{layer}.weight"), dtype, vec![rows, columns], rows * columns * size));
        tensors.push((format!("layers.{layer}.none"), dtype, vec![0, 7], 0));
        tensors.push((format!("layers.{layer}.odd"), "U8", vec![4099 + layer], 4099 + layer));
        tensors.push((format!("layers.{layer}.scale"), dtype, vec![], size));
    }
    tensors.push(("last.none".to_owned(), "F32", vec![0], 0));
    tensors
}

/// Writes a file of about so many MiB; the number of its tensors.
pub fn write(path: &Path, mib: u64) -> usize {
    let tensors = tensors(mib);
    let mut end = 0;
    // Names in another order than their data.
    let mut entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let start = end;
            end += bytes;
            format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
        })
        .collect();
    entries.sort_by_key(|entry| entry.len());
    let mut json = format!("{{\"__metadata__\":{{\"format\":\"pt\"}},{}}}", entries.join(","));
    while json.len() % 8 != 0 {
        json.push(' ');
    }
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(json.as_bytes()).unwrap();
    let mut random = Random(mib + 1);
    let mut left = end;
    let mut block = vec![0; 1 << 16];
    while left > 0 {
        random.fill(&mut block);
        let count = left.min(block.len() as u64);
        file.write_all(&block[..count as usize]).unwrap();
        left -= count;
    }
    file.flush().unwrap();
    tensors.len()
}

/// xorshift64*: every 8 bytes differ, so that nothing that is moved looks like something else.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Whether two files have the same bytes.
pub fn same(left: &Path, right: &Path) -> bool {
    let (Ok(mut left), Ok(mut right)) = (File::open(left), File::open(right)) else { return false };
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = left.read(&mut ours).unwrap();
        if count == 0 {
            return right.read(&mut theirs).unwrap() == 0;
        }
        if right.read_exact(&mut theirs[..count]).is_err() || ours[..count] != theirs[..count] {
            return false;
        }
    }
}
