//! A buffer's memory in this process.

/// A mapping, whoever has made it. It keeps the memory, whatever becomes of the buffer.
#[derive(Debug)]
pub(crate) enum Mapping {
    Embedded(dmaplane_embedded::Mapping),
    Device(dmaplane_device::Mapping),
}

impl Mapping {
    /// The memory's start.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        match self {
            Mapping::Embedded(mapping) => mapping.as_ptr(),
            Mapping::Device(mapping) => mapping.start().as_ptr(),
        }
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Mapping::Embedded(mapping) => mapping.len(),
            Mapping::Device(mapping) => mapping.length_bytes(),
        }
    }

    /// Never: a buffer has at least one page.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out, while others may write them; `false` outside the buffer.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        match self {
            Mapping::Embedded(mapping) => mapping.read(offset, bytes),
            Mapping::Device(mapping) => usize::try_from(offset).is_ok_and(|offset| mapping.read(offset, bytes)),
        }
    }

    /// Copies bytes in; `false` outside the buffer.
    #[cfg(feature = "tokio")]
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        match self {
            Mapping::Embedded(mapping) => mapping.write(offset, bytes),
            Mapping::Device(mapping) => usize::try_from(offset).is_ok_and(|offset| mapping.write(offset, bytes)),
        }
    }
}
