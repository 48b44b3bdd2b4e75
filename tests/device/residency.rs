//! Tensors on a device: where results lie, who waits and when, what a call asks of the driver, and
//! that threads and streams do not meet. On emulated cards, by the code that drives a GPU.

pub(super) mod calls;

use calls::{Buffers, CALLS, ROWS, bits, card, numbers};
use std::sync::atomic::{AtomicBool, Ordering};
use warploss::emulator::Description;
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, DriverCalls, Element, Error, LogSoftmax, Reduction,
    Tensor, TensorRef, bf16,
};

#[test]
fn a_warm_call_on_device_memory_only_launches_and_clears() {
    let device = card();
    for (name, call) in CALLS {
        let mut buffers = Buffers::new(&device, 1);
        // What a gradient reads.
        CALLS[0].1(&device, &mut buffers).unwrap();
        call(&device, &mut buffers).unwrap();
        let before = device.driver_calls().unwrap();
        call(&device, &mut buffers).unwrap();
        let after = device.driver_calls().unwrap();
        let DriverCalls { launches, terms, early, clears, .. } = after;
        let asked = DriverCalls { launches, terms, early, clears, ..before };
        assert_eq!(after, asked, "{name}");
        assert!(after.launches > before.launches, "{name}");
    }
}

#[test]
fn a_captured_call_gives_the_same_bits_when_it_is_replayed() {
    let device = card();
    for (name, call) in CALLS {
        let mut expected = Buffers::new(&device, 1);
        CALLS[0].1(&device, &mut expected).unwrap();
        call(&device, &mut expected).unwrap();

        let mut buffers = Buffers::new(&device, 1);
        CALLS[0].1(&device, &mut buffers).unwrap();
        let untouched = buffers.results();
        let graph = device.capture(|| call(&device, &mut buffers)).unwrap();
        assert!(graph.steps() > 0);
        assert_eq!(buffers.results(), untouched, "{name}: nothing runs while it is captured");
        // Neither trimming nor other calls may move what the graph works in.
        device.trim();
        let mut other = Buffers::new(&device, 9);
        CALLS[3].1(&device, &mut other).unwrap();
        graph.replay().unwrap();
        assert_eq!(buffers.results(), expected.results(), "{name}");
    }
}

#[test]
fn a_capture_refuses_what_a_graph_cannot_hold() {
    let device = card();
    let mut buffers = Buffers::new(&device, 1);
    // No workspace yet: it would have to be allocated.
    let cold = device.capture(|| CALLS[3].1(&device, &mut buffers)).unwrap_err();
    assert!(cold.to_string().contains("once before"), "{cold}");
    CALLS[3].1(&device, &mut buffers).unwrap();
    // Host tensors, and waiting.
    let (loss, logits) = (CrossEntropy::default(), numbers(1, 4));
    let host = device.capture(|| {
        let x = TensorRef::new(&logits, &[2, 2])?;
        loss.forward(&device, x, TensorRef::new(&[0i64, 1], &[2])?).map(drop)
    });
    assert!(host.unwrap_err().to_string().contains("captured"));
    let wait = device.capture(|| buffers.loss.item().map(drop)).unwrap_err();
    assert!(wait.to_string().contains("captured"), "{wait}");
    // And all is as before.
    device.capture(|| CALLS[3].1(&device, &mut buffers)).unwrap().replay().unwrap();
    assert!(buffers.loss.item().unwrap().is_finite());
}

#[test]
fn results_lie_beside_their_inputs() {
    let (device, cpu) = (card(), Device::cpu());
    let (b, host) = (Buffers::new(&device, 4), Buffers::new(&cpu, 4));
    assert!(b.logits.is_on_device() && !host.logits.is_on_device());
    let loss = CrossEntropy::default().reduction(Reduction::None);
    let waits = device.driver_calls().unwrap().waits;
    let out = loss.forward(&device, b.logits.view(), b.target.view()).unwrap();
    let lse = out.lse.view();
    let grad = loss.backward(&device, b.logits.view(), b.target.view(), lse, 1.0).unwrap();
    let done = loss.forward_backward(&device, b.logits.clone(), b.target.view(), 1.0).unwrap();
    let softmax = LogSoftmax::dim(-1).forward(&device, b.logits.view()).unwrap();
    assert_eq!(device.driver_calls().unwrap().waits, waits, "no call waits");
    let expected = loss.forward(&cpu, host.logits.view(), host.target.view()).unwrap();
    let close = |got: &Tensor, expected: &Tensor| {
        assert!(got.is_on_device() && got.as_slice::<f32>().is_none());
        let (got, expected) = (got.to_host().unwrap(), expected.view().to_f64().unwrap());
        for (g, e) in got.view().to_f64().unwrap().iter().zip(expected) {
            assert!((g - e).abs() <= 1e-5 * (1.0 + e.abs()), "{g}, expected {e}");
        }
    };
    close(&out.loss, &expected.loss);
    close(&out.lse, &expected.lse);
    let e = loss.backward(&cpu, host.logits.view(), host.target.view(), expected.lse.view(), 1.0);
    close(&grad, e.as_ref().unwrap());
    close(&done.grad_logits, e.as_ref().unwrap());
    close(&softmax, &LogSoftmax::dim(-1).forward(&cpu, host.logits.view()).unwrap());
    // The clone that was consumed was written; the tensor that it shared memory with was not.
    assert_eq!(bits(&b.logits), bits(&host.logits));
    // Host inputs: host results, as ever.
    let out = loss.forward(&device, host.logits.view(), host.target.view()).unwrap();
    assert!(!out.loss.is_on_device());
}

#[test]
fn clones_share_memory_until_one_is_written() {
    let device = card();
    let mut b = Buffers::new(&device, 5);
    let mut copy = b.loss.clone();
    assert_eq!(copy, b.loss);
    let out = CrossEntropyOut::loss(copy.view_mut());
    let loss = CrossEntropy::default();
    loss.forward_into(&device, b.logits.view(), b.target.view(), out).unwrap();
    assert!(copy.item().unwrap().is_finite() && b.loss.item().unwrap().is_nan());
    assert_ne!(copy, b.loss);
    let out = CrossEntropyOut::loss(b.loss.view_mut());
    loss.forward_into(&device, b.logits.view(), b.target.view(), out).unwrap();
    assert_eq!(bits(&copy), bits(&b.loss));
}

#[test]
fn uploads_and_copies_back_keep_every_bit() {
    let device = card();
    fn round<T: Element + Copy + PartialEq + std::fmt::Debug>(device: &Device, of: fn(usize) -> T) {
        for (rows, row, stride) in
            [(1, 1, 1), (3, 5, 9), (2, 5000, 5000), (7, 1700, 1701), (0, 4, 4)]
        {
            let data: Vec<T> = (0..rows * stride).map(of).collect();
            let view = TensorRef::with_row_stride(&data, &[rows, row], stride).unwrap();
            let tensor = device.upload(view).unwrap();
            let back = tensor.to_host().unwrap();
            let plain: Vec<T> = (0..rows * row).map(|i| data[i / row * stride + i % row]).collect();
            assert_eq!(back.as_slice::<T>().unwrap(), plain);
            // And strided on the device.
            if rows > 0 {
                let whole = device.upload(TensorRef::new(&data, &[data.len()]).unwrap()).unwrap();
                let strided = whole.view_as(&[rows, row], stride).unwrap();
                assert_eq!(strided.to_f64().unwrap(), view.to_f64().unwrap());
            }
        }
    }
    for device in [device, Device::cpu()] {
        round::<f32>(&device, |i| i as f32 * 0.37);
        round::<bf16>(&device, |i| bf16::from_bits((i * 7 % 30_000) as u16));
        round::<i64>(&device, |i| i as i64 * 1_000_003);
        round::<u8>(&device, |i| (i * 31 % 251) as u8);
    }
}

#[test]
fn memory_of_another_device_is_refused_by_name() {
    let (device, other) = (card(), card());
    let (b, elsewhere) = (Buffers::new(&device, 6), Buffers::new(&other, 6));
    let loss = CrossEntropy::default();
    let place = |error: Error, argument: &str| {
        assert!(matches!(error, Error::Place { .. }), "{error}");
        assert!(error.to_string().starts_with(argument), "{error}");
    };
    place(loss.forward(&device, b.logits.view(), elsewhere.target.view()).unwrap_err(), "target");
    place(loss.forward(&device, elsewhere.logits.view(), b.target.view()).unwrap_err(), "logits");
    place(Device::cpu().upload(b.logits.view()).unwrap_err(), "tensor");
    let cpu = loss.forward(&Device::cpu(), b.logits.view(), b.target.view());
    place(cpu.unwrap_err(), "logits");
    let mut out = elsewhere.loss.clone();
    let out = CrossEntropyOut::loss(out.view_mut());
    place(loss.forward_into(&device, b.logits.view(), b.target.view(), out).unwrap_err(), "loss");
}

#[test]
fn a_bad_target_on_the_device_comes_out_where_a_result_is_read() {
    let device = card();
    let b = Buffers::new(&device, 7);
    let bad = device.upload(TensorRef::new(&[0i64, 1, 2, 3, 301, 5], &[ROWS]).unwrap()).unwrap();
    let is_it = |error: &Error| matches!(error, Error::Target { row: 4, value: 301, .. });
    let loss = CrossEntropy::default();
    let call = || loss.forward(&device, b.logits.view(), bad.view()).unwrap();
    assert!(is_it(&call().loss.item().unwrap_err()));
    assert!(is_it(&call().lse.to_host().unwrap_err()));
    call();
    assert!(is_it(&device.check().unwrap_err()));
    device.check().unwrap();
    // A call with a result on the host has its own error, and no other's.
    call();
    let host = numbers(1, 4);
    let view = TensorRef::new(&host, &[2, 2]).unwrap();
    loss.forward(&device, view, TensorRef::new(&[0i64, 1], &[2]).unwrap()).unwrap();
    let own = loss.forward(&device, view, TensorRef::new(&[0i64, 2], &[2]).unwrap()).unwrap_err();
    assert!(matches!(own, Error::Target { row: 1, value: 2, .. }), "{own}");
    assert!(is_it(&device.check().unwrap_err()));
    device.check().unwrap();
}

#[test]
fn tensors_of_one_stream_serve_on_another() {
    let first = card();
    let second = first.another_stream().unwrap();
    let b = Buffers::new(&first, 8);
    let orders = || second.driver_calls().unwrap().orders + first.driver_calls().unwrap().orders;
    let before = orders();
    let loss = CrossEntropy::default();
    let there = loss.forward(&second, b.logits.view(), b.target.view()).unwrap();
    // The second waits for the first for each of the two inputs, and the first for the second.
    assert_eq!(orders() - before, 4);
    let here = loss.forward(&first, b.logits.view(), b.target.view()).unwrap();
    drop(b);
    assert_eq!(bits(&there.lse), bits(&here.lse));
}

#[test]
fn threads_and_streams_do_not_meet() {
    let cards = [card(), Device::emulated(Description::h100(), None).unwrap()];
    let streams: Vec<Device> = cards
        .iter()
        .flat_map(|card| [card.clone(), card.clone(), card.another_stream().unwrap()])
        .collect();
    // In turn, on streams of their own.
    let run = |device: &Device, seed: u64| -> Vec<Vec<Vec<u32>>> {
        let mut b = Buffers::new(device, seed);
        let order = |i: usize| (seed as usize * 7 + i * i) % CALLS.len();
        CALLS[0].1(device, &mut b).unwrap();
        (0..CALLS.len())
            .map(|i| {
                CALLS[order(i)].1(device, &mut b).unwrap();
                b.results()
            })
            .collect()
    };
    let serial: Vec<_> = cards
        .iter()
        .flat_map(|card| std::iter::repeat_n(card, 3))
        .zip(0..)
        .map(|(card, seed)| run(&card.another_stream().unwrap(), seed))
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .iter()
            .zip(0..)
            .map(|(device, seed)| scope.spawn(move || run(device, seed)))
            .collect();
        // Meanwhile a stream of its own has nothing but errors, and host results theirs.
        let noisy = cards[0].another_stream().unwrap();
        let (done, cards) = (&done, &cards);
        scope.spawn(move || {
            let b = Buffers::new(&noisy, 99);
            let bad = noisy.upload(TensorRef::new(&[-1i64; ROWS], &[ROWS]).unwrap()).unwrap();
            let host = numbers(2, 6);
            let view = TensorRef::new(&host, &[2, 3]).unwrap();
            while !done.load(Ordering::Relaxed) {
                let loss = CrossEntropy::default();
                let out = loss.forward(&noisy, b.logits.view(), bad.view()).unwrap();
                assert!(matches!(out.loss.item(), Err(Error::Target { row: 0, value: -1, .. })));
                // On a stream that others use at the same time.
                let target = TensorRef::new(&[0i64, 3], &[2]).unwrap();
                let own = loss.forward(&cards[0], view, target).unwrap_err();
                assert!(matches!(own, Error::Target { row: 1, value: 3, .. }), "{own}");
            }
        });
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        for (i, (got, expected)) in results.into_iter().zip(&serial).enumerate() {
            assert!(got.expect("no panic") == *expected, "thread {i}");
        }
    });
}

#[test]
fn out_of_memory_says_what_is_free_and_costs_nothing() {
    let description = Description { memory: 1 << 20, ..Description::tiny() };
    let device = Device::emulated(description, None).unwrap();
    let (small, large) = (numbers(1, 1000), numbers(2, 400_000));
    let target = [1i64; 10];
    let target = TensorRef::new(&target, &[2, 5]).unwrap();
    let loss = CrossEntropy::default();
    // Classes in the middle: a tensor that is worked on as a whole.
    let run = |data: &[f32]| {
        loss.forward(&device, TensorRef::new(data, &[2, data.len() / 10, 5])?, target)
    };
    let first = run(&small).unwrap();
    let held = device.trim();
    for _ in 0..3 {
        let error = run(&large).unwrap_err();
        let Error::OutOfMemory { argument: "logits", bytes, free: Some(free) } = error else {
            panic!("{error}");
        };
        assert!(bytes >= 1_600_000 && free < 1 << 20 && free > 1 << 19, "{bytes}, {free}");
        assert!(error.to_string().contains(&format!("{free} are free")), "{error}");
        assert_eq!(run(&small).unwrap(), first, "usable as before");
        assert_eq!(device.trim(), held, "nothing lost");
    }
    let error = device.upload(TensorRef::new(&large, &[400_000]).unwrap()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { free: Some(_), .. }), "{error}");
}

/// Every size about a tile's, both element sizes: the CPU's result, and each element read and
/// written once on the way to the lines and once on the way back.
#[test]
fn many_classes_in_the_middle_are_turned_tile_by_tile() {
    let (device, cpu) = (card(), Device::cpu());
    fn check<T: Element + Copy>(device: &Device, cpu: &Device, of: fn(f32) -> T, within: f64) {
        for n in [1, 3] {
            // Fewer stay as they lie.
            for classes in [1025, 1055, 1056] {
                for positions in [2, 31, 32, 33] {
                    let shape = [n, classes, positions];
                    let data: Vec<T> =
                        numbers(3, n * classes * positions).into_iter().map(of).collect();
                    let view = TensorRef::new(&data, &shape).unwrap();
                    let there = device.upload(view).unwrap();
                    let softmax = LogSoftmax::dim(1);
                    let mut got = device.upload(view).unwrap();
                    let before = device.traffic().unwrap();
                    softmax.forward_into(device, there.view(), got.view_mut()).unwrap();
                    let after = device.traffic().unwrap();
                    let bytes = (n * classes * positions * size_of::<T>()) as u64;
                    assert_eq!(after.1 - before.1, 3 * bytes, "{shape:?}: bytes written");
                    let mut expected = Tensor::from_vec(data.clone(), &shape).unwrap();
                    softmax.forward_into(cpu, view, expected.view_mut()).unwrap();
                    let got = got.view().to_f64().unwrap();
                    for (g, e) in got.iter().zip(expected.view().to_f64().unwrap()) {
                        assert!((g - e).abs() <= within * (1.0 + e.abs()), "{shape:?}: {g}, {e}");
                    }
                }
            }
        }
    }
    check::<f32>(&device, &cpu, |x| x, 2e-6);
    check::<bf16>(&device, &cpu, bf16::from_f32, 1.0 / 128.0);
}

#[test]
fn class_weights_are_summed_over_blocks() {
    let (device, cpu) = (card(), Device::cpu());
    for classes in [1, 4095, 4096, 4097, 9001] {
        let logits = numbers(1, 2 * classes);
        let mut weight: Vec<f32> = numbers(2, classes).iter().map(|w| w.abs()).collect();
        let target = [0i64, classes as i64 - 1];
        let target = TensorRef::new(&target, &[2]).unwrap();
        let logits = TensorRef::new(&logits, &[2, classes]).unwrap();
        let run = |device: &Device, weight: &[f32]| {
            let weight = TensorRef::new(weight, &[classes])?;
            let loss = CrossEntropy::default().weight(weight).label_smoothing(0.5);
            loss.forward(device, logits, target)?.loss.item()
        };
        let (got, expected) = (run(&device, &weight).unwrap(), run(&cpu, &weight).unwrap());
        assert!((got - expected).abs() <= 2e-6 * (1.0 + expected.abs()), "{got}, {expected}");
        assert_eq!(run(&device, &weight).unwrap().to_bits(), got.to_bits());
        for bad in [classes - 1, classes / 2] {
            weight[bad] = f32::INFINITY;
            let error = run(&device, &weight).unwrap_err();
            assert!(
                matches!(error, Error::NotFinite { index, got, .. } if index == bad && got == f32::INFINITY),
                "{error}"
            );
        }
    }
}

/// Where the process may not have the addresses, there is an error and no panic.
#[cfg(all(unix, feature = "cli"))]
#[test]
fn a_card_without_address_space_is_an_error() {
    let limited = |kib: u32| {
        let command = format!(
            "ulimit -v {kib} && exec {} check cross-entropy --cases 1 --device emulated",
            env!("CARGO_BIN_EXE_warploss")
        );
        let run = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (code, said) = limited(800 << 10);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 GiB of address space") && !said.contains("panicked"), "{said}");
}
