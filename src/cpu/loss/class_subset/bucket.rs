//! Rows beside whose lists all other classes stand as one: of a row's logits of all classes those of its list, with
//! the log-sum-exp of the rest behind them, go through the loss; their gradient is spread over all.
//!
//! What the loss sees are values of z, in f64 until they are less the row's largest: a common offset costs no digits.

use crate::base::error::Result;
use crate::cpu::batch::results::Results;
use crate::cpu::loss::class_subset::lists::{Lists, filled};
use crate::cpu::loss::linear_cross_entropy::rows::{OfRows, Rows};
use crate::cpu::loss::soft_cross_entropy::{Batch, SoftOperands};
use crate::cpu::matrix::chunks::{Logits, Turn, stride};
use crate::cpu::matrix::gradient::Gradient;
use crate::cpu::matrix::product::Matrix;
use crate::cpu::matrix::scratch::with_large;
use crate::cpu::processor::Cpu;
use crate::cpu::row::logit::Transform;
use crate::cpu::row::places::Places;
use crate::cpu::row::state::RowSum;
use crate::cpu::row::work::{Normalizer, Row, Terms};
use crate::cpu::threads::{Spread, SyncPtr};
use crate::spec::class_subset::CheckedSubset;
use crate::spec::cross_entropy::CrossEntropy;
use crate::spec::cross_entropy::checked::Checked;
use crate::spec::linear_cross_entropy::{
    CheckedLinear, LinearCrossEntropy, LinearGradOut, LinearInput, LinearPath, LinearPlan,
    small_budget,
};

/// Logits of given rows that are in f32 at once, in bytes.
const WIDENED: usize = 32 << 20;

/// The call over all classes, of what the lists leave of the budget.
struct OverAll<'a>(LinearCrossEntropy<'a>);

/// What the loss sees of the rows of a call.
pub(super) struct Bucket<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) lists: &'a Lists,
    pub(super) rows: &'a Rows,
    pub(super) classes: usize,
    /// Elements between rows of what is listed.
    pub(super) stride: usize,
    /// Of logits; the batch has none.
    pub(super) transform: Transform,
    pub(super) batch: Batch<'a>,
    pub(super) upstream: &'a OfRows,
    pub(super) results: Results,
    pub(super) backward: bool,
}

/// Columns of all rows: logits of what is listed and of the rest, or their gradient; dz/dx; probabilities, and
/// where there are any, their gradient.
pub(super) struct Columns<'m> {
    pub(super) z: &'m mut [f32],
    pub(super) slopes: &'m mut [f32],
    pub(super) probabilities: &'m mut [f32],
    pub(super) gradient: &'m mut [f32],
}

/// What a row's rest sums to, and what its columns are less.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    rest: Option<RowSum>,
    shift: f64,
}

impl Bucket<'_> {
    /// Goes through some rows' logits of all classes, which are their gradient then.
    pub(super) fn turn(&self, logits: Logits<'_>, columns: &mut Columns<'_>) -> Result<()> {
        let range = logits.rows.clone();
        let (first, places) = (range.start * self.stride, range.clone());
        let none = Sums { rest: None, shift: 0.0 };
        let mut sums: Vec<Sums> = filled(range.len(), none)?;
        let [z, q] = [&mut *columns.z, &mut *columns.probabilities]
            .map(|of| SyncPtr(of[first..].as_mut_ptr()));
        let from_here = |of: &mut [f32]| match of.is_empty() {
            true => SyncPtr(std::ptr::null_mut()),
            false => SyncPtr(of[first..].as_mut_ptr()),
        };
        let (slopes, gradient) = (from_here(columns.slopes), from_here(columns.gradient));
        let (all, to) = (SyncPtr(logits.data.as_mut_ptr()), SyncPtr(sums.as_mut_ptr()));
        let count = self.lists.columns;
        // A row of each: all logits, and columns of what is listed.
        // SAFETY: a row of one task alone, of as many as were counted.
        let row_of = |i: usize| unsafe {
            let at = |of: SyncPtr<f32>, there: bool| match there {
                true => std::slice::from_raw_parts_mut(of.get().add(i * self.stride), count),
                false => &mut [],
            };
            let x = std::slice::from_raw_parts_mut(all.get().add(i * logits.stride), self.classes);
            (x, at(z, true), at(slopes, self.backward), at(q, true))
        };
        self.cpu.share(range.len(), 1, &|i| {
            let (x, z, slopes, q) = row_of(i);
            let sums = self.gather(self.rows.kept[range.start + i], (x, z, slopes, q));
            // SAFETY: each row's are one task's.
            unsafe { to.get().add(i).write(sums) };
        });
        self.loss(&places, (z, q, gradient));
        self.cpu.share(sums.len(), 1, &|i| {
            let (x, z, slopes, q) = row_of(i);
            let row = self.rows.kept[places.start + i];
            // SAFETY: a row of this task alone; the log-sum-exps have one a row.
            unsafe { self.results.shift_lse(row, sums[i].shift) };
            if !self.backward {
                return;
            }
            self.spread(row, &sums[i], (x, z, slopes));
            if !gradient.get().is_null() && q[count - 1] > 0.0 {
                // SAFETY: the row of this task alone, whose columns are as many in each of the buffers.
                let of = unsafe {
                    std::slice::from_raw_parts_mut(gradient.get().add(i * self.stride), count)
                };
                let of_rest = of[count - 1];
                of[..count - 1].iter_mut().for_each(|g| *g -= of_rest);
            }
        });
        Ok(())
    }

    /// The columns of a row; its listed classes are masked among all.
    fn gather(
        &self,
        row: usize,
        (x, z, slopes, q): (&mut [f32], &mut [f32], &mut [f32], &mut [f32]),
    ) -> Sums {
        let list = self.lists.of(row);
        let listed: Vec<(f64, f64)> =
            list.iter().map(|&id| self.transform.at(x[id as usize])).collect();
        list.iter().for_each(|&id| x[id as usize] = f32::NEG_INFINITY);
        let row = self.row(x);
        // SAFETY: the row is there, and nobody writes to it meanwhile.
        let sum = unsafe { row.sum(None) };
        let rest = if sum.max == f64::NEG_INFINITY { f64::NEG_INFINITY } else { sum.lse() };
        let largest = listed.iter().map(|z| z.0).fold(sum.max, f64::max);
        let shift = if largest.is_finite() { largest } else { 0.0 };
        let last = z.len() - 1;
        z.fill(f32::NEG_INFINITY);
        z.iter_mut().zip(&listed).for_each(|(to, of)| *to = (of.0 - shift) as f32);
        slopes.iter_mut().zip(&listed).for_each(|(to, of)| *to = of.1 as f32);
        z[last] = (rest - shift) as f32;
        let mass: f64 = q[..list.len()].iter().map(|&q| f64::from(q)).sum();
        let left = 1.0 - mass;
        q[last] =
            if list.len() == self.classes || left.is_nan() { 0.0 } else { left.max(0.0) as f32 };
        Sums { rest: (sum.max != f64::NEG_INFINITY).then_some(sum), shift }
    }

    fn row(&self, x: &[f32]) -> Row<f32> {
        let spread = Spread::Alone;
        Row { transform: self.transform, ..Row::plain(self.cpu.level, spread, x) }
    }

    /// The loss over the columns of some rows, in place where there is a backward pass.
    fn loss(
        &self,
        rows: &std::ops::Range<usize>,
        (z, q, gradient): (SyncPtr<f32>, SyncPtr<f32>, SyncPtr<f32>),
    ) {
        // SAFETY: the list of rows is there until all were gone through, and has those of the part.
        let places = unsafe { Places::of(&self.rows.kept[rows.clone()]) };
        let mut batch = self.batch;
        batch.scaling.upstream = self.upstream.part(rows);
        let columns = Logits {
            rows: rows.clone(),
            classes: self.lists.columns,
            stride: self.stride,
            data: &mut [],
        };
        let lines = columns.lines(columns.classes, self.stride);
        let columns = [z, q, gradient].map(SyncPtr::get);
        let operands = SoftOperands::beside(lines, columns, self.backward);
        self.cpu.soft_cross_entropy_of_rows(&batch, operands, Some(self.results.at(places)));
    }

    /// A row's gradient of all classes, of that of its columns.
    fn spread(
        &self,
        row: usize,
        sums: &Sums,
        (x, z, slopes): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let of_rest = f64::from(z[z.len() - 1]);
        let terms = Terms { prob: of_rest * f64::from(self.transform.slope()), smooth: 0.0 };
        match sums.rest {
            None => x.fill((0.0 * of_rest) as f32),
            Some(sum) if sum.undefined() => x.fill(f32::NAN),
            Some(sum) => {
                let out = x.as_mut_ptr();
                let row = self.row(x);
                // SAFETY: the output is the row itself, which is this task's alone.
                unsafe { row.gradient(out, None, Normalizer::Sum(&sum), &terms) };
            }
        }
        for (&id, (g, slope)) in self.lists.of(row).iter().zip(z.iter().zip(slopes)) {
            x[id as usize] = g * *slope;
        }
    }
}

impl<'a> OverAll<'a> {
    /// What is left of the budget where lists have taken so many bytes.
    fn new(checked: &CheckedLinear<'a>, lists: usize) -> OverAll<'a> {
        let of_logits: CrossEntropy<'a> = checked.options.of_logits.clone();
        let workspace = checked.options.workspace.saturating_sub(lists);
        let path = LinearPath::Chunked;
        OverAll(LinearCrossEntropy { of_logits, path, workspace, ..*checked.options })
    }

    /// The same call, of all classes.
    fn call<'s>(
        &'s self,
        (checked, subset): (&CheckedLinear<'s>, &CheckedSubset<'_>),
    ) -> CheckedLinear<'s> {
        let Checked { dtype, class_dim, target, rows, .. } = checked.of_logits;
        let options = &self.0.of_logits;
        CheckedLinear {
            options: &self.0,
            input: LinearInput { subset: None, ..checked.input },
            of_logits: Checked { options, dtype, class_dim, classes: subset.classes, target, rows },
            subset: None,
            given: checked.given,
            positions: checked.positions,
            rows: checked.rows,
            features: checked.features,
        }
    }
}

impl Cpu {
    /// The plan of lists that take so many bytes, and of all logits beside them.
    pub(super) fn bucket_plan(
        &self,
        (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
        lists: usize,
        backward: bool,
    ) -> Result<LinearPlan> {
        let (budget, rows) = (checked.options.workspace, checked.rows.max(1));
        if subset.given {
            let row = 4 * stride(subset.classes);
            let least = lists.saturating_add(row);
            if least > budget {
                return Err(small_budget(least, budget));
            }
            let chunk_rows = ((budget - lists).min(WIDENED) / row).clamp(1, rows);
            let workspace_bytes = lists + chunk_rows * row;
            return Ok(LinearPlan { path: LinearPath::Chunked, chunk_rows, workspace_bytes });
        }
        let over_all = OverAll::new(checked, lists);
        let call = over_all.call((checked, subset));
        let least = lists.saturating_add(self.least_of_chunks(&call, backward));
        if least > budget {
            return Err(small_budget(least, budget));
        }
        let plan = self.linear_plan(&call, backward)?;
        Ok(LinearPlan { workspace_bytes: plan.workspace_bytes + lists, ..plan })
    }

    /// Has `turn` go through all rows' logits of all classes, and multiplies out what it makes of them.
    pub(super) fn through_all(
        &self,
        (checked, subset): (&CheckedLinear<'_>, &CheckedSubset<'_>),
        plan: &LinearPlan,
        rows: &Rows,
        gradients: Option<LinearGradOut<'_>>,
        turn: Turn<'_>,
    ) -> Result<()> {
        if !subset.given {
            let lists = self.listed_bytes(checked, gradients.is_some());
            let over_all = OverAll::new(checked, lists);
            return self.through_logits(&over_all.call((checked, subset)), rows, gradients, turn);
        }
        let input = Matrix::new(self, "logits", &checked.input.input)?;
        let to = gradients.and_then(|gradients| gradients.input);
        let to = to.map(|to| Gradient::new(self, "grad_logits", to, false)).transpose()?;
        let (classes, stride) = (subset.classes, stride(subset.classes));
        with_large("logits in f32", plan.chunk_rows * stride, |data| {
            for from in (0..checked.rows).step_by(plan.chunk_rows) {
                let some = from..(from + plan.chunk_rows).min(checked.rows);
                let data = &mut data[..some.len() * stride];
                self.widen(&input, rows, &some, (&mut *data, stride));
                turn(Logits { rows: some.clone(), classes, stride, data: &mut *data })?;
                if let Some(to) = &to {
                    let data = &*data;
                    self.share(some.len(), 1, &|i| {
                        // SAFETY: a row of this task alone.
                        unsafe { to.put(from + i, &data[i * stride..][..classes]) };
                    });
                }
            }
            Ok(())
        })?
    }

    /// Given logits over their temperatures, in f32.
    fn widen(
        &self,
        input: &Matrix<'_>,
        rows: &Rows,
        some: &std::ops::Range<usize>,
        (data, stride): (&mut [f32], usize),
    ) {
        let to = SyncPtr(data.as_mut_ptr());
        self.share(some.len(), 1, &|i| {
            let row = some.start + i;
            // SAFETY: a row of this task alone, of as many as there are.
            let x =
                unsafe { std::slice::from_raw_parts_mut(to.get().add(i * stride), input.columns) };
            input.widen(row, x);
            if let Some(scales) = &rows.scales {
                x.iter_mut().for_each(|x| *x *= scales[row]);
            }
        });
    }
}
