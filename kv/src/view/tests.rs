use super::*;
use crate::layout::{Attention, CacheLayout, PLANE_VALUE};
use crate::pool::PoolError;

fn pool() -> PoolGeometry {
    let attention = Attention::GroupedQuery { kv_heads: 2, head_size: 3 };
    PoolGeometry::new(CacheLayout::new(2, attention, DType::F32, 4).unwrap(), 5).unwrap()
}

#[test]
fn a_block_is_seen_where_the_pool_has_it() {
    let pool = pool();
    let memory: Vec<f32> = (0..pool.size_bytes() / 4).map(|element| element as f32).collect();
    let bytes = bytemuck::cast_slice(&memory);
    let view = TensorView::of_block(&pool, bytes, 1, PLANE_VALUE, 3).unwrap();
    assert_eq!(view.shape(), [4, 2, 3]);
    assert_eq!(view.strides_bytes(), [24, 12, 4]);
    let first = pool.offset_bytes(1, PLANE_VALUE, 3, 2).unwrap() / 4;
    let token = view.tokens(2..3).unwrap();
    assert_eq!(token.as_f32().unwrap()[0], first as f32);
    let head = token.head(1).unwrap();
    assert_eq!(head.as_f32().unwrap(), [3, 4, 5].map(|element| (first + element) as f32));
}

#[test]
fn writes_through_a_view_reach_the_pool() {
    let pool = pool();
    let mut memory = vec![0.0_f32; pool.size_bytes() as usize / 4];
    let bytes = bytemuck::cast_slice_mut(&mut memory);
    let view = TensorViewMut::of_block(&pool, bytes, 0, 1, 4).unwrap();
    view.tokens(3..4).unwrap().head(1).unwrap().as_f32_mut().unwrap().fill(9.0);
    let last = pool.block_range(0, 1, 4).unwrap().end as usize / 4;
    assert_eq!(memory[last - 3..last], [9.0; 3]);
    assert_eq!(memory.iter().filter(|&&element| element != 0.0).count(), 3);
}

#[test]
fn each_type_is_read_by_its_own_method_only() {
    let memory = [0x3c00_3c00_3c00_3c00_u64; 3];
    let bytes: &[u8] = bytemuck::cast_slice(&memory);
    for dtype in DType::ALL {
        let shape = [2, 3, 4 / dtype.size_bytes() as usize];
        let view = TensorView::new(bytes, dtype, shape).unwrap();
        assert_eq!(view.as_f32().is_ok(), dtype == DType::F32);
        assert_eq!(view.as_f16_bits().is_ok(), dtype == DType::F16);
        assert_eq!(view.as_bf16_bits().is_ok(), dtype == DType::BF16);
        assert_eq!(view.as_i8().is_ok(), dtype == DType::I8);
        assert_eq!(view.as_f8_bits().is_ok(), EIGHT_BIT_FLOATS.contains(&dtype));
        assert_eq!(view.as_bytes(), Ok(bytes));
    }
    let view = TensorView::new(bytes, DType::F16, [2, 3, 2]).unwrap();
    assert_eq!(view.as_f16_bits().unwrap()[1], 0x3c00);
    let error = ViewError::DType { found: DType::F16, asked: "f32" };
    assert_eq!(view.as_f32(), Err(error));
}

#[test]
fn misaligned_memory_is_refused() {
    let memory = [0_u64; 3];
    let bytes: &[u8] = bytemuck::cast_slice(&memory);
    let view = TensorView::new(&bytes[2..18], DType::F32, [1, 1, 4]).unwrap();
    let error = ViewError::Misaligned { misaligned_by: 2, alignment: 4 };
    assert_eq!(view.as_f32(), Err(error));
    let view = TensorView::new(&bytes[2..18], DType::BF16, [1, 1, 8]).unwrap();
    assert!(view.as_bf16_bits().is_ok());
}

#[test]
fn shapes_and_places_outside_are_refused() {
    let bytes = [0; 24];
    let shape = [2, 3, 5];
    let new = |shape| TensorView::new(&bytes, DType::I8, shape);
    let length = |shape, needed_bytes| ViewError::Length { shape, dtype: DType::I8, needed_bytes, found_bytes: 24 };
    assert_eq!(new(shape), Err(length(shape, Some(30))));
    let huge = [usize::MAX, 2, 2];
    assert_eq!(new(huge), Err(length(huge, None)));
    let view = new([2, 3, 4]).unwrap();
    assert_eq!(view.head(3), Err(ViewError::Head { head: 3, heads: 3 }));
    for (start, end) in [(1, 3), (2, 1)] {
        let error = ViewError::Tokens { start, end, tokens: 2 };
        assert_eq!(view.tokens(Range { start, end }), Err(error));
    }
    let strided = view.head(1).unwrap();
    let (shape, strides_bytes) = ([2, 1, 4], [12, 4, 1]);
    assert_eq!(strided.as_bytes(), Err(ViewError::NotContiguous { shape, strides_bytes }));
    let none = strided.tokens(2..2).unwrap();
    assert_eq!(none.as_i8(), Ok(&[][..]));
    let pool = pool();
    let error = TensorView::of_block(&pool, &bytes, 0, 0, 0).unwrap_err();
    assert!(matches!(error, ViewError::Pool(PoolError::BufferTooSmall { .. })), "{error}");
}
