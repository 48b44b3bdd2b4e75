//! Cards that run smaller clusters than their architecture may, down to none.

use crate::schedules::calls::{CALLS, lse_of};
use crate::schedules::data::{Input, Layout, Rows};
use warploss::emulator::Description;
use warploss::{Device, bf16};

const ROWS: usize = 3;
const CLASSES: usize = 20_001;

#[test]
fn every_call_follows_the_largest_cluster_that_runs() {
    let cpu = Device::cpu();
    let layout = Layout::rows(ROWS, CLASSES);
    let Rows { x, upstream, target, per_row } = Rows::<bf16>::new(ROWS, CLASSES, false);
    for (cluster, expected) in [
        (1, "two phases"),
        (2, "two phases"),
        (4, "cluster of 4"),
        (8, "cluster of 8"),
        (16, "cluster of 8"),
    ] {
        // 40 KB a row: four blocks of a slice whose blocks have 12 KiB, or eight of 6 KiB.
        let shared = if cluster < 8 { 14 } else { 7 };
        let card =
            Description { cluster, shared_per_block: shared << 10, ..Description::h100_slice() };
        let device = Device::emulated(card, Some(u64::from(cluster))).unwrap();
        for call in CALLS {
            let mut input = Input {
                layout,
                x: &x,
                upstream: &upstream,
                target: &target,
                per_row: &per_row,
                lse: &[],
            };
            let lse = lse_of(call, &cpu, &input);
            input.lse = &lse;
            let mut outs = [x.clone(), x.clone()];
            let [got, expected] = &mut outs;
            call.compare(
                &format!("clusters of {cluster}"),
                (&device, &cpu),
                &input,
                [got, expected],
            );
        }
        let notes = device.schedules();
        let gradients = notes.iter().filter(|note| note.contains(expected)).count();
        assert!(gradients > 0, "clusters of {cluster}: {notes:?}");
        let larger = [2, 4, 8, 16].into_iter().filter(|&n| n > cluster);
        for n in larger {
            let wrong = notes.iter().find(|note| note.contains(&format!("cluster of {n} ")));
            assert_eq!(wrong, None, "clusters of {cluster}");
        }
    }
}
