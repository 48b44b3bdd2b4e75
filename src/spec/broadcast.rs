//! Broadcasting by PyTorch's rule: shapes are aligned at their last dimensions, and a dimension
//! of size 1, or one that is absent, serves every index.

use crate::base::shape::{MAX_RANK, Shape};

/// The shape that `a` and `b` broadcast to; `None` where two sizes differ and neither is 1.
pub(crate) fn broadcast(a: Shape, b: Shape) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let mut shape = Shape::SCALAR;
    for d in 0..rank {
        let [a, b] = [a, b].map(|s| aligned(&s, rank, d).map_or(1, |d| s[d]));
        shape.push(match (a, b) {
            (1, size) | (size, 1) => size,
            _ if a == b => a,
            _ => return None,
        });
    }
    Some(shape)
}

/// The dimension of `shape` that lies under dimension `d` of `rank`.
fn aligned(shape: &Shape, rank: usize, d: usize) -> Option<usize> {
    (d + shape.len()).checked_sub(rank)
}

/// Distances, in elements, between neighbours along each dimension of `result`, for a tensor of
/// `shape` that broadcasts to it; 0 where one element serves the whole dimension.
pub(crate) fn strides(shape: Shape, row_stride: usize, result: Shape) -> [usize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    for (d, stride) in strides[..result.len()].iter_mut().enumerate() {
        *stride = match aligned(&shape, result.len(), d) {
            None => 0,
            Some(own) if shape[own] == 1 && result[d] != 1 => 0,
            Some(0) => row_stride,
            Some(own) => shape[own + 1..].iter().product(),
        };
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(sizes: &[usize]) -> Shape {
        Shape::new(sizes).unwrap()
    }

    #[test]
    fn shapes_broadcast_as_in_pytorch() {
        for (a, b, both) in [
            (&[][..], &[3][..], Some(&[3][..])),
            (&[4, 1], &[3], Some(&[4, 3])),
            (&[2, 1, 5], &[7, 1], Some(&[2, 7, 5])),
            (&[0, 3], &[1, 3], Some(&[0, 3])),
            (&[1], &[0], Some(&[0])),
            (&[2], &[3], None),
            (&[2, 3], &[2], None),
            (&[0], &[2], None),
        ] {
            let want = both.map(shape);
            assert_eq!(broadcast(shape(a), shape(b)), want, "{a:?} {b:?}");
            assert_eq!(broadcast(shape(b), shape(a)), want, "{a:?} {b:?}");
        }
    }

    #[test]
    fn one_element_has_stride_0_along_what_it_serves() {
        let result = shape(&[4, 3, 5]);
        assert_eq!(strides(result, 20, result)[..3], [20, 5, 1]);
        assert_eq!(strides(shape(&[3, 1]), 2, result)[..3], [0, 2, 0]);
        assert_eq!(strides(shape(&[5]), 7, result)[..3], [0, 0, 7]);
        assert_eq!(strides(shape(&[]), 1, result)[..3], [0, 0, 0]);
    }
}
