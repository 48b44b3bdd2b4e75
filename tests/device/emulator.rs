//! The emulator itself: what it must catch, what it must leave alone, and what it counts.

use half::{bf16, f16};
use warploss::emulator::{Description, Emulator, Fault, FaultKind, Launch, LaunchStats, convert};

/// `TestArgs` of `tests/kernels/faults.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    x: u64,
    y: u64,
    counter: u64,
    n: u64,
}

/// A card with the buffers that the test kernels use.
struct Bench {
    emulator: Emulator,
    args: Args,
}

const SEEDS: [Option<u64>; 5] = [None, Some(1), Some(2), Some(77), Some(0xdead_beef)];
const Y_BYTES: usize = 4 * 4096;

impl Bench {
    fn new(seed: Option<u64>, x: &[f32], n: usize) -> Bench {
        let emulator = Emulator::new(Description::h100()).unwrap();
        let emulator = match seed {
            None => emulator,
            Some(seed) => emulator.with_seed(seed),
        };
        let upload = |bytes: &[u8]| {
            let at = emulator.alloc(bytes.len() as u64).unwrap();
            emulator.copy_to_device(at, bytes).unwrap();
            at
        };
        let x = upload(&x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        let counter = upload(&[0; 4 * 512]);
        let y = emulator.alloc(Y_BYTES as u64).unwrap();
        Bench { args: Args { x, y, counter, n: n as u64 }, emulator }
    }

    fn launch(
        &self,
        kernel: &str,
        blocks: u32,
        threads: u32,
        cluster: u32,
    ) -> Result<LaunchStats, Fault> {
        // SAFETY: four words without padding.
        let args =
            unsafe { std::slice::from_raw_parts((&raw const self.args).cast(), size_of::<Args>()) };
        let (shared, grid) = (16 * threads, [blocks, 1]);
        let (leads, early) = (kernel == "test_leads", false);
        self.emulator.launch(&Launch { kernel, grid, threads, cluster, shared, leads, early, args })
    }

    /// A launch that leads, and one of that kernel that begins early.
    fn follow(&self, kernel: &str) -> Result<LaunchStats, Fault> {
        self.launch("test_leads", 2, 32, 1)?;
        // SAFETY: as above.
        let args =
            unsafe { std::slice::from_raw_parts((&raw const self.args).cast(), size_of::<Args>()) };
        let (grid, leads, early) = ([2, 1], false, true);
        let shape = Launch { kernel, grid, threads: 32, cluster: 1, shared: 0, leads, early, args };
        self.emulator.launch(&shape)
    }

    fn words(&self, at: u64, n: usize) -> Vec<u32> {
        let mut bytes = vec![0; 4 * n];
        assert!(self.emulator.written(at, bytes.len() as u64).unwrap());
        self.emulator.copy_to_host(at, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
    }

    fn y(&self, n: usize) -> Vec<f32> {
        self.words(self.args.y, n).into_iter().map(f32::from_bits).collect()
    }
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 5.0).collect()
}

fn log2_sum(row: &[f32]) -> f64 {
    row.iter().map(|&v| f64::from(v).exp2()).sum::<f64>().log2()
}

/// Name, kind, threads of a block, blocks of a cluster.
const FAULTS: &[(&str, FaultKind, u32, u32)] = &[
    ("barrier_after_exit", FaultKind::BarrierDivergence, 64, 1),
    ("two_barriers", FaultKind::BarrierDivergence, 64, 1),
    ("lane_exited", FaultKind::MissingLane, 64, 1),
    ("lane_at_barrier", FaultKind::MissingLane, 64, 1),
    ("not_in_mask", FaultKind::MissingLane, 64, 1),
    ("reads_outside_mask", FaultKind::MissingLane, 64, 1),
    ("lane_does_not_exist", FaultKind::MissingLane, 40, 1),
    ("two_collectives", FaultKind::LanesDisagree, 64, 1),
    ("masks_differ", FaultKind::LanesDisagree, 64, 1),
    ("global_read_past", FaultKind::GlobalOutOfBounds, 64, 1),
    ("global_write_before", FaultKind::GlobalOutOfBounds, 64, 1),
    ("global_straddle", FaultKind::GlobalMisaligned, 64, 1),
    ("global_misaligned", FaultKind::GlobalMisaligned, 64, 1),
    ("global_uninitialised", FaultKind::GlobalUninitialised, 64, 1),
    ("atomic_past", FaultKind::GlobalOutOfBounds, 64, 1),
    ("shared_past", FaultKind::SharedOutOfBounds, 64, 1),
    ("dynamic_past", FaultKind::SharedOutOfBounds, 64, 1),
    ("shared_misaligned", FaultKind::SharedMisaligned, 64, 1),
    ("shared_uninitialised", FaultKind::SharedUninitialised, 64, 1),
    ("race_read", FaultKind::SharedRace, 64, 1),
    ("race_write", FaultKind::SharedRace, 64, 1),
    ("race_reuse", FaultKind::SharedRace, 64, 1),
    ("race_shuffle_orders_nothing", FaultKind::SharedRace, 64, 1),
    ("race_syncwarp_across_warps", FaultKind::SharedRace, 64, 1),
    ("cp_async_not_awaited", FaultKind::SharedUninitialised, 64, 1),
    ("peer_exited", FaultKind::PeerExited, 64, 2),
    ("peer_not_started", FaultKind::PeerNotStarted, 64, 2),
    ("sent_to_none", FaultKind::SharedUninitialised, 64, 2),
    ("not_shown", FaultKind::ClusterBarrier, 64, 2),
    ("not_arrived", FaultKind::NotArrived, 64, 2),
    ("sent_too_soon", FaultKind::SharedRace, 64, 2),
    ("too_few_bytes", FaultKind::TransactionCount, 64, 2),
    ("too_many_bytes", FaultKind::TransactionCount, 64, 2),
    ("ends_unheard", FaultKind::TransactionCount, 64, 2),
    ("cluster_wait_alone", FaultKind::ClusterBarrier, 64, 1),
    ("deadlock", FaultKind::Deadlock, 64, 2),
];

#[test]
fn every_seeded_fault_is_caught_at_its_line() {
    let source = include_str!("../kernels/faults.cu");
    for &(name, kind, threads, cluster) in FAULTS {
        let mark = format!("// FAULT {name}");
        let lines: Vec<u32> = (1..)
            .zip(source.lines())
            .filter(|(_, line)| line.ends_with(&mark))
            .map(|(number, _)| number)
            .collect();
        assert!(!lines.is_empty(), "{name} is marked");
        for seed in SEEDS {
            let bench = Bench::new(seed, &numbers(64), 64);
            let kernel = format!("fault_{name}");
            let fault = bench.launch(&kernel, 2, threads, cluster).expect_err(name);
            // A race is found by whoever comes second; a deadlock or a value that has not come is
            // what else this one may look like.
            assert_eq!(fault.kind, kind, "{seed:?}: {fault}");
            assert_eq!(fault.kernel, kernel);
            assert_eq!(fault.file, "tests/kernels/faults.cu", "{fault}");
            assert!(lines.contains(&fault.line), "{name} at {lines:?}, {seed:?}: {fault}");
            assert!(fault.thread < threads);
            assert!(fault.block[0] < 2);
        }
    }
}

#[test]
fn the_thread_at_fault_is_named() {
    let bench = Bench::new(None, &numbers(64), 64);
    let fault = bench.launch("fault_global_read_past", 1, 64, 1).unwrap_err();
    assert_eq!((fault.block, fault.thread), ([0, 0], 40));
    let text = fault.to_string();
    for part in [
        "kernel fault_global_read_past",
        "block (0, 0)",
        "thread 40",
        "tests/kernels/faults.cu:",
        "256",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_device_works_after_a_fault() {
    let bench = Bench::new(None, &numbers(64), 64);
    for _ in 0..3 {
        bench.launch("fault_deadlock", 2, 64, 2).unwrap_err();
        bench.launch("test_block_sum", 1, 64, 1).unwrap();
    }
}

#[test]
fn correct_kernels_are_clean_in_any_order() {
    for seed in SEEDS {
        for (rows, n, threads) in [(5, 1000, 128), (1, 31, 32), (40, 64, 96), (3, 5000, 1024)] {
            let x = numbers(rows * n);
            let bench = Bench::new(seed, &x, n);
            bench.launch("test_block_sum", rows as u32, threads, 1).unwrap();
            for (got, row) in bench.y(rows).into_iter().zip(x.chunks(n)) {
                assert!((f64::from(got) - log2_sum(row)).abs() < 1e-4);
            }
        }
        for (rows, n, cluster) in
            [(3, 1024, 4), (2, 512, 2), (5, 1000, 8), (2, 4096, 16), (2, 200, 1)]
        {
            let x = numbers(rows * n);
            let bench = Bench::new(seed, &x, n);
            let stats =
                bench.launch("test_cluster_sum", rows as u32 * cluster, 32, cluster).unwrap();
            // 32 threads of each block take four elements each.
            let seen = n.min(128 * cluster as usize);
            assert_eq!(stats.bytes_read, (4 * seen * rows) as u64);
            assert_eq!(stats.bytes_written, 4 * rows as u64);
            for (got, row) in bench.y(rows).into_iter().zip(x.chunks(n)) {
                assert!((f64::from(got) - log2_sum(&row[..seen])).abs() < 1e-4);
            }
        }
        let bench = Bench::new(seed, &numbers(64), 64);
        bench.launch("test_syncwarp", 1, 96, 1).unwrap();
        assert_eq!(bench.y(2), [1.0, 0.0]);
        bench.launch("test_messages", 2, 64, 2).unwrap();
        for (part, sent) in bench.y(256).chunks(64).zip([10.0, 0.0, 11.0, 1.0]) {
            assert!(part.iter().all(|&v| v == sent), "{part:?}");
        }
    }
}

#[test]
fn a_launch_that_begins_early_waits_for_the_one_before() {
    let source = include_str!("../kernels/faults.cu");
    for seed in SEEDS {
        let x = numbers(64);
        let bench = Bench::new(seed, &x, 64);
        bench.follow("test_follows").unwrap();
        let got = bench.emulator.written(bench.args.y, 8).unwrap();
        assert!(got, "what the launch before has left");
        let mut bytes = [0; 4 * 64];
        bench.emulator.copy_to_host(bench.args.y + 4 * 64, &mut bytes).unwrap();
        for (i, v) in bytes.chunks_exact(4).enumerate() {
            let v = f32::from_le_bytes(v.try_into().unwrap());
            assert_eq!(v, x[i % 32] + (i / 32) as f32, "{seed:?}, {i}");
        }
        for name in ["early_read", "early_write", "never_waits"] {
            let bench = Bench::new(seed, &x, 64);
            let fault = bench.follow(&format!("fault_{name}")).unwrap_err();
            assert_eq!(fault.kind, FaultKind::BeforeWait, "{seed:?}: {fault}");
            let at = source.lines().position(|l| l.ends_with(&format!("// FAULT {name}")));
            assert_eq!(fault.line, at.map_or(0, |at| at as u32 + 1), "{name}");
            // The same launch after one that has ended is right.
            bench.launch("test_leads", 2, 32, 1).unwrap();
            bench.launch(&format!("fault_{name}"), 2, 32, 1).unwrap();
        }
    }
}

/// Blocks that take turns may wait for those before them, however they come, and not for those after them.
#[test]
fn blocks_wait_for_those_whose_turn_was_before() {
    for seed in SEEDS {
        let bench = Bench::new(seed, &numbers(64), 64);
        bench.launch("test_turns", 100, 64, 1).unwrap();
        let expected: Vec<f32> = (1..=100).map(|n| n as f32).collect();
        assert_eq!(bench.y(100), expected);
        let bench = Bench::new(seed, &numbers(64), 64);
        let fault = bench.launch("fault_waits_for_later", 3, 32, 1).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Deadlock, "{fault}");
    }
}

#[test]
fn collectives_do_what_a_gpu_does() {
    for seed in SEEDS {
        let bench = Bench::new(seed, &numbers(64), 64);
        bench.launch("test_collectives", 1, 32, 1).unwrap();
        let got = bench.words(bench.args.counter, 512);
        for lane in 0..32u32 {
            let half = lane / 16 * 16;
            let base = lane / 8 * 8;
            let within = |l: i64, ok: bool| if ok { l as u32 } else { lane };
            let (l, b) = (i64::from(lane), i64::from(base));
            let expected = [
                lane ^ 5,
                within(l + 3, lane + 3 < 32),
                within(l - 3, lane >= 3),
                7,
                // 9 leads out of a segment of 8 upwards, or into an earlier one.
                within(l ^ 9, (l ^ 9) < b + 8),
                within(l + 3, l + 3 < b + 8),
                within(l - 3, l - 3 >= b),
                base + (7 + lane) % 8,
                (0..32).filter(|l| l % 3 == 0).map(|l| 1 << l).sum(),
                (half..half + 16).sum(),
                half,
                half + 15,
                0xffff << half,
                lane ^ 1,
                105,
                if lane % 2 == 1 { 116 } else { 100 },
            ];
            assert_eq!(got[16 * lane as usize..][..16], expected, "lane {lane}");
        }
    }
}

#[test]
fn tensor_cores_multiply_and_add() {
    let x: Vec<f32> = (0..384).map(|i| ((i * 7919) % 23) as f32 - 11.0).collect();
    for seed in SEEDS {
        let bench = Bench::new(seed, &x, 384);
        bench.launch("test_tensor_cores", 1, 32, 1).unwrap();
        let got = bench.y(256);
        for (at, got) in got.iter().enumerate() {
            let (row, column) = (at % 128 / 8, at % 8);
            let product: f32 = (0..16).map(|k| x[16 * row + k] * x[256 + 8 * k + column]).sum();
            // What is there already: 1 to 4, by the element of the fragment.
            let before = (1 + column % 2 + 2 * (row / 8)) as f32;
            assert_eq!(*got, product + before, "{row}, {column}");
        }
    }
}

#[test]
fn atomics_meet_across_blocks() {
    for seed in SEEDS {
        let bench = Bench::new(seed, &numbers(64), 64);
        bench.launch("test_last_block", 300, 32, 1).unwrap();
        assert_eq!(bench.y(1), [(299 * 300 / 2) as f32]);
        assert_eq!(bench.words(bench.args.counter, 1), [300]);
    }
}

#[test]
fn elements_beyond_the_32nd_bit_are_reached() {
    let mut bench = Bench::new(None, &numbers(1), 1);
    let elements = (1u64 << 32) + 12_345;
    let big = bench.emulator.alloc(4 * (elements + 1)).unwrap();
    bench.emulator.copy_to_device(big + 4 * elements, &7.5f32.to_le_bytes()).unwrap();
    bench.args = Args { x: big, y: big, n: elements, ..bench.args };
    bench.launch("test_far", 1, 32, 1).unwrap();
    bench.args.n = 12_345; // what is left of it in 32 bits was never written
    let fault = bench.launch("test_far", 1, 32, 1).unwrap_err();
    assert_eq!(fault.kind, FaultKind::GlobalUninitialised);
    bench.emulator.free(big).unwrap();
    bench.args.n = elements;
    let fault = bench.launch("test_far", 1, 32, 1).unwrap_err();
    assert_eq!(fault.kind, FaultKind::GlobalOutOfBounds);
}

#[test]
fn memory_runs_out_where_the_card_says() {
    let emulator = Emulator::new(Description { memory: 1000, ..Description::tiny() }).unwrap();
    let first = emulator.alloc(600).unwrap();
    let error = emulator.alloc(500).unwrap_err();
    assert_eq!((error.requested, error.free), (500, 400));
    emulator.free(first).unwrap();
    emulator.free(first).unwrap_err();
    assert_eq!(emulator.memory(), (1000, 1000));
    let again = emulator.alloc(1000).unwrap();
    assert!(!emulator.written(again, 1000).unwrap());
    emulator.set(again, 0, 999).unwrap();
    assert!(emulator.written(again, 999).unwrap());
    assert!(!emulator.written(again, 1000).unwrap());
    emulator.copy_to_device(again + 999, &[1, 2]).unwrap_err();
    emulator.forget(again, 10).unwrap();
    assert!(!emulator.written(again, 999).unwrap());
}

#[test]
fn launches_that_a_card_refuses() {
    let bench = Bench::new(None, &numbers(64), 64);
    let refused = |kernel: &str, blocks, threads, cluster| {
        let fault = bench.launch(kernel, blocks, threads, cluster).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Launch);
        fault.detail
    };
    assert!(refused("no_such_kernel", 1, 32, 1).contains("no such kernel"));
    assert!(refused("test_far", 1, 33, 1).contains("the limit is 32"));
    assert!(refused("test_far", 0, 32, 1).contains("blocks"));
    assert!(refused("test_far", 6, 32, 4).contains("clusters of 4 in 6 blocks"));
    assert!(refused("test_far", 32, 32, 32).contains("the largest is 16"));
    let small = Emulator::new(Description::a100()).unwrap();
    let launch = Launch {
        kernel: "test_far",
        grid: [2, 1],
        threads: 32,
        cluster: 2,
        shared: 0,
        leads: false,
        early: false,
        args: &[0; 32],
    };
    assert!(small.launch(&launch).unwrap_err().detail.contains("the largest is 1"));
    let launch = Launch { cluster: 1, shared: 164 << 10, ..launch };
    assert!(small.launch(&launch).unwrap_err().detail.contains("shared memory"));
    let launch = Launch { shared: 0, args: &[0; 31], ..launch };
    assert!(small.launch(&launch).unwrap_err().detail.contains("31 bytes"));
}

/// Every 16-bit value up, and every f32 near a rounding boundary down.
#[test]
fn half_width_conversions_round_as_the_half_crate_does() {
    for bits in 0..=u16::MAX {
        let (mine, theirs) = (convert::f16_to_f32(bits), f16::from_bits(bits).to_f32());
        assert!(
            mine.to_bits() == theirs.to_bits() || mine.is_nan() && theirs.is_nan(),
            "{bits:#x}"
        );
        let (mine, theirs) = (convert::bf16_to_f32(bits), bf16::from_bits(bits).to_f32());
        assert!(
            mine.to_bits() == theirs.to_bits() || mine.is_nan() && theirs.is_nan(),
            "{bits:#x}"
        );
    }
    // All sign and exponent bits, all of the mantissa that stays, and what decides the rounding.
    let tails = (0..64u32)
        .chain((0..13).map(|b| 1 << b))
        .chain((0x0fc0..0x1040).step_by(8))
        .chain([0x0fff, 0x1000, 0x1001, 0x1fff]);
    let tails: Vec<u32> = tails.collect();
    for high in 0..1u32 << 19 {
        for tail in &tails {
            check_narrowing((high << 13) | (tail & 0x1fff));
        }
    }
    let mut state = 1u32;
    for _ in 0..10_000_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        check_narrowing(state);
    }
}

fn check_narrowing(bits: u32) {
    let value = f32::from_bits(bits);
    if value.is_nan() {
        assert_eq!(convert::f32_to_f16(value), 0x7fff);
        assert_eq!(convert::f32_to_bf16(value), 0x7fff);
    } else {
        assert_eq!(convert::f32_to_f16(value), f16::from_f32(value).to_bits(), "{bits:#x}");
        assert_eq!(convert::f32_to_bf16(value), bf16::from_f32(value).to_bits(), "{bits:#x}");
    }
}
