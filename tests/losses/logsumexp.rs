//! Log-sum-exp as a case.

use crate::data::{Data, Rng};
use crate::golden::Golden;
use crate::harness::{Case, Expected, Got};
use crate::log_softmax::LineRecipe;
use warploss::check::reference;
use warploss::{DType, Device, LogSumExp, Result};

#[derive(Debug, Clone)]
pub(crate) struct LogSumExpCase {
    pub(crate) input: Data,
    pub(crate) grad_output: Data,
    pub(crate) dims: Vec<isize>,
    pub(crate) keepdim: bool,
}

impl LogSumExpCase {
    fn loss(&self) -> Result<LogSumExp> {
        Ok(LogSumExp::dims(&self.dims)?.keepdim(self.keepdim))
    }

    fn allocating(&self, device: &Device) -> Result<Vec<Got>> {
        let output = self.loss()?.forward(device, self.input.view())?;
        let (x, g) = (self.input.view(), self.grad_output.view());
        let grad = self.loss()?.backward(device, x, output.view(), g)?;
        assert_eq!(&*output.shape(), self.grad_output.shape());
        Ok(vec![Got::new("output", output.view()), Got::new("grad_input", grad.view())])
    }

    fn into(&self, device: &Device) -> Result<Vec<Got>> {
        let mut output = Data::poison(DType::F32, self.grad_output.shape());
        let (x, g) = (self.input.view(), self.grad_output.view());
        self.loss()?.forward_into(device, x, output.view_mut())?;
        let mut grad = Data::poison(self.input.dtype(), self.input.shape()).padded(4);
        self.loss()?.backward_into(device, x, output.view(), g, grad.view_mut())?;
        grad.assert_padding_is_poison("grad_input");
        Ok(vec![Got::new("output", output.view()), Got::new("grad_input", grad.view())])
    }
}

impl Case for LogSumExpCase {
    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn expected(&self) -> Vec<Expected> {
        let (shape, x, g) = (self.input.shape(), self.input.values(), self.grad_output.values());
        let output = reference::logsumexp(shape, &self.dims, &x);
        let grad = reference::logsumexp_grad(shape, &self.dims, &x, &g);
        vec![Expected::term("output", output), Expected::gradient("grad_input", grad)]
    }

    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)> {
        vec![("allocating", self.allocating(device)), ("into", self.into(device))]
    }

    fn variables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("grad_input", self.input.values())]
    }

    fn objective(&self, _: &str, input: &[f64]) -> f64 {
        let output = reference::logsumexp(self.input.shape(), &self.dims, input);
        output.iter().zip(self.grad_output.values()).map(|(y, g)| y * g).sum()
    }
}

/// The shape that is left of `shape`.
pub(crate) fn reduced(shape: &[usize], dims: &[usize], keepdim: bool) -> Vec<usize> {
    let mut reduced = Vec::new();
    for (d, &size) in shape.iter().enumerate() {
        match dims.contains(&d) {
            false => reduced.push(size),
            true if keepdim => reduced.push(1),
            true => {}
        }
    }
    reduced
}

impl LineRecipe {
    pub(crate) fn logsumexp(&self) -> LogSumExpCase {
        let mut rng = Rng(self.seed);
        let input = self.input(&mut rng);
        let keepdim = self.seed & 1 == 1;
        let shape = reduced(&self.shape, &self.dims, keepdim);
        let grad_output = self.grad_output(&mut rng, &shape);
        LogSumExpCase { input, grad_output, dims: self.written_dims(), keepdim }
    }
}

impl LogSumExpCase {
    /// A case of `logsumexp.safetensors`.
    pub(crate) fn golden(golden: &Golden<'_>) -> LogSumExpCase {
        LogSumExpCase {
            input: golden.data("input").expect("input").padded(golden.name.len() % 3),
            grad_output: golden.data("grad_output").expect("grad_output"),
            dims: golden.dims(),
            keepdim: golden.options["keepdim"].as_bool().expect("keepdim"),
        }
    }
}
