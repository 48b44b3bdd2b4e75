//! Rows of every length and at every address modulo 16 bytes: what is peeled at head and tail.

use crate::schedules::calls::{CALLS, lse_of};
use crate::schedules::data::{Data, Input, Layout, PADDING, Rows};
use crate::schedules::{Route, route};
use warploss::{Device, bf16, f16};

/// Classes are those of the shortest row; a pack's worth more follow.
pub(crate) const ROUTES: [Route; 6] = [
    route("4 lanes a row", (132, 227, 16), (9, 1)),
    route("32 lanes a row", (132, 227, 16), (9, 130)),
    route("block a row", (1, 227, 16), (9, 1031)),
    route("cluster of", (1, 4, 16), (9, 1031)),
    route("two phases", (132, 3, 1), (9, 1031)),
    route("two phases", (2, 3, 1), (9, 8_300)),
];

fn check<T: Data>(route: &Route, devices: (&Device, &Device), classes: usize) {
    // An odd distance: neighbouring rows begin at every element of a pack in turn.
    let layout = Layout { rows: route.rows, classes, stride: (classes + 1) | 1, pixels: 0 };
    let rows = Rows::<T>::new(layout.rows, layout.classes, false);
    let spread = |data: &[T]| {
        let mut memory = vec![T::of(PADDING); layout.reach() + layout.stride - classes];
        layout.scatter(data, &mut memory);
        memory
    };
    let (x, upstream) = (spread(&rows.x), spread(&rows.upstream));
    for call in CALLS {
        let mut input = Input {
            layout,
            x: &x,
            upstream: &upstream,
            target: &rows.target,
            per_row: &rows.per_row,
            lse: &[],
        };
        let lse = lse_of(call, devices.1, &input);
        input.lse = &lse;
        let empty = vec![T::of(PADDING); x.len()];
        let (mut got, mut expected) = (empty.clone(), empty);
        let what = format!("{} × {classes}, {}", layout.rows, route.schedule);
        call.compare(&what, devices, &input, [&mut got, &mut expected]);
        assert!(layout.padding_stands(&got), "{what}: {call:?} wrote between rows");
    }
}

#[test]
fn rows_of_every_length_at_every_address_agree_with_the_cpu() {
    let cpu = Device::cpu();
    for route in ROUTES {
        let device = route.device();
        for classes in route.classes..route.classes + 8 {
            if classes < route.classes + 4 {
                check::<f32>(&route, (&device, &cpu), classes);
            }
            check::<f16>(&route, (&device, &cpu), classes);
            check::<bf16>(&route, (&device, &cpu), classes);
        }
        let notes = device.schedules();
        assert!(notes.iter().any(|n| n.contains(route.schedule)), "{route:?}: {notes:#?}");
    }
}
