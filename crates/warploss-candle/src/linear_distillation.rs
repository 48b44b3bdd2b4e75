//! Distillation from hidden states: of neither side are the logits ever all in memory.

use crate::graph::{result, scaled};
use crate::linear::outputs;
use crate::memory::{Made, device, in_rows, lend, lend_some, told};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;
use warploss::{
    DistillationInput, Divergence, JsDivLogits, LinearDistillation, LinearHead, Reduction,
};

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

/// Hidden states and the classifier that makes logits of them.
#[derive(Debug, Clone)]
pub struct LinearSide {
    /// `[D]` or `[N, D]`.
    pub input: Tensor,
    /// `[V, D]`.
    pub linear_weight: Tensor,
    /// `[V]`.
    pub linear_bias: Option<Tensor>,
    /// What each row's logits are divided by; f32, one a row.
    pub temperature: Option<Tensor>,
}

impl LinearSide {
    /// Without a bias and temperatures.
    pub fn new(input: &Tensor, linear_weight: &Tensor) -> LinearSide {
        let [input, linear_weight] = [input, linear_weight].map(Tensor::clone);
        LinearSide { input, linear_weight, linear_bias: None, temperature: None }
    }

    /// With a bias.
    pub fn linear_bias(mut self, bias: &Tensor) -> Self {
        self.linear_bias = Some(bias.clone());
        self
    }

    /// With temperatures.
    pub fn temperature(mut self, temperature: &Tensor) -> Self {
        self.temperature = Some(temperature.detach());
        self
    }

    fn in_rows(&self) -> Result<LinearSide> {
        let some = |tensor: &Option<Tensor>| tensor.as_ref().map(in_rows).transpose();
        Ok(LinearSide {
            input: in_rows(&self.input)?,
            linear_weight: in_rows(&self.linear_weight)?,
            linear_bias: some(&self.linear_bias)?,
            temperature: some(&self.temperature)?,
        })
    }

    /// What has a gradient.
    fn of(&self) -> Vec<&Tensor> {
        let all = [Some(&self.input), Some(&self.linear_weight), self.linear_bias.as_ref()];
        all.into_iter().flatten().collect()
    }
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
        if teacher.of().iter().any(|tensor| tensor.track_op()) {
            candle_core::bail!("teacher: expected tensors without a gradient (detach them)");
        }
        let (student, teacher) = (student.in_rows()?, teacher.in_rows()?);
        let row_weight = row_weight.map(|weight| in_rows(&weight.detach())).transpose()?;
        let of = student.of();
        let tracked = of.iter().any(|tensor| tensor.track_op());
        let mut loss = Made::new(student.input.device(), DType::F32, &[])?;
        let made = of.iter().map(|t| t.track_op().then(|| Made::like(t)).transpose());
        let mut made = made.collect::<Result<Vec<_>>>()?;
        let device = device(student.input.device())?;
        {
            lend!(x = &student.input, "student.input");
            lend!(w = &student.linear_weight, "student.linear_weight");
            lend_some!(b = student.linear_bias, "student.linear_bias");
            lend_some!(t = student.temperature, "student.temperature");
            let of_student = LinearHead { linear_bias: b, temperature: t, ..LinearHead::new(x, w) };
            lend!(x = &teacher.input, "teacher.input");
            lend!(w = &teacher.linear_weight, "teacher.linear_weight");
            lend_some!(b = teacher.linear_bias, "teacher.linear_bias");
            lend_some!(t = teacher.temperature, "teacher.temperature");
            let of_teacher = LinearHead { linear_bias: b, temperature: t, ..LinearHead::new(x, w) };
            lend_some!(row_weight = row_weight, "row_weight");
            let input =
                DistillationInput { row_weight, ..DistillationInput::new(of_student, of_teacher) };
            let to = loss.view_mut()?;
            match tracked {
                false => self.options.forward_into(&device, &input, to),
                true => {
                    let gradients = outputs(&mut made)?;
                    self.options.forward_backward_into(&device, &input, 1.0, gradients, to)
                }
            }
            .map_err(told)?;
        }
        let loss = loss.tensor();
        // What nobody asks for is not made, and not handed out.
        let ready = made.into_iter().map(|made| made.map_or_else(|| loss.clone(), Made::tensor));
        let ready: Vec<Tensor> = ready.collect();
        result(&loss, &of, Arc::new(move |grad: &Tensor| scaled(&ready, grad)))
    }
}
