//! Rows so far apart that offsets pass 2³¹ and 2³² elements. Memory is reserved, not committed:
//! what is not touched costs nothing, on the host and on the emulated card.

use crate::schedules::Route;
use crate::schedules::calls::{CALLS, lse_of};
use crate::schedules::data::{Data, Input, Layout, Rows};
use crate::schedules::remainders::ROUTES;
use memmap2::{MmapMut, MmapOptions};
use warploss::{CrossEntropy, Device, LogSumExp, Reduction, TensorMut, TensorRef, bf16, f16};

/// Row 1 lies beyond 2³¹ elements, row 2 beyond 2³²; neither on 16 bytes.
const STRIDE: usize = (1 << 31) + 7;
const ROWS: usize = 3;

/// Zeros that are there once they are touched.
struct Sparse(MmapMut);

impl Sparse {
    fn new<T>(elements: usize) -> Sparse {
        let bytes = elements * size_of::<T>();
        Sparse(MmapOptions::new().len(bytes).no_reserve_swap().map_anon().unwrap())
    }

    fn get<T: Data>(&mut self) -> &mut [T] {
        let elements = self.0.len() / size_of::<T>();
        // SAFETY: pages are aligned for any element, and zeros are elements of every type.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), elements) }
    }
}

fn check<T: Data>(route: &Route, devices: (&Device, &Device)) {
    let layout = Layout { rows: ROWS, classes: route.classes, stride: STRIDE, pixels: 0 };
    let rows = Rows::<T>::new(ROWS, route.classes, true);
    let [mut x, mut upstream, mut got, mut expected] =
        [(); 4].map(|()| Sparse::new::<T>(layout.reach()));
    layout.scatter(&rows.x, x.get());
    layout.scatter(&rows.upstream, upstream.get());
    for call in CALLS {
        let mut input: Input<'_, T> = Input {
            layout,
            x: &*x.get(),
            upstream: &*upstream.get(),
            target: &rows.target,
            per_row: &rows.per_row,
            lse: &[],
        };
        let lse = lse_of(call, devices.1, &input);
        input.lse = &lse;
        call.compare(route.schedule, devices, &input, [got.get(), expected.get()]);
    }
}

#[test]
fn offsets_beyond_2_to_the_32_agree_with_the_cpu() {
    let cpu = Device::cpu();
    for route in ROUTES {
        // A card of its own for each: no memory is handed out twice.
        check::<f32>(&route, (&route.device(), &cpu));
        check::<f16>(&route, (&route.device(), &cpu));
        check::<bf16>(&route, (&route.device(), &cpu));
    }
}

/// Rows that are gathered and scattered on the card, because their classes are not the last
/// dimension.
#[test]
fn permuted_rows_beyond_2_to_the_32_agree_with_the_cpu() {
    let (cpu, device) = (Device::cpu(), ROUTES[0].device());
    let (shape, inner) = ([3, 50, 5], 50 * 5);
    let layout = Layout { rows: 3, classes: inner, stride: STRIDE, pixels: 0 };
    let rows = Rows::<f32>::new(3, inner, true);
    let target: Vec<i64> = (0..15).map(|i| i * 7 % 50).collect();
    let target = TensorRef::new(&target, &[3, 5]).unwrap();
    let op = CrossEntropy::default().reduction(Reduction::Sum);
    let answers = [&device, &cpu].map(|device| {
        let mut x = Sparse::new::<f32>(layout.reach());
        layout.scatter(&rows.x, x.get());
        let view = TensorRef::with_row_stride(x.get::<f32>(), &shape, STRIDE).unwrap();
        let lse = LogSumExp::dims(&[1]).unwrap().forward(device, view).unwrap();
        let mut loss = [0f32];
        let out = warploss::CrossEntropyOut::loss(TensorMut::new(&mut loss, &[]).unwrap());
        let logits = TensorMut::with_row_stride(x.get::<f32>(), &shape, STRIDE).unwrap();
        op.forward_backward_in_place(device, logits, target, 0.5, out).unwrap();
        let mut all: Vec<f64> = lse.view().to_f64().unwrap();
        all.push(loss[0].into());
        all.extend(layout.gather(x.get::<f32>()).into_iter().map(f64::from));
        all
    });
    crate::schedules::data::close("permuted", &answers[0], &answers[1], 1e-5);
}
