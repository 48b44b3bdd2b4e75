//! From a plan to launches: the same for every loss.

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::code::args;
use crate::code::args::{RowArgument, RowOperands};
use crate::code::card;
use crate::code::plan::{Pass, Plan, Rows, Schedule};
use crate::code::variants::{Data, Entry, Loss, Variant};
use crate::cuda::driver::{Launch, Turn};
use crate::cuda::schedule::lines::begin_with_a_pack;
use crate::cuda::schedule::operands::Operands;
use crate::cuda::stream::Cuda;
use crate::cuda::stream::pool::Block;

/// What is to be done with rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Reduce them.
    Forward,
    /// Reduce them and write a gradient (or whatever the loss writes element by element).
    Fused,
    /// Write a gradient; `lse` in the arguments is a saved one.
    FromLse,
}

fn shape_of((loss, data, work): (Loss, Data, Work), operands: &RowOperands, aligned: bool) -> Rows {
    let (rows, classes) = (operands.count as usize, operands.classes as usize);
    let twice = work == Work::Fused && loss.has(Entry::SplitTwice);
    Rows { rows, classes, data, aligned, streams: 1 + loss.beside(data), twice }
}

/// How a call's rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Each in one piece; whether each of them begins with a pack.
    Whole { aligned: bool },
    /// Side by side, and there is a plan for that.
    SideBySide,
}

/// Warps of a block whose warps have a row each.
const ROWS_A_BLOCK: usize = 4;

/// Bytes of what is counted while so many rows are visited twice: turns, and for each row its parts.
fn counted(rows: usize) -> usize {
    4 * (1 + rows)
}

/// What a loss launches over rows: planned for all rows of a call, with workspace for as many as
/// are gone through at once.
pub(crate) struct Planned<'c> {
    cuda: &'c Cuda,
    loss: Loss,
    data: Data,
    work: Work,
    plan: Plan,
    /// Of rows that are split: their parts' states; the target of each, and what is counted of them.
    workspace: Option<[Block<'c>; 2]>,
}

impl Cuda {
    /// Goes through rows: plans, takes workspace, launches.
    ///
    /// # Safety
    /// Every address in `args` is 0 or device memory as long as rows, classes and strides say,
    /// and what the loss does without may be 0.
    pub(crate) unsafe fn go<A: RowArgument>(
        &self,
        loss: Loss,
        data: Data,
        work: Work,
        mut args: A,
    ) -> Result<()> {
        let rows = args.rows().count;
        if rows == 0 {
            return Ok(());
        }
        let operands = args.rows();
        let aligned =
            begin_with_a_pack((operands.x, operands.x_stride as usize), rows as usize, data.size());
        let lie = Lie::Whole { aligned };
        let planned = self.planned((loss, data, work), operands, lie, rows as usize)?;
        // SAFETY: every address in `args` is 0 or as long as rows, classes and strides say: the
        // caller's promise; the workspace is of this plan.
        unsafe { planned.launch(args) }
    }

    /// How rows lie for these kernels. A schedule that somebody asks for is one of rows in one piece.
    pub(crate) fn lie(
        &self,
        kernels: (Loss, Data, Work),
        args: &mut impl RowArgument,
        operands: &Operands<'_, '_, '_>,
    ) -> Lie {
        match operands.side_by_side() && self.side_by_side(kernels, args) {
            true => Lie::SideBySide,
            false => Lie::Whole { aligned: operands.begin_with_a_pack() },
        }
    }

    /// Whether these kernels have a plan for rows that lie side by side.
    pub(crate) fn side_by_side(
        &self,
        (loss, data, work): (Loss, Data, Work),
        args: &mut impl RowArgument,
    ) -> bool {
        let wanted = self.forced.get().is_none() && !args.has_top();
        let shape = shape_of((loss, data, work), args.rows(), true);
        let plan = || Plan::side_by_side(shape, work.pass(), self.driver.card());
        let plan = wanted.then(plan).flatten();
        plan.is_some_and(|plan| loss.has(plan.entry(work.pass())))
    }

    /// Plans for all rows, of which `at_once` are gone through by a launch.
    pub(crate) fn planned(
        &self,
        (loss, data, work): (Loss, Data, Work),
        operands: &RowOperands,
        lie: Lie,
        at_once: usize,
    ) -> Result<Planned<'_>> {
        let shape = shape_of((loss, data, work), operands, lie != Lie::Whole { aligned: false });
        let narrowed;
        let card = match loss.static_shared().saturating_sub(card::STATIC_SHARED) {
            0 => self.driver.card(),
            // Less is left for rows beside what its kernels need.
            more => {
                let card = self.driver.card();
                let shared_per_block = card.shared_per_block.saturating_sub(more);
                narrowed = card::Card { shared_per_block, ..card.clone() };
                &narrowed
            }
        };
        let runs = |plan: &Plan| {
            let kernel = self.driver.kernel(Variant::Row(loss, Entry::Cluster, data))?;
            let block = card::Block { threads: plan.threads, shared: plan.shared };
            Ok(self.driver.active_clusters(kernel, block, plan.cluster())? != Some(0))
        };
        let places = &mut |entry: Entry, block: card::Block| {
            let kernel = self.driver.kernel(Variant::Row(loss, entry, data))?;
            self.driver.places(kernel, block)
        };
        let forced = match self.forced.get() {
            Some(&forced) => Plan::forced(shape, work.pass(), card, forced, places)?,
            None => None,
        };
        let plan = match forced {
            _ if lie == Lie::SideBySide => Plan::side_by_side(shape, work.pass(), card),
            Some(plan) if plan.cluster() == 1 || runs(&plan)? => Some(plan),
            _ => Plan::running(shape, work.pass(), card, runs, places)?,
        };
        let plan = plan.ok_or_else(|| Error::Value {
            argument: "logits",
            expected: "rows and classes that a launch can count".into(),
            got: format!("{} rows of {}", shape.rows, shape.classes),
        })?;
        self.note(loss, data, work.name(), plan);
        let workspace = match plan.schedule {
            Schedule::Split(parts) | Schedule::Twice { parts, .. } => {
                let words = loss.words() + 1 + loss.second_words();
                let states = at_once * parts as usize * 4 * words;
                let take = |bytes| self.pool.take("workspace", bytes);
                Some([take(states)?, take(4 * at_once + counted(at_once))?])
            }
            _ => None,
        };
        Ok(Planned { cuda: self, loss, data, work, plan, workspace })
    }
}

impl Cuda {
    /// Launches an entry whose warps have a piece of work each, of which there are so many.
    ///
    /// # Safety
    /// As for [`Cuda::go`].
    pub(crate) unsafe fn launch_warps<A: RowArgument>(
        &self,
        (loss, entry, data): (Loss, Entry, Data),
        warps: usize,
        args: &A,
    ) -> Result<()> {
        let blocks = u32::try_from(warps.div_ceil(ROWS_A_BLOCK)).ok();
        let blocks = blocks.filter(|&n| n <= i32::MAX as u32).ok_or_else(|| Error::Value {
            argument: "logits",
            expected: "rows and classes that a launch can count".into(),
            got: format!("{warps} blocks of classes"),
        })?;
        let kernel = self.driver.kernel(Variant::Row(loss, entry, data))?;
        let (threads, args) = (entry.block(0), args::bytes(args));
        let turn = Turn::Alone;
        let launch = Launch { kernel, blocks, threads, cluster: 1, shared: 0, turn, args };
        // SAFETY: the memory that the arguments name is as long as they say: the caller's promise.
        unsafe { self.driver.launch(launch) }
    }
}

impl Planned<'_> {
    /// Whether it is for rows side by side.
    pub(crate) fn side_by_side(&self) -> bool {
        matches!(self.plan.schedule, Schedule::SideBySide(_))
    }

    /// Puts the launches for the rows of `args` on the stream: all of those planned for, or some.
    ///
    /// # Safety
    /// As for [`Cuda::go`], and the rows are no more than the workspace is for.
    pub(crate) unsafe fn launch<A: RowArgument>(&self, args: A) -> Result<()> {
        let driver = &*self.cuda.driver;
        // SAFETY: addresses are 0 or as long as `args` says, and the rows are no more than the
        // workspace is for: the caller's promise.
        self.cuda.laps.around(driver, || unsafe { self.put(args) })
    }

    /// As [`Planned::launch`], whose contract it has.
    unsafe fn put<A: RowArgument>(&self, mut args: A) -> Result<()> {
        if let Some(top) = args.take_top() {
            // Before the rows are overwritten.
            // SAFETY: the caller's contract, of the same rows.
            unsafe { self.cuda.top_classes(self.data, top)? };
        }
        let (rows, work) = (args.rows().count as usize, self.work);
        let plan = self.plan.over(rows);
        let schedule = args.schedule();
        (schedule.slice, schedule.parts) = (plan.slice, plan.parts());
        let launch = |entry: Entry, blocks: u32, args: &A| {
            let driver = &self.cuda.driver;
            let kernel = driver.kernel(Variant::Row(self.loss, entry, self.data))?;
            let launch = Launch {
                kernel,
                blocks,
                threads: entry.block(plan.threads),
                cluster: if entry == Entry::Cluster { plan.cluster() } else { 1 },
                shared: if entry == plan.entry(work.pass()) { plan.shared } else { 0 },
                turn: if entry.waits() { Turn::Follows } else { Turn::Alone },
                args: args::bytes(args),
            };
            // SAFETY: the caller's contract; the workspaces hold what their entries need.
            unsafe { driver.launch(launch) }
        };
        let Some([partials, row_target]) = &self.workspace else {
            if work == Work::FromLse {
                // The row is on chip: its own sum is better than a rounded one, and free.
                args.forget_lse();
            }
            return launch(plan.entry(work.pass()), plan.blocks, &args);
        };
        let schedule = args.schedule();
        schedule.partials = partials.address();
        schedule.row_target = row_target.address();
        if let Schedule::Twice { lead, .. } = plan.schedule {
            let turns = row_target.address() + 4 * rows as u64;
            (schedule.turns, schedule.lead) = (turns, lead);
            // SAFETY: the workspace is as long for these rows, which are no more than it is for.
            unsafe { self.cuda.driver.clear(turns, counted(rows))? };
            return launch(Entry::SplitTwice, plan.blocks, &args);
        }
        let warps = rows.div_ceil(ROWS_A_BLOCK) as u32;
        schedule.coarse = (work == Work::FromLse).into();
        launch(Entry::SplitSum, plan.blocks, &args)?;
        if self.loss.second_words() > 0 {
            launch(Entry::SplitSecond, plan.blocks, &args)?;
        }
        match work {
            Work::Forward => launch(Entry::SplitFinish, warps, &args),
            Work::Fused => launch(Entry::SplitGradient, plan.blocks, &args),
            Work::FromLse => {
                launch(Entry::SplitBackward, plan.blocks, &args)?;
                launch(Entry::SplitTarget, warps, &args)
            }
        }
    }
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Forward => "Forward",
            Work::Fused => "Fused",
            Work::FromLse => "FromLse",
        }
    }

    fn pass(self) -> Pass {
        match self {
            Work::Forward => Pass::Forward,
            Work::Fused | Work::FromLse => Pass::Gradient,
        }
    }
}

/// The kernels' element type.
pub(crate) fn data(dtype: DType) -> Result<Data> {
    match dtype {
        DType::F32 => Ok(Data::F32),
        DType::F16 => Ok(Data::F16),
        DType::BF16 => Ok(Data::BF16),
        DType::I64 | DType::I32 | DType::U32 | DType::U8 => Err(Error::Dtype {
            argument: "logits",
            expected: "f32, f16 or bf16".into(),
            got: dtype,
        }),
    }
}
