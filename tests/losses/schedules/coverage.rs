//! Which schedules are reached: a table, and no hole in it.

use crate::schedules::calls::{CALLS, Call, Pass, lse_of};
use crate::schedules::data::{Data, Input, Layout, Rows};
use crate::schedules::{Route, TWO_VISITS, route};
use std::collections::BTreeSet;
use warploss::{Device, bf16, f16};

const ROUTES: [Route; 8] = [
    TWO_VISITS,
    route("4 lanes a row", (132, 227, 16), (9, 13)),
    route("32 lanes a row", (132, 227, 16), (9, 333)),
    route("block a row", (1, 227, 16), (7, 3001)),
    route("cluster of", (1, 18, 16), (4, 10_002)),
    route("cluster of", (1, 10, 16), (2, 20_001)),
    route("blocks a row, two phases", (2, 3, 1), (8, 9_001)),
    route("blocks a row, two phases", (132, 227, 16), (1, 700_003)),
];

/// Schedules as they name themselves, for calls that leave numbers alone and for those that write
/// rows.
const FORWARD: [&str; 4] =
    ["4 lanes a row", "32 lanes a row", "block a row, streamed", "blocks a row, two phases"];
const GRADIENT: [&str; 5] = [
    "4 lanes a row",
    "32 lanes a row",
    "block a row, on chip",
    "cluster of",
    "blocks a row, two phases",
];

fn run<T: Data>(route: &Route, devices: (&Device, &Device)) {
    let layout = Layout::rows(route.rows, route.classes);
    let Rows { x, upstream, target, per_row } = Rows::<T>::new(layout.rows, layout.classes, false);
    for call in CALLS {
        let mut input = Input {
            layout,
            x: &x,
            upstream: &upstream,
            target: &target,
            per_row: &per_row,
            lse: &[],
        };
        let lse = lse_of(call, devices.1, &input);
        input.lse = &lse;
        let mut outs = [x.clone(), x.clone(), x.clone()];
        let [got, expected, again] = &mut outs;
        call.compare(route.schedule, devices, &input, [got, expected]);
        call.run(devices.0, &input, again);
        let same = |(a, b): (&T, &T)| a == b || a.f64().is_nan() && b.f64().is_nan();
        assert!(got.iter().zip(again.iter()).all(same), "{route:?} {call:?}: other bits");
    }
}

#[test]
fn every_schedule_is_reached_by_every_call_and_agrees_with_the_cpu() {
    let cpu = Device::cpu();
    let mut notes = BTreeSet::new();
    for route in ROUTES {
        let device = route.device();
        run::<f32>(&route, (&device, &cpu));
        run::<f16>(&route, (&device, &cpu));
        run::<bf16>(&route, (&device, &cpu));
        notes.extend(device.schedules());
    }
    let reached = |call: Call, dtype: &str, schedule: &str| {
        let note = call.note(dtype);
        notes.iter().any(|n| n.starts_with(&note) && n.contains(schedule))
    };
    let mut holes = Vec::new();
    for call in CALLS {
        let mut schedules = if call.as_if_writing() { GRADIENT.to_vec() } else { FORWARD.to_vec() };
        // A saved sum makes one visit enough, and what needs the row once more has three launches.
        let saved = call.saves() && call.1 == Pass::Backward;
        if call.writes_rows() && !saved && call.visits() == 1 {
            schedules.push(TWO_VISITS.schedule);
        }
        let mut line = format!("{:33}", format!("{call:?}"));
        for schedule in schedules {
            let cell = ["f32", "f16", "bf16"].map(|dtype| match reached(call, dtype, schedule) {
                true => dtype,
                false => {
                    holes.push(format!("{call:?} {dtype}: {schedule}"));
                    "-"
                }
            });
            line += &format!("| {schedule}: {} ", cell.join(" "));
        }
        println!("{line}");
    }
    assert!(holes.is_empty(), "never reached: {holes:#?}");
}
