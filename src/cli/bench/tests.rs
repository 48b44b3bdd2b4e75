//! What a line copies, and what lines share.

use crate::base::dtype::DType;
use crate::check::bench::Kind;
use crate::check::catalogue::Op;
use crate::cli::bench::line::Line;
use crate::cli::bench::lines;
use crate::cli::bench::ops::BenchOp;
use crate::device::Device;
use crate::emulator::Description;
use crate::measure::{Budget, Pass};
use clap::ValueEnum as _;

/// A call's answer is checked by its sampled rows, and what is a number a row.
#[test]
fn a_check_copies_the_rows_that_it_samples() {
    let (rows, classes) = (64, 1500);
    let budget = Budget { warm_up: 0, min_runs: 1, seconds: 0.0 };
    for &op in BenchOp::value_variants() {
        if !matches!(op.parts().1, Kind::Rows(_)) {
            continue;
        }
        for pass in Pass::ALL {
            let device = Device::emulated(Description::h100(), None).unwrap();
            let line = Line::of_rows(op, pass, DType::F32, rows, classes);
            line.measure(&device, &budget, (&mut None, 0)).unwrap();
            let copied = device.driver_calls().unwrap().bytes_to_host;
            // Three rows, of input, target, gradient; six results a row at the most.
            let most = 3 * 3 * classes * 4 + 6 * rows * 4 + 64;
            let what = line.describe();
            assert!(copied > 0 && copied <= most as u64, "{what}: {copied}, {most}");
        }
    }
}

/// Lines of one dtype share what was allocated for the largest.
#[test]
fn lines_of_a_dtype_share_their_buffers() {
    let device = Device::emulated(Description::h100(), None).unwrap();
    let budget = Budget { warm_up: 0, min_runs: 1, seconds: 0.0 };
    let shapes = [(8, 500), (16, 2000), (3, 7)];
    let lines = shapes.map(|(rows, classes)| {
        Line::of_rows(
            BenchOp::of(Op::CrossEntropy).unwrap(),
            Pass::ForwardBackward,
            DType::F32,
            rows,
            classes,
        )
    });
    let room = lines::room(lines.iter(), DType::F32);
    assert_eq!(room, 16 * 2000);
    let mut held = None;
    for line in &lines {
        line.measure(&device, &budget, (&mut held, room)).unwrap();
        let view = held.as_ref().unwrap().logits.view();
        assert_eq!(view.shape()[..], [line.rows, line.classes]);
        // All of the memory stands behind the view.
        let all = held.as_ref().unwrap().logits.view_as(&[room], 1);
        assert!(all.is_ok(), "{all:?}");
    }
}
