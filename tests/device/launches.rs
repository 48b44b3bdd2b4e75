//! How many launches a warm call on device memory is, and that sums of losses have the same bits whoever
//! adds them up: the launch that writes the losses, or, of rows that come block by block from the
//! host, one after it.

use crate::residency::calls::numbers;
use warploss::emulator::Description;
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, ElementwiseGradOut, JsDivLogits, Mse, MultiMargin, Nll,
    Reduction, Result, Tensor, TensorRef,
};

/// What the calls below need, on a device or on the host.
struct Data {
    logits: Tensor,
    beside: Tensor,
    /// Probabilities.
    soft: Tensor,
    target: Tensor,
    /// Targets of which none is ignored.
    kept: Tensor,
    weight: Tensor,
    loss: Tensor,
    z_loss: Tensor,
}

impl Data {
    fn new(device: &Device, rows: usize, classes: usize) -> Data {
        let up =
            |v: &[f32], shape: &[usize]| device.upload(TensorRef::new(v, shape).unwrap()).unwrap();
        let shape = [rows, classes];
        let kept: Vec<i64> = (0..rows).map(|r| ((r * 97 + 5) % classes) as i64).collect();
        let target: Vec<i64> =
            kept.iter().zip(0..).map(|(&t, r)| if r % 7 == 3 { -100 } else { t }).collect();
        let soft: Vec<f32> =
            (0..rows * classes).map(|i| ((i % classes) < 2) as u8 as f32 * 0.5).collect();
        let weight: Vec<f32> = numbers(2, classes).iter().map(|w| w.abs() + 0.1).collect();
        Data {
            logits: up(&numbers(1, rows * classes), &shape),
            beside: up(&numbers(3, rows * classes), &shape),
            soft: up(&soft, &shape),
            kept: device.upload(TensorRef::new(&kept, &[rows]).unwrap()).unwrap(),
            target: device.upload(TensorRef::new(&target, &[rows]).unwrap()).unwrap(),
            weight: up(&weight, &[classes]),
            loss: up(&[f32::NAN], &[]),
            z_loss: up(&[f32::NAN], &[]),
        }
    }

    fn bits(&self) -> [u32; 2] {
        [&self.loss, &self.z_loss].map(|t| t.item().unwrap().to_bits())
    }
}

fn out<'a>(loss: &'a mut Tensor) -> CrossEntropyOut<'a> {
    CrossEntropyOut::loss(loss.view_mut())
}

/// A call, and what it launches where a row stays on chip or is read once.
type Call = (&'static str, u64, fn(&Device, &mut Data) -> Result<()>);
const CALLS: &[Call] = &[
    ("cross entropy", 2, |d, b| {
        CrossEntropy::default().forward_into(d, b.logits.view(), b.target.view(), out(&mut b.loss))
    }),
    ("cross entropy fused", 2, |d, b| {
        let (x, t) = (b.logits.view_mut(), b.target.view());
        CrossEntropy::default().forward_backward_in_place(d, x, t, 0.5, out(&mut b.loss))
    }),
    ("cross entropy fused, sum", 2, |d, b| {
        let loss = CrossEntropy::default().reduction(Reduction::Sum);
        loss.forward_backward_in_place(
            d,
            b.logits.view_mut(),
            b.target.view(),
            0.5,
            out(&mut b.loss),
        )
    }),
    ("cross entropy fused, weights and every option", 2, |d, b| {
        let loss = CrossEntropy::default().weight(b.weight.view()).label_smoothing(0.1);
        let loss = loss.lse_square_scale(1e-3).softcap(Some(20.0));
        let out = CrossEntropyOut { z_loss: Some(b.z_loss.view_mut()), ..out(&mut b.loss) };
        loss.forward_backward_in_place(d, b.logits.view_mut(), b.target.view(), 0.5, out)
    }),
    ("cross entropy, z-loss and weights", 2, |d, b| {
        let loss = CrossEntropy::default().weight(b.weight.view()).lse_square_scale(1e-3);
        let out = CrossEntropyOut { z_loss: Some(b.z_loss.view_mut()), ..out(&mut b.loss) };
        loss.forward_into(d, b.logits.view(), b.target.view(), out)
    }),
    ("soft targets", 2, |d, b| {
        CrossEntropy::default().forward_into(d, b.logits.view(), b.soft.view(), out(&mut b.loss))
    }),
    ("soft targets fused, weights", 2, |d, b| {
        let loss = CrossEntropy::default().weight(b.weight.view());
        let x = b.logits.view_mut();
        loss.forward_backward_in_place(d, x, b.soft.view(), 0.5, out(&mut b.loss))
    }),
    ("js-div from logits", 2, |d, b| {
        JsDivLogits::default().forward_into(d, b.logits.view(), b.beside.view(), b.loss.view_mut())
    }),
    ("js-div from logits, fused", 2, |d, b| {
        let (x, loss) = (b.logits.view_mut(), b.loss.view_mut());
        JsDivLogits::default().forward_backward_in_place(d, x, b.beside.view(), 0.5, loss)
    }),
    ("multi-margin", 2, |d, b| {
        let of = MultiMargin::default();
        of.forward_into(d, b.logits.view(), b.kept.view(), b.loss.view_mut())
    }),
    ("multi-margin fused", 2, |d, b| {
        let (x, loss) = (b.logits.view_mut(), b.loss.view_mut());
        MultiMargin::default().forward_backward_in_place(d, x, b.kept.view(), 0.5, loss)
    }),
    ("nll", 2, |d, b| {
        Nll::default().forward_into(d, b.logits.view(), b.target.view(), b.loss.view_mut())
    }),
    ("nll fused, weights", 3, |d, b| {
        let (x, loss) = (b.logits.view_mut(), b.loss.view_mut());
        let of = Nll::default().weight(b.weight.view());
        of.forward_backward_in_place(d, x, b.target.view(), 0.5, loss)
    }),
    ("mse fused", 2, |d, b| {
        let grads =
            ElementwiseGradOut { grad_input: Some(b.soft.view_mut()), ..Default::default() };
        let out = (b.loss.view_mut(), grads);
        Mse::default().forward_backward_into(d, b.logits.view(), b.beside.view(), 0.5, out)
    }),
];

#[test]
fn a_warm_call_is_two_launches() {
    // 10 and 120 classes: rows in registers; 1000: on chip and streamed; 4100: a cluster.
    for (rows, classes) in [(3, 10), (3, 120), (9, 1000), (9, 4100)] {
        for (name, launches, call) in CALLS {
            let device = Device::emulated(Description::tiny(), Some(5)).unwrap();
            let mut data = Data::new(&device, rows, classes);
            call(&device, &mut data).unwrap();
            let before = device.driver_calls().unwrap();
            call(&device, &mut data).unwrap();
            let after = device.driver_calls().unwrap();
            assert_eq!(after.launches - before.launches, *launches, "{name}, {rows} × {classes}");
            // Rows begin while the census runs. An elementwise loss has none, and nll no schedule of rows.
            let early = u64::from(!name.starts_with("mse") && !name.starts_with("nll"));
            assert_eq!(after.early - before.early, early, "{name}, {rows} × {classes}");
            assert_eq!(after.clears, before.clears, "{name}");
        }
    }
}

/// Neither on a card that does not have it, nor in a graph, whose replay keeps the order that was captured.
#[test]
fn launches_begin_early_where_that_is_known_to_work() {
    let (_, _, call) = CALLS[1];
    for (card, expected) in [(Description::h100(), 1), (Description::a100(), 0)] {
        let device = Device::emulated(card, None).unwrap();
        let mut data = Data::new(&device, 3, 120);
        call(&device, &mut data).unwrap();
        let bits = data.bits();
        let first = device.driver_calls().unwrap();
        assert_eq!(first.early, expected, "{}", device.description());
        let graph = device.capture(|| call(&device, &mut data)).unwrap();
        graph.replay().unwrap();
        assert_eq!(device.driver_calls().unwrap().early, expected, "captured");
        assert_ne!(data.bits(), bits, "the logits are gradients now");
    }
}

/// A card without clusters, whose cache holds some of the rows below and not all.
fn small_cache() -> Description {
    Description { l2: 1_740_000, cluster: 1, multiprocessors: 1, ..Description::tiny() }
}

/// Rows that nothing holds are visited twice by one launch, the counts of which are cleared before.
#[test]
fn two_visits_are_one_launch() {
    let (rows, classes) = (24, 40_003);
    let mut bits = None;
    for seed in [None, Some(1), Some(2)] {
        let device = Device::emulated(small_cache(), seed).unwrap();
        let mut data = Data::new(&device, rows, classes);
        let (name, _, call) = CALLS[1];
        call(&device, &mut data).unwrap();
        let before = device.driver_calls().unwrap();
        call(&device, &mut data).unwrap();
        let after = device.driver_calls().unwrap();
        assert_eq!(after.launches - before.launches, 2, "{name}: {:?}", device.schedules());
        assert_eq!(after.clears - before.clears, 1, "{name}");
        assert!(device.schedules()[0].contains("two visits"), "{:?}", device.schedules());
        // Whatever the order of blocks.
        let found = (data.bits(), data.logits.to_host().unwrap());
        assert_eq!(*bits.get_or_insert(found.clone()), found, "{seed:?}");
    }
}

/// One row, as many as a chunk has, one more or less, and several chunks, by every schedule.
#[test]
fn sums_have_the_same_bits_whoever_adds_them_up() {
    let shapes = [
        (1, 10),
        (4095, 10),
        (4096, 10),
        (4097, 10),
        (12_289, 7),
        (1, 1000),
        (1, 1000),
        (4099, 130),
    ];
    // The last: rows that no cluster of the card holds, and such that are visited twice by one launch.
    for (rows, classes) in shapes.into_iter().chain([(3, 20_000), (24, 40_003)]) {
        let card = if classes == 40_003 { small_cache() } else { Description::tiny() };
        let device = Device::emulated(card, Some(rows as u64)).unwrap();
        let mut resident = Data::new(&device, rows, classes);
        let mut host = Data::new(&Device::cpu(), rows, classes);
        let wanted =
            |name: &str| !name.starts_with("mse") && (classes < 40_003 || name.contains("fused"));
        for (name, _, call) in CALLS.iter().filter(|call| wanted(call.0)) {
            call(&device, &mut resident).unwrap();
            let logits = resident.logits.to_host().unwrap();
            call(&device, &mut host).unwrap();
            assert_eq!(resident.bits(), host.bits(), "{name}, {rows} × {classes}");
            assert_eq!(logits, host.logits, "{name}, {rows} × {classes}");
        }
    }
}

/// Tickets are as they were after a call, whatever the order of blocks.
#[test]
fn a_graph_of_several_chunks_is_replayed_to_the_same_bits() {
    for seed in 0..4 {
        let device = Device::emulated(Description::tiny(), Some(seed)).unwrap();
        let mut data = Data::new(&device, 8200, 10);
        let mut other = Data::new(&device, 4100, 10);
        for (name, _, call) in CALLS.iter().filter(|call| !call.0.contains("fused")) {
            call(&device, &mut data).unwrap();
            let expected = data.bits();
            let graph = device.capture(|| call(&device, &mut data)).unwrap();
            for _ in 0..2 {
                // Other calls between the replays take the same workspace, and the loss is theirs.
                CALLS[1].2(&device, &mut other).unwrap();
                let another = if *name == "nll" { "multi-margin" } else { "nll" };
                CALLS.iter().find(|call| call.0 == another).unwrap().2(&device, &mut data).unwrap();
                assert_ne!(data.bits(), expected, "{name}");
                graph.replay().unwrap();
                assert_eq!(data.bits(), expected, "{name}");
            }
        }
    }
}
