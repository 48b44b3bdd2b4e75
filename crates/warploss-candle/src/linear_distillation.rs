//! Distillation from hidden states: of neither side are the logits ever all in memory.

use crate::LinearSide;
use crate::graph::{result, scaled};
use crate::linear::{lend_head, outputs};
use crate::memory::{Made, device, in_rows, lend_some, told};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;
use warploss::{DistillationInput, Divergence, JsDivLogits, LinearDistillation, Reduction};

/// The mean over rows of a divergence between a model and its teacher, both given by hidden states and a classifier, with
/// candle's backward of the model's: [`LinearDistillation`], options and all; f32.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use warploss_candle::{LinearDistillationLoss, LinearSide, warploss::Divergence};
/// let hidden = Var::new(&[[1.0f32, 2.0], [-1.0, 0.5]], &Device::Cpu)?;
/// let classifier = Var::new(&[[1.0f32, 0.0], [0.0, 1.0], [-1.0, 1.0]], &Device::Cpu)?;
/// let of_teacher = Tensor::new(&[[0.3f32], [-0.2]], &Device::Cpu)?;
/// let its_classifier = Tensor::new(&[[1.0f32], [0.5], [-2.0]], &Device::Cpu)?;
/// let student = LinearSide::new(&hidden, &classifier);
/// let teacher = LinearSide::new(&of_teacher, &its_classifier);
/// let loss = LinearDistillationLoss::from(Divergence::ReverseKl).forward(&student, &teacher, None)?;
/// assert!(loss.backward()?.get(&classifier).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LinearDistillationLoss {
    options: LinearDistillation<'static>,
}

impl From<Divergence> for LinearDistillationLoss {
    fn from(divergence: Divergence) -> Self {
        LinearDistillationLoss::new(JsDivLogits::default().divergence(divergence))
    }
}

impl LinearDistillationLoss {
    /// With the library's options of a divergence of logits, but for the reduction, which is the mean over rows.
    pub fn new(options: JsDivLogits<'static>) -> LinearDistillationLoss {
        LinearDistillationLoss { options: options.reduction(Reduction::BatchMean).into() }
    }

    /// [`LinearDistillation::max_workspace_bytes`].
    pub fn max_workspace_bytes(mut self, bytes: usize) -> Self {
        self.options = self.options.max_workspace_bytes(bytes);
        self
    }

    /// The divergence; each row's times its weight, f32 and one a row, where there are such.
    ///
    /// # Errors
    /// The library's, in its words; a teacher that has a gradient: detach it.
    pub fn forward(
        &self,
        student: &LinearSide,
        teacher: &LinearSide,
        row_weight: Option<&Tensor>,
    ) -> Result<Tensor> {
        if teacher.wanted().contains(&true) {
            candle_core::bail!("teacher: expected tensors without a gradient (detach them)");
        }
        let (student, teacher) = (student.in_rows()?, teacher.in_rows()?);
        let row_weight = row_weight.map(|weight| in_rows(&weight.detach())).transpose()?;
        let wanted = student.wanted();
        let mut loss = Made::new(student.input.device(), DType::F32, &[])?;
        let mut made = student.gradients(&wanted)?;
        let device = device(student.input.device())?;
        {
            lend_head!(of_student = &student, "student.");
            lend_head!(of_teacher = &teacher, "teacher.");
            lend_some!(row_weight = row_weight, "row_weight");
            let input =
                DistillationInput { row_weight, ..DistillationInput::new(of_student, of_teacher) };
            let to = loss.view_mut()?;
            match wanted.contains(&true) {
                false => self.options.forward_into(&device, &input, to),
                true => {
                    let gradients = outputs(&mut made)?;
                    self.options.forward_backward_into(&device, &input, 1.0, gradients, to)
                }
            }
            .map_err(told)?;
        }
        let (loss, ready) = (loss.tensor(), student.tensors(made)?);
        result(&loss, &student.of(), Arc::new(move |grad: &Tensor| scaled(&ready, grad)))
    }
}
