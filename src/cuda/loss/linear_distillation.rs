//! Distillation from hidden states on a CUDA device: a chunk of both sides' logits after another, products of the
//! driver's before and after the row kernel of the divergence of two rows of logits, in place on the student's.
//! The gradient of the teacher's logits, where somebody asks, lies beside them.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::base::tensor::TensorMut;
use crate::code::args::{JsDivLogitsArgs, LossOutputs, PartArgument, RowArgument, SumArgs};
use crate::code::variants::{Data, Loss};
use crate::cuda::driver::product::Panel;
use crate::cuda::loss::js_div_logits::OfRows;
use crate::cuda::loss::linear_cross_entropy::budget::{Budget, Needs, Sizes};
use crate::cuda::loss::linear_cross_entropy::chunks::{Chunks, Factors, Gradients, Walk};
use crate::cuda::loss::linear_cross_entropy::rows::RowNumbers;
use crate::cuda::matrix::accumulator::Sum;
use crate::cuda::matrix::products::{Workspace, padded};
use crate::cuda::schedule::batch::RowFactors;
use crate::cuda::schedule::rows::{Lie, Work};
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::spec::grad_output::GradOutput;
use crate::spec::linear_cross_entropy::{LinearGradOut, LinearPath, LinearPlan};
use crate::spec::linear_distillation::{Call, CheckedDistillation, CheckedHead, wanted};

impl Cuda {
    pub(crate) fn linear_distillation(
        &self,
        checked: &CheckedDistillation<'_>,
        call: Call<'_>,
    ) -> Result<()> {
        let (grad_output, gradients, loss) = match call {
            Call::Forward { loss } => (GradOutput::default(), [None, None], Some(loss)),
            Call::Backward { grad_output, gradients, loss } => {
                let sides = [gradients.student, gradients.teacher];
                (grad_output, sides.map(|side| wanted(&side).then_some(side)), loss)
            }
        };
        let back = gradients.each_ref().map(Option::is_some);
        let budget = self.distillation_budget(checked, back)?;
        let heads = [&checked.student, &checked.teacher];
        let [to_student, to_teacher] = gradients;
        let into = [
            to_student.map(|out| Side::new(self, heads[0], out)).transpose()?,
            to_teacher.map(|out| Side::new(self, heads[1], out)).transpose()?,
        ];
        let loss = loss.map(|loss| self.output("loss", loss, false)).transpose()?;

        let named = heads.map(|head| (head.names.temperature, head.of.temperature));
        let mut student = RowNumbers::of(self, checked.rows(), named[0], checked.row_weight)?;
        let of_rows = OfRows::new(self, &checked.of_rows, &grad_output, student.factors())?;
        let mut args = of_rows.args(&checked.of_rows)?;
        let mut losses = Workspace::new(self, 1);
        let mut sum = SumArgs::default();
        if let Some(loss) = &loss {
            match checked.of_rows.options.reduction {
                Reduction::None => args.loss = loss.address,
                _ => {
                    args.loss = losses.packed(checked.rows(), DType::F32)?.address;
                    sum = of_rows.census.sum(([args.loss, 0], false), [loss.address, 0]);
                }
            }
        }
        let labels = (args.labels, args.rows.classes);
        let mut given = Vec::new();
        if back[0] || back[1] {
            given.push(&mut args.upstream);
        }
        let labelled = checked.of_rows.labels.is_some();
        // SAFETY: shapes were checked (`CheckedDistillation`); outputs are borrowed exclusively.
        unsafe {
            // Gradients of logits are divided by their side's temperatures when they are there.
            student.prepare(labelled.then_some(labels), &mut given, false)?;
            let teacher = student.beside(named[1])?;
            if teacher.has_temperature() {
                let factors = RowFactors { of_teacher: true, ..teacher.factors() };
                of_rows.check(self, &checked.of_rows, factors)?;
            }
            let numbers = [&student, &teacher];
            let into = into.each_ref().map(|side| side.as_ref().map(Side::gradients));
            self.distil(checked, &budget, numbers, (args, into))?;
            student.weigh(&LossOutputs { loss: args.loss, ..LossOutputs::default() })?;
        }
        self.add_up_rows(sum)?;
        let gradients = into.into_iter().flatten().flat_map(Side::outputs);
        self.read_back([loss].into_iter().chain(gradients))
    }

    pub(crate) fn distillation_plan(
        &self,
        checked: &CheckedDistillation<'_>,
        back: [bool; 2],
    ) -> Result<LinearPlan> {
        let budget = self.distillation_budget(checked, back)?;
        Ok(LinearPlan {
            path: LinearPath::Chunked,
            chunk_rows: budget.rows,
            workspace_bytes: budget.bytes,
        })
    }

    fn distillation_budget(
        &self,
        checked: &CheckedDistillation<'_>,
        back: [bool; 2],
    ) -> Result<Budget> {
        let options = checked.options;
        if options.path == LinearPath::Tiled {
            return options.path.refuse("CUDA", "auto or chunked");
        }
        let mut all = Needs::default();
        for (head, back) in [&checked.student, &checked.teacher].into_iter().zip(back) {
            let sizes = Sizes {
                n: checked.rows(),
                features: head.features,
                positions: 1,
                classes: checked.classes(),
                dtype: head.of.input.dtype(),
                soft: false,
                back,
                narrow_weights: false,
            };
            let Needs { fixed, row, least_room, wide, .. } = sizes.needs();
            all.fixed = all.fixed.saturating_add(fixed);
            all.row += row;
            // A side's products after the other's.
            all.least_room = all.least_room.max(least_room);
            all.wide = all.wide.saturating_add(wide);
        }
        if back[1] {
            all.row += 4 * padded(checked.classes());
        }
        Budget::of(all, checked.rows(), options.workspace)
    }

    /// All chunks, by a plan of all rows: no row's numbers depend on its chunk.
    ///
    /// # Safety
    /// The arguments are of the checked call, and outputs are borrowed exclusively.
    unsafe fn distil<'p>(
        &'p self,
        checked: &CheckedDistillation<'p>,
        budget: &Budget,
        numbers: [&RowNumbers<'p>; 2],
        (mut args, into): (JsDivLogitsArgs, [Option<Gradients>; 2]),
    ) -> Result<()> {
        let sizes = |head: &CheckedHead<'_>| [checked.rows(), checked.classes(), head.features];
        let [student, teacher] = [&checked.student, &checked.teacher];
        if checked.rows() == 0 {
            for (gradients, head) in into.iter().zip([student, teacher]) {
                let Some(gradients) = gradients else { continue };
                // SAFETY: gradients were checked to have the shapes of what they belong to.
                unsafe { gradients.clear(self, [checked.classes(), head.features])? };
            }
            return Ok(());
        }
        let chunks = [
            Chunks::of(self, factors(self, student)?, sizes(student), (budget, numbers[0]))?,
            Chunks::of(self, factors(self, teacher)?, sizes(teacher), (budget, numbers[1]))?,
        ];
        let lie = Lie::Whole { aligned: chunks.iter().all(Chunks::aligned) };
        let kernels = (Loss::JsDivLogits, Data::F32, Work::Fused);
        let planned = self.planned(kernels, args.rows(), lie, budget.rows)?;
        let walks = [Walk::new(&chunks[0], into[0])?, Walk::new(&chunks[1], into[1])?];
        let [x, y] = [chunks[0].logits, chunks[1].logits];
        let mut beside = Workspace::new(self, budget.rows);
        let of_teacher = match into[1] {
            Some(_) => Some(beside.panel(checked.classes(), DType::F32)?),
            None => None,
        };
        let back = into[0].is_some() || into[1].is_some();
        let slopes = [into[0].map(|_| x), of_teacher];
        for part in chunks[0].parts() {
            let mut args = args.part(part.from, part.n);
            let rows = args.rows();
            (rows.x, rows.x_stride) = (x.address, x.stride as i64);
            if back {
                (rows.y, rows.y_stride) = (x.address, x.stride as i64);
            }
            (args.target.values, args.target.stride) = (y.address, y.stride as i64);
            if let Some(panel) = of_teacher {
                args.target.gradient = panel.address;
                args.target.gradient_stride = panel.stride as i64;
            }
            let sizes = [part.n, checked.classes()];
            // SAFETY: the caller's contract; buffers have as many rows as the longest chunk.
            unsafe {
                let hidden = [walks[0].logits(part)?, walks[1].logits(part)?];
                planned.launch(args)?;
                for side in 0..2 {
                    let Some(slopes) = slopes[side] else { continue };
                    numbers[side].divide(slopes, part.from, sizes)?;
                    walks[side].products(part, hidden[side], slopes)?;
                }
            }
        }
        // SAFETY: the caller's contract; every chunk's product is on the stream.
        unsafe {
            walks[0].settle()?;
            walks[1].settle()
        }
    }
}

/// Where a side's gradients go.
struct Side<'a, 'p> {
    input: Option<Output<'a, 'p>>,
    weight: Option<Output<'a, 'p>>,
    bias: Option<Output<'a, 'p>>,
    accumulate: bool,
    accumulate_input: bool,
}

impl<'a, 'p: 'a> Side<'a, 'p> {
    fn new(cuda: &'p Cuda, head: &CheckedHead<'_>, out: LinearGradOut<'a>) -> Result<Self> {
        let names = head.names;
        let LinearGradOut { accumulate, accumulate_input, .. } = out;
        let new = |name, to: Option<TensorMut<'a>>, add| {
            to.map(|to| cuda.output(name, to, add)).transpose()
        };
        Ok(Side {
            input: new(names.grad_input, out.input, accumulate_input)?,
            weight: new(names.grad_weight, out.linear_weight, accumulate)?,
            bias: new(names.grad_bias, out.linear_bias, accumulate)?,
            accumulate,
            accumulate_input,
        })
    }

    fn gradients(&self) -> Gradients {
        let to = |add| move |out: &Output<'_, '_>| Sum { to: Panel::from(out), add };
        Gradients {
            input: self.input.as_ref().map(to(self.accumulate_input)),
            weight: self.weight.as_ref().map(to(self.accumulate)),
            rest: None,
            bias: self.bias.as_ref().map(to(self.accumulate)),
        }
    }

    fn outputs(self) -> [Option<Output<'a, 'p>>; 3] {
        [self.input, self.weight, self.bias]
    }
}

fn factors<'p>(cuda: &'p Cuda, head: &CheckedHead<'p>) -> Result<Factors<'p>> {
    let (names, of) = (head.names, &head.of);
    Ok(Factors {
        input: cuda.input(names.input, of.input)?,
        weight: cuda.input(names.weight, of.linear_weight)?,
        bias: of.linear_bias.map(|bias| cuda.input(names.bias, bias)).transpose()?,
    })
}
