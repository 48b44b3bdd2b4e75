//! What a schedule reads and writes, counted access by access and held to the model: one read too
//! many of any part of a row fails.

use crate::schedules::calls::{CALLS, Call, Pass, lse_of};
use crate::schedules::data::{Data, Input, Layout, Rows};
use crate::schedules::{Route, TWO_VISITS, route};
use warploss::emulator::Description;
use warploss::{Device, bf16, f16};

const ROUTES: [Route; 9] = [
    TWO_VISITS,
    route("4 lanes a row", (132, 227, 16), (2048, 13)),
    route("32 lanes a row", (132, 227, 16), (512, 333)),
    route("block a row", (1, 227, 16), (16, 5003)),
    route("cluster of", (1, 227, 16), (4, 60_001)),
    route("cluster of", (1, 227, 2), (4, 30_005)),
    route("cluster of", (1, 18, 8), (4, 20_010)),
    route("two phases", (2, 3, 1), (8, 9_001)),
    route("two phases", (132, 227, 16), (1, 600_003)),
];

/// Threads that a row has at the most: one for 8 packs, but at least 64 a block of 16 in a
/// cluster, and whole warps.
fn threads(classes: usize, size: usize) -> usize {
    classes * size / 16 / 8 + 16 * 96
}

fn check<T: Data>(route: &Route, call: Call) {
    let layout = Layout::rows(route.rows, route.classes);
    let Rows { x, upstream, target, per_row } = Rows::<T>::new(layout.rows, layout.classes, true);
    let mut input =
        Input { layout, x: &x, upstream: &upstream, target: &target, per_row: &per_row, lse: &[] };
    let lse = lse_of(call, &Device::cpu(), &input);
    input.lse = &lse;
    let size = size_of::<T>();
    // The logits and what is as large; not what is a few numbers a row or a block. They go to the
    // card in one piece, so that they are as large there.
    let staging = layout.reach() * size.max(4);
    let counted = (layout.reach() * size) as u64;
    let card = Description { counted, staging, ..route.card() };
    let device = Device::emulated(card, Some(3)).unwrap();
    let mut out = x.clone();
    call.run(&device, &input, &mut out);

    let what = format!("{route:?} {call:?} {}: {:?}", T::DTYPE, device.schedules());
    let split = ["two phases", "two visits"].iter().any(|s| device.schedules()[0].contains(s));
    let (read, written) = device.traffic().unwrap();
    let elements = (layout.rows * layout.classes) as u64;
    let model = call.traffic(size);
    // Split rows are summed first, unless the sum was saved, and read again for what is written.
    let saved = call.saves() && call.1 == Pass::Backward;
    let again = if split { call.visits() - 1 } else { 0 };
    let reads = if split && call.writes_rows() && !saved { 2 } else { 1 } + again as u64;
    let expected = [reads * elements * model.read as u64, elements * model.written as u64];
    // Each thread reads its row's target besides, once a visit, and the target's gradient is written again.
    let targets = layout.rows * threads(layout.classes, size) * size;
    let besides = match call.has_target() {
        true => [(1 + again) * targets, layout.rows * size],
        false => [0, 0],
    };
    for (got, expected, besides) in
        [(read, expected[0], besides[0]), (written, expected[1], besides[1])]
    {
        assert!(
            (expected..=expected + besides as u64).contains(&got),
            "{what}: {got} bytes, expected {expected} and up to {besides} besides"
        );
    }
}

#[test]
fn every_row_is_read_once_where_it_stays_on_chip_and_written_once() {
    for route in ROUTES {
        for call in CALLS {
            check::<f32>(&route, call);
            check::<f16>(&route, call);
            check::<bf16>(&route, call);
        }
    }
}
