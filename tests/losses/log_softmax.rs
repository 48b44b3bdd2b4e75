//! Log-softmax as a case.

use crate::data::{Data, FLOATS, Logits, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got};
use proptest::prelude::*;
use warploss::check::reference::{self, Lines};
use warploss::{DType, Device, LogSoftmax, Result};

#[derive(Debug, Clone)]
pub(crate) struct LogSoftmaxCase {
    pub(crate) input: Data,
    pub(crate) grad_output: Data,
    pub(crate) dim: isize,
}

impl LogSoftmaxCase {
    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let loss = LogSoftmax::dim(self.dim);
        let output = loss.forward(device, self.input.view())?;
        let grad = loss.backward(device, self.input.view(), self.grad_output.view())?;
        Ok(vec![Got::new("output", output.view()), Got::new("grad_input", grad.view())])
    }

    fn into(&self, device: &Device, output: DType) -> Result<Vec<Got>> {
        let loss = LogSoftmax::dim(self.dim);
        let mut output = Data::poison(output, self.input.shape()).padded(1);
        loss.forward_into(device, self.input.view(), output.view_mut())?;
        let mut grad = Data::poison(self.input.dtype(), self.input.shape()).padded(4);
        let g = self.grad_output.view();
        loss.backward_into(device, self.input.view(), g, grad.view_mut())?;
        output.assert_padding_is_poison("output");
        grad.assert_padding_is_poison("grad_input");
        Ok(vec![Got::new("output", output.view()), Got::new("grad_input", grad.view())])
    }
}

impl Case for LogSoftmaxCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let (shape, x, g) = (self.input.shape(), self.input.values(), self.grad_output.values());
        let output = reference::log_softmax(shape, self.dim, &x);
        let grad = reference::log_softmax_grad(shape, self.dim, &x, &g);
        vec![Expected::term("output", output), Expected::gradient("grad_input", grad)]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![
            ("allocating", self.allocating(device)),
            ("into f32", self.into(device, DType::F32)),
            ("into the input's dtype", self.into(device, self.input.dtype())),
        ]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_input", self.input.values())]
    }

    fn objective(&self, _: &str, input: &[f64]) -> f64 {
        let output = reference::log_softmax(self.input.shape(), self.dim, input);
        output.iter().zip(self.grad_output.values()).map(|(y, g)| y * g).sum()
    }
}

/// What a random case along dimensions is made from; printed when it fails.
#[derive(Debug, Clone)]
pub(crate) struct LineRecipe {
    pub(crate) seed: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) dims: Vec<usize>,
    pub(crate) negative: bool,
    pub(crate) padding: usize,
    pub(crate) dtypes: (DType, bool),
    pub(crate) logits: Logits,
}

/// Shapes of any rank; a dimension is long, most are short.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    let short = || 1usize..7;
    let long = || prop::sample::select(&[1usize, 2, 7, 8, 9, 31, 33, 100, 2047, 2049, 4097][..]);
    prop_oneof![
        Just(vec![]),
        long().prop_map(|a| vec![a]),
        (0usize..5, long()).prop_map(|(a, b)| vec![a, b]),
        (long(), 0usize..5).prop_map(|(a, b)| vec![a, b]),
        (short(), long(), short()).prop_map(|(a, b, c)| vec![a, b, c]),
        (short(), short(), short(), short()).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
    ]
}

/// Random cases along `count` dimensions, as far as there are so many.
pub(crate) fn line_recipes(
    count: std::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = LineRecipe> {
    let shape_and_dims = shapes().prop_flat_map(move |shape| {
        let rank = shape.len().max(1);
        let dims: Vec<usize> = (0..rank).collect();
        let most = (*count.end()).min(rank);
        (Just(shape), prop::sample::subsequence(dims, *count.start()..=most).prop_shuffle())
    });
    let dtypes = (prop::sample::select(&FLOATS[..]), any::<bool>());
    let logits = prop::sample::select(&Logits::ALL[..]);
    (any::<u64>(), shape_and_dims, any::<bool>(), 0usize..5, dtypes, logits).prop_map(
        |(seed, (shape, dims), negative, padding, dtypes, logits)| LineRecipe {
            seed,
            shape,
            dims,
            negative,
            padding,
            dtypes,
            logits,
        },
    )
}

impl LineRecipe {
    /// The dimensions as a caller may write them.
    pub(crate) fn written_dims(&self) -> Vec<isize> {
        let rank = self.shape.len().max(1) as isize;
        let written = |&d: &usize| d as isize - if self.negative { rank } else { 0 };
        self.dims.iter().map(written).collect()
    }

    pub(crate) fn input(&self, rng: &mut Rng) -> Data {
        let lines = Lines::new(&self.shape, &self.dims);
        let by_line = self.logits.values(rng, lines.bases.len(), lines.offsets.len());
        let mut values = vec![0.0; by_line.len()];
        for (line, base) in lines.bases.iter().enumerate() {
            for (i, offset) in lines.offsets.iter().enumerate() {
                values[base + offset] = by_line[line * lines.offsets.len() + i];
            }
        }
        Data::floats(self.dtypes.0, &self.shape, &values).padded(self.padding)
    }

    /// An upstream gradient of `shape`, in f32 or the input's dtype.
    pub(crate) fn grad_output(&self, rng: &mut Rng, shape: &[usize]) -> Data {
        let dtype = if self.dtypes.1 { self.dtypes.0 } else { DType::F32 };
        Data::floats(dtype, shape, &rng.normals(shape.iter().product(), 1.0))
    }

    pub(crate) fn log_softmax(&self) -> LogSoftmaxCase {
        let mut rng = Rng(self.seed);
        let input = self.input(&mut rng);
        let grad_output = self.grad_output(&mut rng, &self.shape).padded(2);
        LogSoftmaxCase { input, grad_output, dim: self.written_dims()[0] }
    }
}

impl LogSoftmaxCase {
    /// A case of `log_softmax.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> LogSoftmaxCase {
        LogSoftmaxCase {
            input: golden.data("input").expect("input").padded(golden.name.len() % 3),
            grad_output: golden.data("grad_output").expect("grad_output"),
            dim: golden.dims()[0],
        }
    }
}
