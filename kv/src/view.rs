//! A block's vectors as a tensor, in place.
//!
//! A view is a slice with a shape: `[tokens, heads, elements]`, with a stride in bytes per
//! dimension. Nothing is copied or converted; numbers are little endian, as on every machine that
//! this crate compiles for. 16-bit and 8-bit floating point numbers are given as their bits, so
//! that users can choose the crate that computes with them.

use core::ops::Range;

use bytemuck::Pod;

use crate::dtype::DType;
use crate::pool::PoolGeometry;
use crate::tensor_form::Form;
pub use crate::tensor_form::ViewError;

const EIGHT_BIT_FLOATS: [DType; 2] = [DType::F8E4M3, DType::F8E5M2];

/// Vectors in memory that is only read. Shape: `[tokens, heads, elements]`.
///
/// ```
/// use dmaplane_kv::{DType, TensorView};
///
/// let memory = [0.5_f32, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5];
/// let view = TensorView::new(bytemuck::cast_slice(&memory), DType::F32, [2, 2, 2])?;
/// assert_eq!(view.as_f32()?, memory);
/// // Head 1 of token 1, without a copy.
/// assert_eq!(view.tokens(1..2)?.head(1)?.as_f32()?, [6.5, 7.5]);
/// // Head 1 of both tokens is not contiguous.
/// assert!(view.head(1)?.as_f32().is_err());
/// # Ok::<(), dmaplane_kv::ViewError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    bytes: &'a [u8],
    form: Form,
}

impl<'a> TensorView<'a> {
    /// All of `bytes` as a contiguous tensor.
    pub fn new(bytes: &'a [u8], dtype: DType, shape: [usize; 3]) -> Result<TensorView<'a>, ViewError> {
        Ok(TensorView { bytes, form: Form::contiguous(dtype, shape, bytes.len())? })
    }

    /// One plane of a block: `[block_tokens, heads, elements]`. `pool_bytes` is the whole pool.
    pub fn of_block(
        pool: &PoolGeometry,
        pool_bytes: &'a [u8],
        layer: u32,
        plane: u32,
        block: u32,
    ) -> Result<TensorView<'a>, ViewError> {
        let (form, range) = Form::of_block(pool, pool_bytes.len(), layer, plane, block)?;
        Ok(TensorView { bytes: &pool_bytes[range], form })
    }

    /// `[tokens, heads, elements]`.
    pub const fn shape(&self) -> [usize; 3] {
        self.form.shape
    }

    /// From one token, head and element to the next, in bytes.
    pub const fn strides_bytes(&self) -> [usize; 3] {
        self.form.strides_bytes
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.form.dtype
    }

    /// Some of the tokens.
    pub fn tokens(&self, tokens: Range<usize>) -> Result<TensorView<'a>, ViewError> {
        let (form, range) = self.form.tokens(tokens)?;
        Ok(TensorView { bytes: &self.bytes[range], form })
    }

    /// One head of every token: `[tokens, 1, elements]`, contiguous only for one token or one head.
    pub fn head(&self, head: usize) -> Result<TensorView<'a>, ViewError> {
        let (form, range) = self.form.head(head)?;
        Ok(TensorView { bytes: &self.bytes[range], form })
    }

    /// The bytes of a contiguous view.
    pub fn as_bytes(&self) -> Result<&'a [u8], ViewError> {
        self.form.check_contiguous()?;
        Ok(self.bytes)
    }

    /// The elements of a contiguous view of [`DType::F32`].
    pub fn as_f32(&self) -> Result<&'a [f32], ViewError> {
        self.cast(&[DType::F32], "f32")
    }

    /// The elements' bits in a contiguous view of [`DType::F16`].
    pub fn as_f16_bits(&self) -> Result<&'a [u16], ViewError> {
        self.cast(&[DType::F16], "f16")
    }

    /// The elements' bits in a contiguous view of [`DType::BF16`].
    pub fn as_bf16_bits(&self) -> Result<&'a [u16], ViewError> {
        self.cast(&[DType::BF16], "bf16")
    }

    /// The elements' bits in a contiguous view of [`DType::F8E4M3`] or [`DType::F8E5M2`].
    pub fn as_f8_bits(&self) -> Result<&'a [u8], ViewError> {
        self.cast(&EIGHT_BIT_FLOATS, "f8e4m3 or f8e5m2")
    }

    /// The elements of a contiguous view of [`DType::I8`].
    pub fn as_i8(&self) -> Result<&'a [i8], ViewError> {
        self.cast(&[DType::I8], "i8")
    }

    fn cast<T: Pod>(&self, accepted: &[DType], asked: &'static str) -> Result<&'a [T], ViewError> {
        self.form.check::<T>(self.bytes, accepted, asked)?;
        Ok(bytemuck::cast_slice(self.bytes))
    }
}

/// Vectors in memory that is also written. Shape: `[tokens, heads, elements]`.
///
/// ```
/// use dmaplane_kv::{DType, TensorViewMut};
///
/// let mut memory = [0.0_f32; 8];
/// let bytes = bytemuck::cast_slice_mut(&mut memory);
/// let mut view = TensorViewMut::new(bytes, DType::F32, [2, 2, 2])?;
/// view.reborrow().tokens(1..2)?.head(0)?.as_f32_mut()?.copy_from_slice(&[4.5, 5.5]);
/// assert_eq!(view.as_view().as_f32()?, [0.0, 0.0, 0.0, 0.0, 4.5, 5.5, 0.0, 0.0]);
/// # Ok::<(), dmaplane_kv::ViewError>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct TensorViewMut<'a> {
    bytes: &'a mut [u8],
    form: Form,
}

impl<'a> TensorViewMut<'a> {
    /// All of `bytes` as a contiguous tensor.
    pub fn new(bytes: &'a mut [u8], dtype: DType, shape: [usize; 3]) -> Result<TensorViewMut<'a>, ViewError> {
        let form = Form::contiguous(dtype, shape, bytes.len())?;
        Ok(TensorViewMut { bytes, form })
    }

    /// One plane of a block: `[block_tokens, heads, elements]`. `pool_bytes` is the whole pool.
    pub fn of_block(
        pool: &PoolGeometry,
        pool_bytes: &'a mut [u8],
        layer: u32,
        plane: u32,
        block: u32,
    ) -> Result<TensorViewMut<'a>, ViewError> {
        let (form, range) = Form::of_block(pool, pool_bytes.len(), layer, plane, block)?;
        Ok(TensorViewMut { bytes: &mut pool_bytes[range], form })
    }

    /// The same vectors, read only: for shape, strides and reading.
    pub fn as_view(&self) -> TensorView<'_> {
        TensorView { bytes: self.bytes, form: self.form }
    }

    /// The same vectors for a shorter time, since the methods below consume the view.
    pub fn reborrow(&mut self) -> TensorViewMut<'_> {
        TensorViewMut { bytes: self.bytes, form: self.form }
    }

    /// Some of the tokens.
    pub fn tokens(self, tokens: Range<usize>) -> Result<TensorViewMut<'a>, ViewError> {
        let (form, range) = self.form.tokens(tokens)?;
        Ok(TensorViewMut { bytes: &mut self.bytes[range], form })
    }

    /// One head of every token: `[tokens, 1, elements]`, contiguous only for one token or one head.
    pub fn head(self, head: usize) -> Result<TensorViewMut<'a>, ViewError> {
        let (form, range) = self.form.head(head)?;
        Ok(TensorViewMut { bytes: &mut self.bytes[range], form })
    }

    /// The bytes of a contiguous view.
    pub fn as_bytes_mut(self) -> Result<&'a mut [u8], ViewError> {
        self.form.check_contiguous()?;
        Ok(self.bytes)
    }

    /// The elements of a contiguous view of [`DType::F32`].
    pub fn as_f32_mut(self) -> Result<&'a mut [f32], ViewError> {
        self.cast(&[DType::F32], "f32")
    }

    /// The elements' bits in a contiguous view of [`DType::F16`].
    pub fn as_f16_bits_mut(self) -> Result<&'a mut [u16], ViewError> {
        self.cast(&[DType::F16], "f16")
    }

    /// The elements' bits in a contiguous view of [`DType::BF16`].
    pub fn as_bf16_bits_mut(self) -> Result<&'a mut [u16], ViewError> {
        self.cast(&[DType::BF16], "bf16")
    }

    /// The elements' bits in a contiguous view of [`DType::F8E4M3`] or [`DType::F8E5M2`].
    pub fn as_f8_bits_mut(self) -> Result<&'a mut [u8], ViewError> {
        self.cast(&EIGHT_BIT_FLOATS, "f8e4m3 or f8e5m2")
    }

    /// The elements of a contiguous view of [`DType::I8`].
    pub fn as_i8_mut(self) -> Result<&'a mut [i8], ViewError> {
        self.cast(&[DType::I8], "i8")
    }

    fn cast<T: Pod>(self, accepted: &[DType], asked: &'static str) -> Result<&'a mut [T], ViewError> {
        self.form.check::<T>(self.bytes, accepted, asked)?;
        Ok(bytemuck::cast_slice_mut(self.bytes))
    }
}

#[cfg(test)]
mod tests;
