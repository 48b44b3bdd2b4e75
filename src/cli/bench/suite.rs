//! The standard suites: what is measured where nobody says what.

use crate::base::dtype::DType;
use crate::check::catalogue::Op;
use crate::cli::bench::line::Line;
use crate::cli::bench::ops::BenchOp;
use crate::measure::Pass;

/// Rows × classes, and why: a current vocabulary; an older one; few long rows, which threads must
/// share; many short ones, where the cost of a row shows.
const SHAPES: [(usize, usize); 4] =
    [(1024, 128_256), (4096, 32_000), (4, 1_000_000), (65_536, 512)];

/// The suite of a GPU: current vocabularies, and few long rows. Tensors far larger than its cache.
pub(super) fn gpu() -> Vec<Line> {
    let shapes = [(8192, 32_000), (8192, 128_256), (8192, 262_144), (64, 4_000_000)];
    let mut lines = Vec::new();
    for (rows, classes) in shapes {
        for dtype in [DType::BF16, DType::F32] {
            let line = |op, pass| {
                let op = BenchOp::of(op)?;
                Some(Line::of_rows(op, pass, dtype, rows, classes))
            };
            lines.extend(Pass::ALL.into_iter().filter_map(|pass| line(Op::CrossEntropy, pass)));
            if classes == 32_000 {
                for op in [Op::LogSoftmax, Op::LogSumExp] {
                    let passes = [Pass::Forward, Pass::Backward];
                    lines.extend(passes.into_iter().filter_map(|pass| line(op, pass)));
                }
            }
        }
    }
    lines
}

/// The suite of the CPU: under two minutes on two cores.
pub(super) fn cpu() -> Vec<Line> {
    let mut lines = Vec::new();
    for (rows, classes) in SHAPES {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            // f16 differs from bf16 only in how it is widened: one shape shows it.
            if dtype == DType::F16 && classes != 128_256 {
                continue;
            }
            let line = |op, pass| {
                let op = BenchOp::of(op)?;
                Some(Line::of_rows(op, pass, dtype, rows, classes))
            };
            lines.extend(Pass::ALL.into_iter().filter_map(|pass| line(Op::CrossEntropy, pass)));
            if classes == 32_000 {
                for op in [Op::LogSoftmax, Op::LogSumExp] {
                    let passes = [Pass::Forward, Pass::Backward];
                    lines.extend(passes.into_iter().filter_map(|pass| line(op, pass)));
                }
            }
        }
    }
    lines
}
