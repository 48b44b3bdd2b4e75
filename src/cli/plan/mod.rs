//! `warploss plan`: cutoffs of an adaptive softmax for class counts, predicted and measured.

mod figure;

use super::bench::adaptive_log_softmax as adaptive;
use super::device::DeviceChoice;
use super::failure::Failure;
use super::file::{Input, InputFile};
use super::output::OutputFile;
use super::{grid, memory, number};
use crate::base::dtype::DType;
use crate::base::error::Error;
use crate::check::random::Random;
use crate::device::Device;
use crate::measure::Budget;
use crate::planner::{Costs, CutoffPlanner, Plan};
use crate::spec::adaptive_log_softmax::AdaptiveLogSoftmax;
use clap::Args;
use comfy_table::CellAlignment;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

/// The command.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = false,
    after_help = "\
Reads the tensor `counts` [V], how often each class occurs (i64, i32, u32 or u8, in any order).
Measures calls of several sizes on the device, fits what products, logits and parameters cost there,
and finds the cutoffs that make a forward and a backward pass cheapest by that model. Cluster i is
D / V^(i+1) features wide, V being --div-value.

The table sets the plan beside a softmax over all classes, the cutoffs of PyTorch's documentation
(10, 100, 1000) and those of the paper (Grave et al. 2016: 2000, 10000 for 44 thousand words; 4000,
40000, 200000 for 800 thousand). Measured times are medians of passes with targets drawn from the
counts; where a pass would take too long it is measured, and predicted, for fewer rows. --beside adds
cutoffs of one's own, --svg draws the predicted time against the size of the shortlist.

Example:
  warploss plan --counts counts.safetensors --hidden 512 --batch 1024 --svg plan.svg"
)]
pub(super) struct PlanArgs {
    /// Safetensors file with the tensor `counts`; memory-mapped
    #[arg(long, value_name = "FILE")]
    counts: PathBuf,

    /// Features of the hidden states, D
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = super::bench::at_least_one)]
    hidden: usize,

    /// Rows of a batch
    #[arg(long, value_name = "B", allow_hyphen_values = true, value_parser = super::bench::at_least_one)]
    batch: usize,

    /// Clusters at most
    #[arg(long, value_name = "J", default_value_t = 4, allow_hyphen_values = true, value_parser = super::bench::at_least_one)]
    max_clusters: usize,

    /// Each cluster is this many times narrower than the one before it
    #[arg(long, value_name = "V", default_value_t = 4.0, allow_hyphen_values = true)]
    div_value: f64,

    /// No cluster is narrower
    #[arg(long, value_name = "H", default_value_t = 0, allow_hyphen_values = true)]
    min_width: usize,

    /// Dtype of hidden states and parameters
    #[arg(long, default_value = "f32")]
    dtype: super::bench::FloatArg,

    /// Other cutoffs to set beside the plan's; can be given again
    #[arg(long, value_name = "C,C,…", allow_hyphen_values = true, value_parser = cutoffs)]
    beside: Vec<Cutoffs>,

    /// Draw the predicted time to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Cutoffs as the command line has them.
#[derive(Debug, Clone)]
struct Cutoffs(Vec<usize>);

fn cutoffs(text: &str) -> Result<Cutoffs, String> {
    let numbers: Result<_, _> = text.split(',').map(str::parse).collect();
    numbers.map(Cutoffs).map_err(|_| "expected whole numbers with commas between them".into())
}

const NAMES: [(&str, &str); 6] = [
    ("counts", "counts"),
    ("in_features", "--hidden"),
    ("batch", "--batch"),
    ("max_clusters", "--max-clusters"),
    ("div_value", "--div-value"),
    ("cutoffs", "--beside"),
];

/// The name of the softmax over all classes.
const ALL: &str = "all classes";

/// A pass that is predicted to take longer is measured on fewer rows.
const SECONDS: f64 = 1.0;

fn renamed(error: &Error) -> Failure {
    Failure::renamed(error, &NAMES.map(|(library, here)| (library, here.to_owned())))
}

/// One line of the table.
struct Row {
    name: String,
    loss: AdaptiveLogSoftmax<'static>,
    rows: usize,
    predicted: f64,
    measured: Option<f64>,
}

impl PlanArgs {
    pub(super) fn run(&self, device: DeviceChoice) -> Result<(), Failure> {
        let svg = self.svg.as_deref().map(|path| OutputFile::new("--svg", path)).transpose()?;
        let file = InputFile::open("--counts", &self.counts)?;
        svg.as_ref().map_or(Ok(()), |svg| svg.is_not(&file))?;
        let device = device.open()?;
        let counts = counts(&file.inputs("")?.indices("counts")?)?;
        let dtype = self.dtype.dtype();
        let options = |costs| -> Result<CutoffPlanner, Error> {
            let planner = CutoffPlanner::new(&counts, self.hidden, self.batch, costs)?;
            let planner = planner.max_clusters(self.max_clusters);
            Ok(planner.div_value(self.div_value).min_width(self.min_width))
        };
        // What is wrong is said before anything is measured.
        let unit = Costs { call: 1.0, softmax: 1.0, operation: 1.0, logit: 1.0, parameter: 1.0 };
        options(unit)?.check().map_err(|e| renamed(&e))?;
        let start = Instant::now();
        let costs = Costs::measure(&device, dtype, self.hidden, self.batch)?;
        let fitted = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let planner = options(costs).map_err(|e| renamed(&e))?;
        let plan = planner.plan().map_err(|e| renamed(&e))?;
        let planned = start.elapsed().as_secs_f64();
        let mut rows = self.rows(&planner, &plan)?;
        for row in &mut rows {
            row.measure(&device, dtype, &planner)?;
        }
        if let Some(path) = &self.svg {
            let others = rows.iter().skip(1).map(|row| (row.name.as_str(), &row.loss));
            figure::draw(path, &planner, &plan, others)?;
        }
        let text = match self.json {
            true => rows.iter().map(Row::json).collect(),
            false => self.text(&device, &plan, &costs, [fitted, planned], &rows),
        };
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(|e| Failure::failed(format!("standard output: {e}")))
    }

    /// The plan, and what it is set beside.
    fn rows(&self, planner: &CutoffPlanner, plan: &Plan) -> Result<Vec<Row>, Failure> {
        let classes = plan.loss().classes();
        let row = |name: &str, loss, predicted| Row {
            name: name.into(),
            loss,
            rows: self.batch,
            predicted,
            measured: None,
        };
        let mut rows = vec![row("plan", plan.loss(), plan.predicted_seconds)];
        let published: [(&str, &[usize]); 3] = [
            ("documentation", &[10, 100, 1000]),
            ("paper, 44 thousand", &[2_000, 10_000]),
            ("paper, 800 thousand", &[4_000, 40_000, 200_000]),
        ];
        let published = published.into_iter().filter(|(_, c)| c.iter().all(|&c| c < classes));
        let given = self.beside.iter().map(|cutoffs| ("beside", &cutoffs.0[..]));
        for (name, cutoffs) in published.chain(given) {
            let predicted = planner.predict(cutoffs).map_err(|e| renamed(&e))?;
            let widths = planner.widths(cutoffs.len());
            let loss = AdaptiveLogSoftmax::new(self.hidden, classes, cutoffs);
            rows.push(row(name, loss.widths(Some(widths)), predicted));
        }
        // All classes but one in the head.
        let last = classes - 1;
        let loss = AdaptiveLogSoftmax::new(self.hidden, classes, &[last]);
        rows.push(row(ALL, loss.widths(Some(vec![1])), plan.full_softmax_seconds));
        for row in &mut rows {
            if row.predicted > SECONDS {
                let few = (self.batch as f64 * SECONDS / row.predicted) as usize;
                row.rows = few.max(1);
                let batch = planner.clone().batch(row.rows);
                row.predicted = match row.name.as_str() {
                    ALL => batch.full_softmax(),
                    _ => batch.predict(row.loss.cutoffs())?,
                };
            }
        }
        Ok(rows)
    }

    fn text(
        &self,
        device: &Device,
        plan: &Plan,
        costs: &Costs,
        [fitted, planned]: [f64; 2],
        rows: &[Row],
    ) -> String {
        let mut table = grid::new([
            "",
            "cutoffs",
            "widths",
            "rows",
            "parameters",
            "predicted ms",
            "measured ms",
        ]);
        for row in rows {
            let list = |numbers: &[usize]| {
                numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
            };
            let all = row.name == ALL;
            table.add_row([
                row.name.clone(),
                if all { "—".into() } else { list(row.loss.cutoffs()) },
                if all { "—".into() } else { list(&row.widths()) },
                row.rows.to_string(),
                row.parameters().to_string(),
                format!("{:.2}", row.predicted * 1e3),
                row.measured.map_or("no memory".into(), |s| format!("{:.2}", s * 1e3)),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let by_clusters = plan.by_clusters.iter().enumerate();
        let by_clusters: Vec<_> =
            by_clusters.map(|(i, s)| format!("{}: {:.2}", i + 1, s * 1e3)).collect();
        let Costs { call, softmax, operation, logit, parameter } = costs;
        format!(
            "{} classes, {} features, batches of {} rows of {} on {}\n\
             costs, fitted in {fitted:.2} s: a call {:.1} µs, a softmax {:.1} µs, {:.1} GFLOP/s, \
             a logit {:.3} ns, a parameter {:.3} ns\n\
             planned in {planned:.2} s; predicted ms by clusters: {}\n\
             {table}\n\
             --cutoffs {}\n",
            rows[0].loss.classes(),
            self.hidden,
            self.batch,
            self.dtype.dtype(),
            device.description(),
            call * 1e6,
            softmax * 1e6,
            1e-9 / operation,
            logit * 1e9,
            parameter * 1e9,
            by_clusters.join(", "),
            plan.cutoffs.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        )
    }
}

impl Row {
    fn widths(&self) -> Vec<usize> {
        (0..self.loss.clusters()).map(|i| self.loss.width(i)).collect()
    }

    fn json(&self) -> String {
        let mut object = serde_json::Map::new();
        let mut put = |name: &str, value| object.insert(name.into(), value);
        put("plan", self.name.as_str().into());
        put("cutoffs", self.loss.cutoffs().into());
        put("widths", self.widths().into());
        put("rows", self.rows.into());
        put("parameters", self.parameters().into());
        put("predicted_s", number::f64(self.predicted));
        put("measured_s", self.measured.map_or(serde_json::Value::Null, number::f64));
        format!("{}\n", serde_json::Value::Object(object))
    }

    /// Measures a pass, where there is memory for it.
    fn measure(
        &mut self,
        device: &Device,
        dtype: DType,
        planner: &CutoffPlanner,
    ) -> Result<(), Failure> {
        let bytes = adaptive::bytes(&self.loss, dtype, self.rows)?;
        if memory::require(bytes, &self.name).is_err() {
            return Ok(());
        }
        let capacities = planner.clone().batch(self.rows).capacities(self.loss.cutoffs())?;
        let loss = self.loss.clone().capacities(Some(capacities));
        let mut random = Random::new(0x7a67);
        let target = (0..self.rows).map(|_| planner.draw(random.unit()) as i64).collect();
        let budget = Budget { seconds: 0.5, ..Budget::default() };
        self.measured = Some(adaptive::time(device, loss, dtype, target, &budget)?.median);
        Ok(())
    }

    fn parameters(&self) -> u64 {
        adaptive::parameters_of(&self.loss).map_or(0, |n| n as u64)
    }
}

/// The counts, none below 0.
fn counts(tensor: &Input<'_>) -> Result<Vec<u64>, Failure> {
    let (name, dtype) = (tensor.name(), tensor.dtype());
    let indices = tensor.host().indices().filter(|_| tensor.shape().len() == 1);
    let Some(indices) = indices else {
        let got = format!("{dtype} {:?}", tensor.shape());
        return Err(Failure::input(format!("{name}: expected integers of shape [V], got {got}")));
    };
    memory::require(tensor.elements() as u128 * 64, "the plan")?;
    let count = |i: usize| {
        let n = indices.get(i);
        u64::try_from(n).map_err(|_| {
            Failure::input(format!("{name}: expected counts ≥ 0, got {n} at class {i}"))
        })
    };
    (0..tensor.elements()).map(count).collect()
}
