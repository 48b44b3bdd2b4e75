//! Strides, a distance for each dimension: which of them a view can have, and how far any reach.

use crate::base::error::{Error, Result};
use crate::base::shape::{MAX_RANK, Shape};
use crate::base::tensor::layout::Layout;

/// Dimensions that lie any distance apart, backwards and on one another too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strided {
    shape: Shape,
    strides: [isize; MAX_RANK],
    /// Offset of the first element in memory from that of index 0; not positive.
    least: isize,
    /// Offset of the last; not negative.
    most: isize,
}

impl Strided {
    /// As many strides as sizes; none of them: in one piece. No offset in bytes, of elements of so
    /// many, exceeds the address space.
    pub(crate) fn check(
        sizes: &[usize],
        strides: Option<&[isize]>,
        size: usize,
    ) -> Result<(Strided, Layout)> {
        let whole = Layout::check(sizes, None, usize::MAX)?;
        let strides = given(&whole, strides)?;
        let (mut least, mut most) = (0isize, 0isize);
        // What has no elements has no first and last one either.
        for (&n, &stride) in sizes.iter().zip(&strides).filter(|_| whole.reach() > 0) {
            let too_far = || refuse("offsets that fit the address space", &strides[..sizes.len()]);
            let way = isize::try_from(n - 1).ok().and_then(|last| last.checked_mul(stride));
            let end = if stride < 0 { &mut least } else { &mut most };
            *end = way.and_then(|way| end.checked_add(way)).ok_or_else(too_far)?;
            let bytes = most.checked_sub(least).and_then(|n| n.checked_add(1));
            let bytes = bytes.and_then(|n| n.checked_mul(size as isize));
            bytes.ok_or_else(too_far)?;
        }
        Ok((Strided { shape: whole.shape, strides, least, most }, whole))
    }

    /// The same where no element lies before that of index 0, or beyond `len`.
    pub(crate) fn within(self, len: usize) -> Result<Strided> {
        let fits = self.least == 0 && self.most.unsigned_abs() < len;
        if fits || self.shape.contains(&0) {
            return Ok(self);
        }
        let (least, most) = (self.least, self.most);
        let expected =
            format!("elements {least} to {most} of shape {} in the {len} given", self.shape);
        Err(refuse(expected, self.strides()))
    }

    /// The distance between rows, where all other dimensions lie in one piece and rows apart from
    /// one another: that is what a view can have.
    pub(crate) fn row_stride(&self) -> Result<usize> {
        let row: usize = self.shape.iter().skip(1).product();
        if self.shape.contains(&0) {
            return Ok(row);
        }
        let mut inner =
            self.shape.iter().zip(self.strides()).zip(in_one_piece(&self.shape)).skip(1);
        if inner.any(|((&n, &stride), packed)| n > 1 && stride != packed) {
            return Err(self.not_rows(row));
        }
        match self.shape.first().zip(self.strides().first()) {
            Some((2.., &stride)) => match usize::try_from(stride) {
                Ok(stride) if stride >= row => Ok(stride),
                _ => Err(self.not_rows(row)),
            },
            _ => Ok(row),
        }
    }

    fn not_rows(&self, row: usize) -> Error {
        let inner = &in_one_piece(&self.shape)[..self.shape.len()];
        let inner: String = inner.iter().skip(1).map(|n| format!(", {n}")).collect();
        let expected = format!(
            "[{row} or more{inner}] for shape {} (rows of a view lie in one piece and apart; \
             the copying calls of Tensor, as copy_strided, take any)",
            self.shape
        );
        refuse(expected, self.strides())
    }

    /// Sizes of the dimensions.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.len()]
    }

    /// How many elements the last dimension has, and how far apart they lie; for a number, itself.
    pub(crate) fn last(&self) -> (usize, isize) {
        self.shape.last().copied().zip(self.strides().last().copied()).unwrap_or((1, 1))
    }

    /// Offset of the first element of the `i`th line along the last dimension, of as many as there are.
    pub(crate) fn line(&self, mut i: usize) -> isize {
        let outer = self.shape.iter().zip(self.strides()).rev().skip(1);
        outer
            .map(|(&n, &stride)| {
                let index = i % n;
                i /= n;
                // An offset between the least and the most, each of which is an isize.
                index as isize * stride
            })
            .sum()
    }
}

/// The strides as they were given, or as they are in one piece.
fn given(whole: &Layout, strides: Option<&[isize]>) -> Result<[isize; MAX_RANK]> {
    let Some(strides) = strides else {
        return Ok(in_one_piece(&whole.shape));
    };
    if strides.len() != whole.shape.len() {
        let expected = format!("one for each dimension of shape {}", whole.shape);
        return Err(refuse(expected, strides));
    }
    let mut all = [0; MAX_RANK];
    all[..strides.len()].copy_from_slice(strides);
    Ok(all)
}

/// Strides of elements that follow one another.
fn in_one_piece(shape: &Shape) -> [isize; MAX_RANK] {
    let (mut all, mut inner) = ([0; MAX_RANK], 1isize);
    for (stride, &n) in all.iter_mut().zip(&**shape).rev() {
        *stride = inner;
        // Sizes whose product is larger have no elements, or were refused.
        inner = inner.saturating_mul(isize::try_from(n).unwrap_or(isize::MAX));
    }
    all
}

fn refuse(expected: impl Into<String>, strides: &[isize]) -> Error {
    Error::Value { argument: "strides", expected: expected.into(), got: format!("{strides:?}") }
}
