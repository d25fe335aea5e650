//! Where the elements of a tensor lie in a slice, and the rules that views of it keep.

use core::ops::Range;

use crate::dtype::DType;
use crate::pool::{PoolError, PoolGeometry};

/// Why memory cannot be seen as such a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The slice does not have the shape's length.
    #[error(
        "shape {shape:?} of {dtype} needs {needed_bytes:?} bytes and the slice has {found_bytes}; \
            pass exactly those"
    )]
    Length {
        /// Shape as given.
        shape: [usize; 3],
        /// Element type as given.
        dtype: DType,
        /// Bytes of that shape; `None` if they do not fit the address space.
        needed_bytes: Option<usize>,
        /// Bytes of the slice.
        found_bytes: usize,
    },
    /// The view holds other elements than were asked for.
    #[error("the view holds {found} and {asked} was asked for; use the method for {found}")]
    DType {
        /// Element type of the view.
        found: DType,
        /// What was asked for.
        asked: &'static str,
    },
    /// The elements are not next to each other.
    #[error(
        "shape {shape:?} with strides of {strides_bytes:?} bytes is not contiguous; take one \
            token of it"
    )]
    NotContiguous {
        /// Shape of the view.
        shape: [usize; 3],
        /// Strides of the view.
        strides_bytes: [usize; 3],
    },
    /// The memory does not begin where such an element may.
    #[error(
        "the view begins {misaligned_by} bytes after a multiple of {alignment}; align the pool, \
            or copy"
    )]
    Misaligned {
        /// Bytes beyond the last aligned address.
        misaligned_by: usize,
        /// Alignment of the element.
        alignment: usize,
    },
    /// Tokens that the view does not have.
    #[error("tokens {start}..{end} are not within the view's {tokens}")]
    Tokens {
        /// First token asked for.
        start: usize,
        /// One past the last token asked for.
        end: usize,
        /// Tokens of the view.
        tokens: usize,
    },
    /// A head that the view does not have.
    #[error("head {head} is not within the view's {heads}")]
    Head {
        /// Head asked for.
        head: usize,
        /// Heads of the view.
        heads: usize,
    },
    /// No such place in the pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Shape, strides and element type: what both kinds of view share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) dtype: DType,
    pub(crate) shape: [usize; 3],
    pub(crate) strides_bytes: [usize; 3],
}

impl Form {
    /// The contiguous form of a slice of `found_bytes` bytes.
    pub(crate) fn contiguous(dtype: DType, shape: [usize; 3], found_bytes: usize) -> Result<Form, ViewError> {
        let element = dtype.size_bytes() as usize;
        let [tokens, heads, elements] = shape;
        let vector = elements.checked_mul(element);
        let token = vector.and_then(|vector| vector.checked_mul(heads));
        let needed_bytes = token.and_then(|token| token.checked_mul(tokens));
        match (vector, token) {
            (Some(vector), Some(token)) if needed_bytes == Some(found_bytes) => {
                Ok(Form { dtype, shape, strides_bytes: [token, vector, element] })
            }
            _ => Err(ViewError::Length { shape, dtype, needed_bytes, found_bytes }),
        }
    }

    /// The form of a block's plane in a pool, and its bytes there.
    pub(crate) fn of_block(
        pool: &PoolGeometry,
        pool_bytes: usize,
        layer: u32,
        plane: u32,
        block: u32,
    ) -> Result<(Form, Range<usize>), ViewError> {
        pool.check_size(pool_bytes)?;
        let range = pool.block_range(layer, plane, block)?;
        let layout = pool.layout();
        let [heads, elements] = layout.attention().token_shape();
        let shape = [layout.block_tokens() as usize, heads as usize, elements as usize];
        let form = Form::contiguous(layout.dtype(), shape, (range.end - range.start) as usize)?;
        Ok((form, range.start as usize..range.end as usize))
    }

    /// From the first element to the end of the last one.
    fn span_bytes(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        let last: usize = (0..3).map(|axis| (self.shape[axis] - 1) * self.strides_bytes[axis]).sum();
        last + self.dtype.size_bytes() as usize
    }

    pub(crate) fn tokens(self, tokens: Range<usize>) -> Result<(Form, Range<usize>), ViewError> {
        let Range { start, end } = tokens;
        if start > end || end > self.shape[0] {
            return Err(ViewError::Tokens { start, end, tokens: self.shape[0] });
        }
        let [_, heads, elements] = self.shape;
        let form = Form { shape: [end - start, heads, elements], ..self };
        Ok((form, form.span_from(start * self.strides_bytes[0])))
    }

    pub(crate) fn head(self, head: usize) -> Result<(Form, Range<usize>), ViewError> {
        let [tokens, heads, elements] = self.shape;
        if head >= heads {
            return Err(ViewError::Head { head, heads });
        }
        let form = Form { shape: [tokens, 1, elements], ..self };
        Ok((form, form.span_from(head * self.strides_bytes[1])))
    }

    /// The bytes of this form when it begins at `start`. Of no elements: no bytes, at the front.
    fn span_from(&self, start: usize) -> Range<usize> {
        match self.span_bytes() {
            0 => 0..0,
            span => start..start + span,
        }
    }

    pub(crate) fn check_contiguous(&self) -> Result<(), ViewError> {
        let mut dense = self.dtype.size_bytes() as usize;
        for axis in (0..3).rev() {
            if self.shape[axis] > 1 && self.strides_bytes[axis] != dense {
                let Form { shape, strides_bytes, .. } = *self;
                return Err(ViewError::NotContiguous { shape, strides_bytes });
            }
            dense *= self.shape[axis];
        }
        Ok(())
    }

    /// Checks that the memory can be seen as elements of `T`, which stand for `asked`.
    pub(crate) fn check<T>(&self, bytes: &[u8], accepted: &[DType], asked: &'static str) -> Result<(), ViewError> {
        if !accepted.contains(&self.dtype) {
            return Err(ViewError::DType { found: self.dtype, asked });
        }
        self.check_contiguous()?;
        let alignment = align_of::<T>();
        match bytes.as_ptr().addr() % alignment {
            0 => Ok(()),
            misaligned_by => Err(ViewError::Misaligned { misaligned_by, alignment }),
        }
    }
}
