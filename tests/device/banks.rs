//! Shared memory by banks: turns that are lost are counted, and tiles of products lose none.

use half::{bf16, f16};
use warploss::emulator::{Description, Emulator, Fault, FaultKind, Launch, LaunchStats};

/// `BankArgs` of `tests/kernels/banks.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    x: u64,
    y: u64,
    rows: i64,
    stride: i64,
    width: i64,
}

/// Runs a kernel over `x`, and returns that many numbers of what it wrote.
fn run(
    (kernel, threads, seed): (&str, u32, Option<u64>),
    x: &[u8],
    [rows, stride, width]: [usize; 3],
    written: usize,
) -> Result<(Vec<f32>, LaunchStats), Fault> {
    let emulator =
        Emulator::new(Description { bank_conflicts: true, ..Description::h100() }).unwrap();
    let emulator = match seed {
        None => emulator,
        Some(seed) => emulator.with_seed(seed),
    };
    let from = emulator.alloc(x.len() as u64).unwrap();
    emulator.copy_to_device(from, x).unwrap();
    let to = emulator.alloc(4 * written as u64).unwrap();
    let [rows, stride, width] = [rows, stride, width].map(|n| n as i64);
    let args = Args { x: from, y: to, rows, stride, width };
    // SAFETY: five words without padding.
    let args = unsafe { std::slice::from_raw_parts((&raw const args).cast(), size_of::<Args>()) };
    // Stages, which other kernels do not ask for.
    let shared = if kernel.contains("stages") { 3 * (128 + 256) * 32 * 2 } else { 0 };
    let (grid, cluster, leads, early) = ([1, 1], 1, false, false);
    let launch = Launch { kernel, grid, threads, cluster, shared, leads, early, args };
    let stats = emulator.launch(&launch)?;
    let mut bytes = vec![0; 4 * written];
    emulator.copy_to_host(to, &mut bytes).unwrap();
    let (words, _) = bytes.as_chunks();
    Ok((words.iter().map(|&word| f32::from_le_bytes(word)).collect(), stats))
}

#[test]
fn words_of_one_bank_take_turns() {
    // Written and read.
    for (stride, lost) in [(1, 0), (33, 0), (2, 2), (4, 6), (32, 62), (36, 6)] {
        for seed in [None, Some(3)] {
            let (words, stats) =
                run(("test_strided_words", 32, seed), &[0; 16], [1, stride, 1], 32).unwrap();
            assert_eq!(words[31], (31 * stride) as f32);
            assert_eq!(stats.bank_conflicts, lost, "{stride} words apart, {seed:?}");
        }
    }
}

#[test]
fn a_tile_turned_word_by_word_loses_seven_turns_of_eight() {
    let (_, stats) = run(("test_turned_words", 256, None), &[0; 16], [1; 3], 1).unwrap();
    // Two words in each of 32 rounds of a warp.
    assert_eq!(stats.bank_conflicts, 2 * 32 * 7);
}

/// Whole numbers that are small enough to be exact in each type, and as sums.
fn rows([rows, stride, width]: [usize; 3]) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + i / 11) % 7) as f32 - 3.0;
    let mut x = vec![f32::NAN; rows * stride];
    for row in 0..rows {
        for column in 0..width {
            x[row * stride + column] = number(row * width + column);
        }
    }
    x
}

/// `(x·xᵀ)·x` of the first 128 rows.
fn twice(x: &[f32], [rows, stride, width]: [usize; 3]) -> Vec<f32> {
    let at = |row: usize, column: usize| x[row * stride + column];
    let mut sums = Vec::new();
    for own in 0..rows.min(128) {
        let dot = |row| (0..width).map(|c| at(own, c) * at(row, c)).sum::<f32>();
        let z: Vec<f32> = (0..rows).map(dot).collect();
        sums.extend((0..width).map(|c| (0..rows).map(|row| z[row] * at(row, c)).sum::<f32>()));
    }
    sums
}

#[test]
fn tiles_of_products_lose_no_turn() {
    // Rows that begin at multiples of 16 bytes, and such as do not; tiles that are not full, a single one, and none.
    let shapes = [
        [200, 64, 64],
        [192, 16, 16],
        [130, 32, 32],
        [65, 56, 50],
        [64, 8, 7],
        [70, 13, 13],
        [300, 48, 1],
        [3, 41, 40],
    ];
    for shape in shapes {
        let (x, count) = (rows(shape), shape[0].min(128) * shape[2]);
        let expected = twice(&x, shape);
        let wide = x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let half = x.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect::<Vec<_>>();
        let brain = x.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect::<Vec<_>>();
        for (kernel, bytes) in
            [("test_tiles_f32", &wide), ("test_tiles_f16", &half), ("test_tiles_bf16", &brain)]
        {
            for seed in [None, Some(1), Some(77)] {
                let (got, stats) = run((kernel, 256, seed), bytes, shape, count).unwrap();
                assert_eq!(got, expected, "{kernel}, {shape:?}, {seed:?}");
                assert_eq!(stats.bank_conflicts, 0, "{kernel}, {shape:?}, {seed:?}");
            }
        }
    }
}

/// What is brought while others read what lies there is a race, though it comes without registers.
#[test]
fn a_tile_that_comes_too_soon_is_caught() {
    let shape = [64, 16, 16];
    let bytes: Vec<u8> =
        rows(shape).iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    for seed in [None, Some(1), Some(2), Some(77)] {
        let fault = run(("fault_tiles_too_soon", 256, seed), &bytes, shape, 64 * 16).unwrap_err();
        assert_eq!(fault.kind, FaultKind::SharedRace, "{seed:?}: {fault}");
    }
}

/// `x·xᵀ` of the first 128 rows.
fn products(x: &[f32], [rows, stride, width]: [usize; 3]) -> Vec<f32> {
    let row = |row: usize| &x[row * stride..][..width];
    let dot = |a: usize, b: usize| row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum::<f32>();
    (0..rows.min(128))
        .flat_map(|a| (0..rows).map(move |b| (a, b)))
        .map(|(a, b)| dot(a, b))
        .collect()
}

#[test]
fn stages_of_products_lose_no_turn() {
    // Rows that begin at multiples of 16 bytes, and such as do not; tiles and stages that are not full.
    for shape in [[300, 64, 64], [257, 40, 33], [128, 96, 95], [65, 13, 13], [3, 200, 200]] {
        let (x, count) = (rows(shape), shape[0].min(128) * shape[0]);
        let expected = products(&x, shape);
        let half = x.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect::<Vec<_>>();
        let brain = x.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect::<Vec<_>>();
        for (kernel, bytes) in [("test_stages_f16", &half), ("test_stages_bf16", &brain)] {
            for seed in [None, Some(7)] {
                let (got, stats) = run((kernel, 256, seed), bytes, shape, count).unwrap();
                assert_eq!(got, expected, "{kernel}, {shape:?}, {seed:?}");
                assert_eq!(stats.bank_conflicts, 0, "{kernel}, {shape:?}, {seed:?}");
            }
        }
    }
}

#[test]
fn a_stage_that_is_read_before_all_have_met_is_caught() {
    let shape = [64, 160, 160];
    let bytes: Vec<u8> =
        rows(shape).iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    for seed in [None, Some(1), Some(77)] {
        let fault = run(("fault_stages_too_soon", 256, seed), &bytes, shape, 64 * 64).unwrap_err();
        // Whichever thread is first finds what others have not brought yet.
        let kinds = [FaultKind::SharedRace, FaultKind::SharedUninitialised];
        assert!(kinds.contains(&fault.kind), "{seed:?}: {fault}");
    }
}
