//! Negative log-likelihood.

use super::{Call, Draw, First, Labels, logits_shape};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::Tensor;
use crate::check::cases::Case;
use crate::check::random::Random;
use crate::check::subject::{Expected, Outcome, Quantity};
use crate::check::{reference, typed};
use crate::device::Device;
use crate::spec::nll::Nll;
use std::fmt;

pub(in crate::check) const DRAW: Draw = Draw { shape: logits_shape, call: draw };

/// Options and tensors, owned.
#[derive(Debug)]
struct NllCall(Labels);

impl NllCall {
    /// The loss with its options.
    fn loss(&self) -> Nll<'_> {
        let Labels { ignore_index, reduction, weight, .. } = &self.0;
        let options = Nll::default().ignore_index(*ignore_index).reduction(*reduction);
        match weight {
            Some(weight) => options.weight(weight.view()),
            None => options,
        }
    }
}

impl Call for NllCall {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }

    fn expect(&self, case: &Case) -> Result<Vec<Expected>> {
        let x = case.input()?.to_f64()?;
        let target = reference::indices(self.0.target.view())?;
        let g = reference::upstream(self.0.grad_output.view())?;
        let out = reference::nll(&self.loss(), &case.shape, &x, &target, &g);
        Ok(vec![
            Expected::loss(Quantity::Loss, out.loss, out.loss_size),
            Expected::gradient(Quantity::Gradient, out.grad_input),
        ])
    }

    /// Forward, backward, and the fused call on a copy of the input.
    fn compute(&self, device: &Device, case: &Case) -> Result<Vec<Outcome>> {
        let (input, target, nll) = (case.input()?, self.0.target.view(), self.loss());
        let g = self.0.grad_output.view();
        let loss = nll.forward(device, input, target)?;
        let grad = nll.backward(device, input, target, g)?;
        let mut memory = case.memory.clone();
        let mut fused = Tensor::zeros("loss", DType::F32, loss.shape())?;
        let view = typed::strided_mut(&mut memory, &case.shape, case.row_stride)?;
        nll.forward_backward_in_place(device, view, target, g, fused.view_mut())?;
        let pass = "forward-backward";
        let gradient = typed::strided(&memory, &case.shape, case.row_stride)?;
        Ok(vec![
            Outcome::new(Quantity::Loss, "forward", loss.view())?,
            Outcome::new(Quantity::Gradient, "backward", grad.view())?,
            Outcome::new(Quantity::Loss, pass, fused.view())?,
            Outcome::new(Quantity::Gradient, pass, gradient)?,
            Outcome::padding(case, pass, &memory)?,
        ])
    }

    /// All but the picked elements.
    fn unread(&self, case: &Case) -> Result<Vec<usize>> {
        let class_dim = usize::from(case.shape.len() > 1);
        let lines = reference::Lines::new(&case.shape, &[class_dim]);
        let target = reference::indices(self.0.target.view())?;
        let mut unread = Vec::new();
        for (base, &class) in lines.bases.iter().zip(&target) {
            let picked = (class != self.0.ignore_index).then_some(class as usize);
            let others = lines.offsets.iter().enumerate().filter(|(c, _)| Some(*c) != picked);
            unread.extend(others.map(|(_, offset)| base + offset));
        }
        Ok(unread)
    }
}

fn draw(random: &mut Random, first: &First<'_>) -> Result<Box<dyn Call>> {
    Ok(Box::new(NllCall(Labels::draw(random, first)?)))
}
