//! The CUDA schedules on the emulator: that each is reached by every loss, dtype and pass, agrees
//! with the CPU whatever the rows' length, distance and address, and moves the bytes it should.

mod bytes;
mod calls;
mod clusters;
mod coverage;
mod data;
mod offsets;
mod remainders;
mod side_by_side;

use warploss::Device;
use warploss::emulator::Description;

/// A card, and rows and classes that lead to a schedule on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// What the schedule says of itself.
    pub(crate) schedule: &'static str,
    multiprocessors: u32,
    shared_kib: u32,
    cluster: u32,
    /// Bytes of its L2 cache; 0: an H100's.
    l2: u32,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
}

const fn route(
    schedule: &'static str,
    card: (u32, u32, u32),
    (rows, classes): (usize, usize),
) -> Route {
    let (multiprocessors, shared_kib, cluster) = card;
    Route { schedule, multiprocessors, shared_kib, cluster, l2: 0, rows, classes }
}

/// Rows of which a few fit the cache, and all do not: in whatever type, with what lies beside them too.
const TWO_VISITS: Route = Route { l2: 2_000_000, ..route("two visits", (1, 3, 1), (26, 40_003)) };

/// To every schedule that rows of f32 logits in one piece are gone through by in a forward pass and in both.
pub(crate) const OF_F32: [Route; 6] = [
    route("4 lanes a row", (132, 227, 16), (9, 13)),
    route("32 lanes a row", (132, 227, 16), (9, 333)),
    route("block a row", (1, 227, 16), (7, 3001)),
    route("cluster of", (1, 18, 16), (4, 10_002)),
    route("blocks a row, two phases", (2, 3, 1), (8, 9001)),
    TWO_VISITS,
];

impl Route {
    fn card(&self) -> Description {
        let l2 = if self.l2 > 0 { self.l2 } else { Description::h100().l2 };
        Description {
            l2,
            multiprocessors: self.multiprocessors,
            shared_per_block: self.shared_kib << 10,
            cluster: self.cluster,
            ..Description::h100()
        }
    }

    /// Threads take turns in a random order.
    pub(crate) fn device(&self) -> Device {
        Device::emulated(self.card(), Some(7)).unwrap()
    }
}

#[test]
fn a_bad_target_is_reported_and_nothing_is_written() {
    use warploss::{CrossEntropy, Error, TensorRef};
    let device = Device::emulated(Description::h100(), None).unwrap();
    let logits = vec![1f32; 3 * 5000];
    let target = [1i64, 5000, 2];
    let error = CrossEntropy::default()
        .forward(
            &device,
            TensorRef::new(&logits, &[3, 5000]).unwrap(),
            TensorRef::new(&target, &[3]).unwrap(),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Target { row: 1, value: 5000, .. }), "{error}");
    device.check().unwrap();
}
