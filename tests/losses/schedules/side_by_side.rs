//! Rows side by side, the pixels of images: that every call goes through them as they lie, agrees with the
//! CPU, reads each element once and writes it once, and gives the same bits every time.

use crate::schedules::calls::{CALLS, Call, Loss, lse_of};
use crate::schedules::data::{Data, Input, Layout, PADDING, Rows};
use warploss::emulator::Description;
use warploss::{Device, bf16, f16};

/// Images, their classes, their pixels, elements of padding behind each, and threads of a pixel. A card of two
/// multiprocessors is filled by few.
const SHAPES: [(usize, usize, usize, usize, &str); 7] = [
    (2, 2, 600, 0, "a thread a row"),
    (9, 21, 131, 0, "a thread a row"),
    // Groups smaller than a warp, and images that do not begin on 16 bytes.
    (30, 19, 49, 5, "a thread a row"),
    (1, 10, 300, 0, "2 threads a row"),
    (3, 150, 70, 1, "threads a row"),
    (2, 333, 33, 0, "8 threads a row"),
    (1, 700, 35, 0, "8 threads a row"),
];

fn card(counted: usize) -> Description {
    let counted = counted as u64;
    Description {
        multiprocessors: 2,
        counted,
        staging: 4 * counted as usize,
        ..Description::h100()
    }
}

/// Runs every call; `tame`: and counts what it moves.
fn check<T: Data>(layout: Layout, schedule: &str, tame: bool) {
    let rows = Rows::<T>::new(layout.rows, layout.classes, tame);
    let spread = |data: &[T]| {
        let mut memory = vec![T::of(PADDING); layout.reach()];
        layout.scatter(data, &mut memory);
        memory
    };
    let (x, upstream) = (spread(&rows.x), spread(&rows.upstream));
    let (target, per_row) = (&rows.target[..], &rows.per_row[..]);
    let cpu = Device::cpu();
    let size = size_of::<T>();
    // The likeliest classes of a row take another way.
    for call in CALLS.into_iter().filter(|call| call.0 != Loss::CrossEntropyTop) {
        let mut input = Input { layout, x: &x, upstream: &upstream, target, per_row, lse: &[] };
        let lse = lse_of(call, &cpu, &input);
        input.lse = &lse;
        let what = format!("{layout:?} {call:?} {}", T::DTYPE);
        let description = card(layout.reach() * size);
        let device = Device::emulated(description.clone(), Some(5)).unwrap();
        let (mut got, mut expected) = (x.clone(), x.clone());
        call.compare(schedule, (&device, &cpu), &input, [&mut got, &mut expected]);
        assert!(layout.padding_stands(&got), "{what}: wrote between images");
        let notes = device.schedules();
        let note = notes.iter().find(|note| note.starts_with(&call.note(&T::DTYPE.to_string())));
        assert!(note.is_some_and(|note| note.contains(schedule)), "{what}: {notes:?}");
        // Threads in another order.
        let other = Device::emulated(description, Some(6)).unwrap();
        let mut again = x.clone();
        call.run(&other, &input, &mut again);
        let same = |(a, b): (&T, &T)| a == b || a.f64().is_nan() && b.f64().is_nan();
        assert!(got.iter().zip(&again).all(same), "{what}: other bits");
        // Of few classes what a row has besides is as large as the logits, and is counted with them.
        if tame && layout.classes > 8 && layout.stride == layout.dense().stride {
            moves(call, &what, &device, layout, size);
        }
    }
}

/// Each element once, but for the targets, which the threads of a row read besides.
fn moves(call: Call, what: &str, device: &Device, layout: Layout, size: usize) {
    let (read, written) = device.traffic().unwrap();
    let elements = (layout.rows * layout.classes) as u64;
    let model = call.traffic(size);
    let besides = if call.has_target() { (8 * layout.rows * size) as u64 } else { 0 };
    let expected = elements * model.read as u64;
    assert!(
        (expected..=expected + besides).contains(&read),
        "{what}: {read} bytes, not {expected}"
    );
    assert_eq!(written, elements * model.written as u64, "{what}");
}

#[test]
fn pixels_are_gone_through_as_they_lie_and_agree_with_the_cpu() {
    for (images, classes, pixels, padding, schedule) in SHAPES {
        let stride = classes * pixels + padding;
        for tame in [true, false] {
            let layout = Layout { rows: images * pixels, classes, stride, pixels };
            check::<f32>(layout, schedule, tame);
            check::<f16>(layout, schedule, tame);
            check::<bf16>(layout, schedule, tame);
        }
    }
}

/// Beyond the schedule's classes, and where somebody asks for another, rows are turned.
#[test]
fn long_pixels_are_turned() {
    let layout = Layout { rows: 40, classes: 1025, stride: 1025 * 40, pixels: 40 };
    let rows = Rows::<f32>::new(layout.rows, layout.classes, true);
    let mut x = vec![0f32; layout.reach()];
    layout.scatter(&rows.x, &mut x);
    let (target, per_row) = (&rows.target[..], &rows.per_row[..]);
    let input = Input { layout, x: &x, upstream: &x, target, per_row, lse: &[] };
    let (device, cpu) = (Device::emulated(card(1 << 20), None).unwrap(), Device::cpu());
    let (mut got, mut expected) = (x.clone(), x.clone());
    CALLS[2].compare("turned", (&device, &cpu), &input, [&mut got, &mut expected]);
    assert!(!device.schedules()[0].contains("side by side"), "{:?}", device.schedules());
}
