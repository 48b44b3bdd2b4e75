//! Elementwise losses on a CUDA device: `kernels/schedule/elementwise.cuh` over the functors of
//! `kernels/loss/mse.cu` and its like, between a sum of weights and a total.

use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::shape::{MAX_RANK, Shape};
use crate::base::validate::Range;
use crate::code::args;
use crate::code::args::ElementwiseArgs;
use crate::code::element_plan::{PassPlan, SumPlan, Walk};
use crate::code::variants::{Batch, Data, ELEMENT_THREADS, ElementEntry, PACK_BYTES, Variant};
use crate::cuda::driver::{Launch, Turn};
use crate::cuda::schedule::elements::parts::{Cut, Streams};
use crate::cuda::schedule::elements::{
    NamedInput, NamedOutput, Naming, Seen, Tensors, address, lay_out,
};
use crate::cuda::schedule::rows::data;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::Output;
use crate::cuda::stream::pool::Block;
use crate::spec::elementwise as loss;
use crate::spec::elementwise::{Call, Checked, Denominator, Functor, OPERANDS, Operand, Space};
use crate::spec::grad_output::GradOutput;

impl Cuda {
    pub(crate) fn elementwise(&self, checked: &Checked<'_>, call: Call<'_>) -> Result<()> {
        let Call { input, target, grad_output, loss, grad_input, grad_target, grad_third } = call;
        let elements = checked.shape.iter().product();
        let input_on_device = input.view().host_data().is_none();
        let covers = |shape: Shape| shape.iter().product::<usize>() == elements;
        // A gradient that is summed back is made of all elements at once.
        let whole = (grad_input.is_some() && !covers(input.view().shape()))
            || (grad_target.is_some() && !covers(target.shape()))
            || grad_third.as_ref().is_some_and(|grad| !covers(grad.shape()));
        let by = Naming { cuda: self, elements, whole };
        let total = checked.reduction != Reduction::None;
        // What is written, the input too where it becomes its gradient.
        let (loss, values) = match loss {
            Some(t) if total => (Some(self.output("loss", t, false)?), None),
            Some(t) => (None, Some(by.output("loss", t, false)?)),
            None => (None, None),
        };
        let grad_y = grad_target.map(|t| by.output("grad_target", t, false)).transpose()?;
        let grad_third = grad_third.map(|t| by.output("grad_variance", t, false)).transpose()?;
        let (x, grad_x, in_place) = match input {
            loss::Input::Kept(x) => {
                let grad = grad_input.map(|t| by.output("grad_input", t, false)).transpose()?;
                (Some(by.input("input", x)?), grad, false)
            }
            loss::Input::Consumed(x) => (None, Some(by.output("input", x, true)?), true),
        };
        let y = by.input("target", target)?;
        let weight = checked.weight.map(|t| by.input("weight", t)).transpose()?;
        let third = checked.third.as_ref();
        let third = third.map(|t| by.input(t.argument(), t.tensor())).transpose()?;
        let (number, single, upstream) = match grad_output {
            GradOutput::Number(g) => (g, None, None),
            GradOutput::Tensor(g) if g.elements() == 1 => {
                (1.0, Some(self.input("grad_output", g)?), None)
            }
            GradOutput::Tensor(g) => (1.0, None, Some(by.input("grad_output", g)?)),
        };
        // The third tensor may lack the last dimension.
        let as_seen = |tensor: Seen| Seen {
            shape: match (&checked.third, tensor.address) {
                (None, _) | (_, 0) => tensor.shape,
                (Some(third), _) => third.seen(&checked.shape),
            },
            ..tensor
        };
        let read = |t: Option<&NamedInput<'_>>| t.map(|t| t.seen(&checked.shape));
        let written = |t: &Option<NamedOutput<'_, '_>>| t.as_ref().map(|t| t.seen(&checked.shape));
        let seen = Tensors([
            read(x.as_ref()).or(written(&grad_x)),
            read(Some(&y)),
            read(weight.as_ref()),
            read(third.as_ref()).map(as_seen),
            read(upstream.as_ref()),
            written(&values),
            written(&grad_x),
            written(&grad_y),
            written(&grad_third).map(as_seen),
        ]);
        // What lies on the host was looked at there.
        let third_on_device = checked.third.is_some_and(|t| t.tensor().host_data().is_none());
        for (operand, on_device) in
            [(Operand::Input, input_on_device), (Operand::Third, third_on_device)]
        {
            if let (Some(range), Some(tensor), true) =
                (checked.range(operand), seen.get(operand), on_device)
            {
                self.none_is_outside(*tensor, operand, range)?;
            }
        }
        let space = seen.space(checked.shape);
        let mut args = seen.args(&space)?;
        args.number = number.into();
        if let Some(g) = &single {
            (args.single, args.upstream_kind) = (g.address, args::kind(g.dtype));
        }
        args.options = checked.formula.options;
        let weights = match checked.denominator {
            Denominator::Number(n) => {
                args.denominator = n;
                None
            }
            Denominator::Weights => {
                let sum = weight.as_ref().map(|w| self.sum_of_weights(&mut args, &space, w));
                sum.transpose()?
            }
        };
        let element = Element { functor: checked.formula.functor, data: data(y.dtype())?, space };
        // What is summed back reads the input before it may become its gradient.
        for side in [Operand::GradInput, Operand::GradTarget, Operand::GradThird] {
            if seen.get(side).is_some() && element.is_summed(side) {
                self.sum_back(&element, &seen, side, args)?;
                *address(&mut args, side) = 0;
            }
        }
        let mut streams = Streams::default();
        streams.reads(Operand::Input, x.as_ref());
        streams.reads(Operand::Target, Some(&y));
        streams.reads(Operand::Weight, weight.as_ref());
        streams.reads(Operand::Third, third.as_ref());
        streams.reads(Operand::Upstream, upstream.as_ref());
        let values = streams.writes(Operand::Loss, values, false);
        let grad_x = streams.writes(Operand::GradInput, grad_x, in_place);
        let grad_y = streams.writes(Operand::GradTarget, grad_y, false);
        let grad_third = streams.writes(Operand::GradThird, grad_third, false);
        self.pass(&element, args, loss.as_ref(), streams)?;
        drop(weights);
        self.read_back([loss, values, grad_x, grad_y, grad_third])
    }

    /// Notes the first element of a tensor on the device, the input or the variance, that is outside of
    /// its range.
    fn none_is_outside(&self, tensor: Seen, operand: Operand, range: Range) -> Result<()> {
        let mut all = [None; OPERANDS];
        all[Operand::Third as usize] = Some(tensor);
        let tensors = Tensors(all);
        let space = tensors.space(tensor.shape);
        if space.count() == 0 {
            return Ok(());
        }
        let blocks = PassPlan::strided(space.count(), self.driver.card()).blocks;
        let partials = self.pool.take("workspace", blocks as usize * size_of::<f64>())?;
        let args = ElementwiseArgs {
            partials: partials.address(),
            parts: blocks,
            status: self.status()?,
            options: [range.largest(), 0.0],
            // As the stream that reads the error tells them apart.
            side: (operand == Operand::Input).into(),
            ..tensors.args(&space)?
        };
        // SAFETY: the tensor has its own shape; a number a block; the word is zeroed or the stream's.
        unsafe {
            self.launch_batch(Batch::Outside, blocks, args::bytes(&args))?;
            self.launch_batch(Batch::OutsideTotal, 1, args::bytes(&args))
        }
    }

    /// Puts Σ of the weights on the device, in memory that lasts as long as the block.
    fn sum_of_weights(
        &self,
        args: &mut ElementwiseArgs,
        space: &Space,
        weight: &NamedInput<'_>,
    ) -> Result<Block<'_>> {
        let total = self.pool.take("workspace", 2 * size_of::<f64>())?;
        args.weights = total.address();
        // Weights lie like nothing else in particular: an element a thread.
        let blocks = PassPlan::strided(space.count(), self.driver.card()).blocks;
        let partials = self.pool.take("workspace", 2 * blocks as usize * size_of::<f64>())?;
        let sum = ElementwiseArgs { partials: partials.address(), parts: blocks, ..*args };
        let mut streams = Streams::default();
        streams.reads(Operand::Weight, Some(weight));
        let cut = Cut::strided(space.count(), blocks);
        // SAFETY: weights were checked to have the space's shape; two numbers a thread and two
        // partial ones a block.
        unsafe {
            self.by_parts((sum, 2), cut, streams, |args| {
                self.launch_batch(Batch::WeightsSum, blocks, args::bytes(args))
            })?;
            self.launch_batch(Batch::WeightsSumTotal, 1, args::bytes(&sum))?;
        }
        Ok(total)
    }

    /// One pass over all elements, and the total of their losses where one is wanted.
    fn pass(
        &self,
        element: &Element,
        mut args: ElementwiseArgs,
        total: Option<&Output<'_, '_>>,
        streams: Streams<'_, '_, '_>,
    ) -> Result<()> {
        let named = Operand::WRITTEN.map(|o| *address(&mut args, o) != 0 || streams.written(o));
        let written = |operand| {
            Operand::WRITTEN.into_iter().zip(named).any(|(o, named)| named && o == operand)
        };
        let gradient = [Operand::GradInput, Operand::GradTarget, Operand::GradThird]
            .map(written)
            .contains(&true);
        let value = total.is_some() || written(Operand::Loss);
        if args.count == 0 || !(gradient || value) {
            return match total {
                Some(loss) => self.total(args, loss),
                None => Ok(()),
            };
        }
        let plan = PassPlan::new(&element.space, written, element.data, self.driver.card());
        let (entry, lead) = match plan.walk {
            Walk::Strided => (ElementEntry::Strided, 0),
            Walk::Lines { tile, tiles, units, lead } => {
                (args.part, args.tiles, args.units) = (tile as i64, tiles as i64, units as i64);
                args.lead = (lead == Operand::Target).into();
                let lead = if lead == Operand::Target { args.y } else { args.x };
                (if gradient { ElementEntry::Gradient } else { ElementEntry::Forward }, lead)
            }
        };
        let sums = if total.is_some() { plan.blocks } else { 0 };
        let partials = self.pool.take("workspace", sums as usize * size_of::<f64>())?;
        if total.is_some() {
            (args.partials, args.parts) = (partials.address(), sums);
        }
        // What comes block by block begins as allocations do.
        let aligned = lead.is_multiple_of(PACK_BYTES as u64);
        let cut = Cut::new(&element.space, &plan, element.data, aligned);
        // SAFETY: the kernel goes through the units of its arguments, as the cut shares them out.
        unsafe {
            self.by_parts((args, 1), cut, streams, |args| {
                self.launch_element(element, entry, plan.blocks, args)
            })?;
        }
        match total {
            Some(loss) => self.total(args, loss),
            None => Ok(()),
        }
    }

    /// The loss, of the sums that a pass has left.
    fn total(&self, mut args: ElementwiseArgs, loss: &Output<'_, '_>) -> Result<()> {
        args.loss = loss.address;
        // SAFETY: the loss was checked to be one f32; partial sums are as many as the pass said.
        unsafe { self.launch_batch(Batch::LossTotal, 1, args::bytes(&args)) }
    }

    /// The gradient of a tensor that was broadcast.
    fn sum_back(
        &self,
        element: &Element,
        seen: &Tensors,
        side: Operand,
        mut args: ElementwiseArgs,
    ) -> Result<()> {
        let space = &element.space;
        let summed = |d: usize| space.stride(side, d) == 0;
        let rank = space.sizes().len();
        // The kept dimensions, then the summed ones.
        let (mut order, mut kept, mut outputs, mut terms) = ([0; MAX_RANK], 0, 1, 1);
        for d in (0..rank).filter(|&d| !summed(d)) {
            (order[kept], kept, outputs) = (d, kept + 1, outputs * space.sizes()[d]);
        }
        for (to, d) in order[kept..].iter_mut().zip((0..rank).filter(|&d| summed(d))) {
            (*to, terms) = (d, terms * space.sizes()[d]);
        }
        if outputs == 0 {
            return Ok(());
        }
        let plan = SumPlan::new(outputs, terms, summed(rank - 1), self.driver.card());
        let (Some(blocks), Some(totals)) =
            (plan.blocks(outputs), launch_blocks(outputs, ELEMENT_THREADS as usize / 32))
        else {
            return Err(Error::Value {
                argument: match side {
                    Operand::GradInput => "input",
                    Operand::GradTarget => "target",
                    _ => "variance",
                },
                expected: "a gradient that a launch can count".into(),
                got: format!("{outputs} elements"),
            });
        };
        lay_out(&mut args, space, &order[..rank]);
        args.kept = kept as u32;
        (args.outputs, args.terms) = (outputs as i64, terms as i64);
        (args.parts, args.part) = (plan.parts as u32, plan.part as i64);
        args.lanes = plan.lanes;
        args.side = match side {
            Operand::GradInput => 0,
            Operand::GradTarget => 1,
            _ => 2,
        };
        args.kind = seen.get(side).map_or(0, |t| t.kind);
        let sums = if plan.parts > 1 { plan.parts * outputs } else { 0 };
        let partials = self.pool.take("workspace", sums * size_of::<f64>())?;
        args.partials = partials.address();
        self.launch_element(element, ElementEntry::SumBack, blocks, &args)?;
        if plan.parts > 1 {
            // SAFETY: a partial sum a part and output; the gradient has its strides.
            unsafe { self.launch_batch(Batch::SumBackTotal, totals, args::bytes(&args))? };
        }
        Ok(())
    }

    fn launch_element(
        &self,
        element: &Element,
        entry: ElementEntry,
        blocks: u32,
        args: &ElementwiseArgs,
    ) -> Result<()> {
        let variant = Variant::Element(element.functor, entry, element.data);
        let launch = Launch {
            turn: Turn::Alone,
            kernel: self.driver.kernel(variant)?,
            blocks,
            threads: ELEMENT_THREADS,
            cluster: 1,
            shared: 0,
            args: args::bytes(args),
        };
        // SAFETY: every tensor was checked to have the space's shape or to broadcast to it, and
        // lies as its strides say; what is written is borrowed exclusively; workspaces have a
        // number a block or part.
        unsafe { self.driver.launch(launch) }
    }
}

/// What a call's launches share.
struct Element {
    functor: Functor,
    data: Data,
    space: Space,
}

impl Element {
    /// Whether a gradient's elements are sums.
    fn is_summed(&self, side: Operand) -> bool {
        (0..self.space.sizes().len()).any(|d| self.space.stride(side, d) == 0)
    }
}

/// Blocks of so many warps each, a warp an output.
fn launch_blocks(outputs: usize, warps: usize) -> Option<u32> {
    i32::try_from(outputs.div_ceil(warps)).ok().map(|n| n as u32)
}
