//! Elementwise losses on a CUDA device: `kernels/schedule/elementwise.cuh` over the functors of
//! `kernels/loss/mse.cu` and its like, between a sum of weights and a total.

use crate::base::error::{Error, Result};
use crate::base::reduction::Reduction;
use crate::base::shape::{MAX_RANK, Shape};
use crate::code::args;
use crate::code::args::ElementwiseArgs;
use crate::code::element_plan::{PassPlan, SumPlan, Walk};
use crate::code::variants::{Batch, Data, ELEMENT_THREADS, ElementEntry, Variant};
use crate::cuda::driver::Launch;
use crate::cuda::schedule::lines::count;
use crate::cuda::schedule::rows::data;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::memory::{Input, Output};
use crate::cuda::stream::pool::Block;
use crate::spec::broadcast::strides;
use crate::spec::elementwise as loss;
use crate::spec::elementwise::{
    Call, Checked, Denominator, Functor, OPERANDS, Operand, Space, Strides,
};
use crate::spec::grad_output::GradOutput;

impl Cuda {
    pub(crate) fn elementwise(&self, checked: &Checked<'_>, call: Call<'_>) -> Result<()> {
        let Call { input, target, grad_output, loss, grad_input, grad_target } = call;
        // What is written, the input too where it becomes its gradient.
        let loss = loss.map(|t| self.output("loss", t, false)).transpose()?;
        let grad_y = grad_target.map(|t| self.output("grad_target", t, false)).transpose()?;
        let (x, grad_x, _kept) = match input {
            loss::Input::Kept(x) => {
                let grad = grad_input.map(|t| self.output("grad_input", t, false)).transpose()?;
                let x = self.input("input", x)?;
                (Seen::input(&x), grad, Some(x))
            }
            loss::Input::Consumed(x) => {
                let x = self.output("input", x, true)?;
                (Seen::output(&x), Some(x), None)
            }
        };
        let y = self.input("target", target)?;
        let weight = checked.weight.map(|t| self.input("weight", t)).transpose()?;
        let pos_weight = checked.pos_weight.map(|t| self.input("pos_weight", t)).transpose()?;
        let (number, upstream) = match grad_output {
            GradOutput::Number(g) => (g, None),
            GradOutput::Tensor(g) => (1.0, Some(self.input("grad_output", g)?)),
        };
        let single = upstream.as_ref().filter(|g| g.shape.iter().product::<usize>() == 1);
        let values = loss.as_ref().filter(|_| checked.reduction == Reduction::None);
        let seen = Tensors([
            Some(x),
            Some(Seen::input(&y)),
            weight.as_ref().map(Seen::input),
            pos_weight.as_ref().map(Seen::input),
            upstream.as_ref().filter(|_| single.is_none()).map(Seen::input),
            values.map(Seen::output),
            grad_x.as_ref().map(Seen::output),
            grad_y.as_ref().map(Seen::output),
        ]);
        let space = seen.space(checked.shape);
        let mut args = seen.args(&space)?;
        args.number = number.into();
        args.single = single.map_or(0, |g| g.address);
        args.upstream_kind = upstream.as_ref().map_or(0, |g| args::kind(g.dtype));
        args.options = checked.formula.options;
        let weights = match checked.denominator {
            Denominator::Number(n) => {
                args.denominator = n;
                None
            }
            Denominator::Weights => Some(self.sum_of_weights(&mut args, &space)?),
        };
        let element = Element { functor: checked.formula.functor, data: data(y.dtype)?, space };
        // What is summed back reads the input before it may become its gradient.
        for side in [Operand::GradInput, Operand::GradTarget] {
            if seen.get(side).is_some() && element.is_summed(side) {
                self.sum_back(&element, &seen, side, args)?;
                match side {
                    Operand::GradInput => args.grad_x = 0,
                    _ => args.grad_y = 0,
                }
            }
        }
        let total = loss.as_ref().filter(|_| values.is_none());
        self.pass(&element, args, total)?;
        drop(weights);
        self.read_back([loss, grad_x, grad_y])
    }

    /// Puts Σ of the weights on the device, in memory that lasts as long as the block.
    fn sum_of_weights(&self, args: &mut ElementwiseArgs, space: &Space) -> Result<Block<'_>> {
        let total = self.pool.take("workspace", 2 * size_of::<f64>())?;
        args.weights = total.address();
        // Weights lie like nothing else in particular: an element a thread.
        let blocks = PassPlan::strided(space.count(), self.driver.card()).blocks;
        let partials = self.pool.take("workspace", 2 * blocks as usize * size_of::<f64>())?;
        let sum = ElementwiseArgs { partials: partials.address(), parts: blocks, ..*args };
        // SAFETY: weights were checked to have the space's shape; two partial numbers a block.
        unsafe {
            if blocks > 0 {
                self.launch_batch(Batch::WeightsSum, blocks, args::bytes(&sum))?;
            }
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
    ) -> Result<()> {
        let gradient = args.grad_x != 0 || args.grad_y != 0;
        let value = total.is_some() || args.value != 0;
        if args.count == 0 || !(gradient || value) {
            return match total {
                Some(loss) => self.total(args, loss),
                None => Ok(()),
            };
        }
        let written = |o| address(&args, o) != 0;
        let plan = PassPlan::new(&element.space, written, element.data, self.driver.card());
        let entry = match plan.walk {
            Walk::Strided => ElementEntry::Strided,
            Walk::Lines { tile, tiles, units, lead } => {
                (args.part, args.tiles, args.units) = (tile as i64, tiles as i64, units as i64);
                args.lead = (lead == Operand::Target).into();
                if gradient { ElementEntry::Gradient } else { ElementEntry::Forward }
            }
        };
        let sums = if total.is_some() { plan.blocks } else { 0 };
        let partials = self.pool.take("workspace", sums as usize * size_of::<f64>())?;
        if total.is_some() {
            (args.partials, args.parts) = (partials.address(), sums);
        }
        self.launch_element(element, entry, plan.blocks, &args)?;
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
                argument: if side == Operand::GradInput { "input" } else { "target" },
                expected: "a gradient that a launch can count".into(),
                got: format!("{outputs} elements"),
            });
        };
        lay_out(&mut args, space, &order[..rank]);
        args.kept = kept as u32;
        (args.outputs, args.terms) = (outputs as i64, terms as i64);
        (args.parts, args.part) = (plan.parts as u32, plan.part as i64);
        args.lanes = plan.lanes;
        args.side = (side == Operand::GradTarget).into();
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

/// A tensor on the device.
#[derive(Debug, Clone, Copy)]
struct Seen {
    address: u64,
    kind: u32,
    shape: Shape,
    row_stride: usize,
}

impl Seen {
    fn input(tensor: &Input<'_>) -> Self {
        let (address, kind) = (tensor.address, args::kind(tensor.dtype));
        Seen { address, kind, shape: tensor.shape, row_stride: tensor.row_stride }
    }

    fn output(tensor: &Output<'_, '_>) -> Self {
        let (address, kind) = (tensor.address, args::kind(tensor.dtype));
        Seen { address, kind, shape: tensor.shape, row_stride: tensor.row_stride }
    }
}

/// The operands of a call, those that it has.
struct Tensors([Option<Seen>; OPERANDS]);

impl Tensors {
    fn get(&self, operand: Operand) -> Option<&Seen> {
        self.0[operand as usize].as_ref()
    }

    fn space(&self, shape: Shape) -> Space {
        let mut all: Strides = [[0; MAX_RANK]; OPERANDS];
        for (own, tensor) in all.iter_mut().zip(&self.0) {
            if let Some(tensor) = tensor {
                *own = strides(tensor.shape, tensor.row_stride, shape);
            }
        }
        Space::new(&shape, &all)
    }

    /// Addresses, types and strides.
    fn args(&self, space: &Space) -> Result<ElementwiseArgs> {
        let address = |o| self.get(o).map_or(0, |t| t.address);
        let kind = |o| self.get(o).map_or(0, |t| t.kind);
        let mut args = ElementwiseArgs {
            x: address(Operand::Input),
            y: address(Operand::Target),
            weight: address(Operand::Weight),
            pos_weight: address(Operand::PosWeight),
            upstream: address(Operand::Upstream),
            value: address(Operand::Loss),
            grad_x: address(Operand::GradInput),
            grad_y: address(Operand::GradTarget),
            count: count("input", space.count())?,
            weight_kind: kind(Operand::Weight),
            pos_weight_kind: kind(Operand::PosWeight),
            ..ElementwiseArgs::default()
        };
        let order: [usize; MAX_RANK] = std::array::from_fn(|d| d);
        lay_out(&mut args, space, &order[..space.sizes().len()]);
        Ok(args)
    }
}

/// Sizes and strides of the space's dimensions, in this order.
fn lay_out(args: &mut ElementwiseArgs, space: &Space, order: &[usize]) {
    // Without dimensions there is one element.
    (args.dims, args.sizes) = (order.len().max(1) as u32, [1; MAX_RANK]);
    args.strides = [[0; MAX_RANK]; OPERANDS];
    for (to, &d) in order.iter().enumerate() {
        args.sizes[to] = space.sizes()[d] as i64;
        for operand in Operand::READ.into_iter().chain(Operand::WRITTEN) {
            args.strides[operand as usize][to] = space.stride(operand, d) as i64;
        }
    }
}

/// Address of something that is written.
fn address(args: &ElementwiseArgs, operand: Operand) -> u64 {
    match operand {
        Operand::GradInput => args.grad_x,
        Operand::GradTarget => args.grad_y,
        _ => args.value,
    }
}

/// Blocks of so many warps each, a warp an output.
fn launch_blocks(outputs: usize, warps: usize) -> Option<u32> {
    i32::try_from(outputs.div_ceil(warps)).ok().map(|n| n as u32)
}
