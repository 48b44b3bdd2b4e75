//! What is given beside the loss, what is found on the device, who waits, and what there is nothing of.

use super::*;

/// Likeliest classes that are asked for: more than a thread keeps.
const TOP: usize = 20;

#[test]
fn probabilities_and_their_gradient() {
    fn agrees<T: Number>(budget: usize) {
        let sizes @ [n, _, v] = [13, 9, 307];
        let (data, device) = (Data::<T>::new(sizes, false), card());
        let resident = Resident::new(&device, &data, true);
        let options = CrossEntropy::default().reduction(Reduction::Sum).label_smoothing(0.1);
        let loss = LinearCrossEntropy::from(options.clone()).max_workspace_bytes(budget);
        let zeros = |shape: &[usize]| up(&device, &vec![T::of(0.0); shape.iter().product()], shape);
        let [mut d_x, mut d_w] = [zeros(&[n, sizes[1]]), zeros(&[v, sizes[1]])];
        let mut d_q = zeros(&[n, v]);
        let mut total = up(&device, &[0f32], &[]);
        let gradients = LinearGradOut {
            input: Some(d_x.view_mut()),
            linear_weight: Some(d_w.view_mut()),
            target: Some(d_q.view_mut()),
            ..LinearGradOut::default()
        };
        let out = CrossEntropyOut::loss(total.view_mut());
        loss.forward_backward_into(&device, &resident.input(true), 0.5, gradients, out).unwrap();

        let alone = options.reduction(Reduction::None);
        let mut z = data.logits([true, true]);
        let q: Vec<f32> = data.probabilities.iter().map(|q| q.wide() as f32).collect();
        let given: Vec<f32> = data.u.iter().map(|u| 0.5 * u).collect();
        let mut losses = vec![0f32; n];
        let mut of_q = vec![0f32; n * v];
        let gradients = warploss::CrossEntropyGradients {
            logits: TensorMut::new(&mut z, &[n, v]).unwrap(),
            target: Some(TensorMut::new(&mut of_q, &[n, v]).unwrap()),
        };
        let out = CrossEntropyOut::loss(TensorMut::new(&mut losses, &[n]).unwrap());
        alone
            .forward_backward_in_place(
                &Device::cpu(),
                gradients,
                TensorRef::new(&q, &[n, v]).unwrap(),
                GradOutput::Tensor(TensorRef::new(&given, &[n]).unwrap()),
                out,
            )
            .unwrap();
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
        let sum = losses.iter().zip(&data.u).map(|(l, u)| f64::from(*l) * f64::from(*u)).sum();
        near("loss", &host::<f32>(&total), &[sum], 1e-5);
        let [of_x, of_w, _] = products_back(&data, &z, true);
        near("grad_input", &host::<T>(&d_x), &of_x, T::OFF);
        near("grad_linear_weight", &host::<T>(&d_w), &of_w, T::OFF);
        near("grad_target", &host::<T>(&d_q), &wide(&of_q), T::OFF);
    }
    for budget in [100_000, 1 << 20] {
        agrees::<f32>(budget);
        agrees::<bf16>(budget);
    }
}

#[test]
fn ranks_and_numbers_of_rows_with_their_gradients() {
    let sizes @ [n, d, v] = [19, 10, 203];
    let (data, device) = (Data::<f32>::new(sizes, true), card());
    let resident = Resident::new(&device, &data, false);
    let given: Vec<Vec<f32>> =
        (0..3).map(|i| numbers(20 + i, n).map(|x| x as f32).collect()).collect();
    let options = CrossEntropy::default().reduction(Reduction::None);
    // By a device and logits over τ, or by hidden rows.
    let run = |linear: bool| {
        let device = if linear { &device } else { &Device::cpu() };
        let zeros = || up(device, &vec![0f32; n], &[n]);
        let [mut loss, mut logprob, mut entropy] = [zeros(), zeros(), zeros()];
        let mut top = up(device, &vec![0f32; TOP * n], &[n, TOP]);
        let count = || up(device, &vec![0i64; n], &[n]);
        let [mut rank, mut argmax] = [count(), count()];
        let mut classes = up(device, &vec![0i64; TOP * n], &[n, TOP]);
        let upstreams: Vec<Tensor> = given.iter().map(|g| up(device, g, &[n])).collect();
        let upstream = CrossEntropyUpstream {
            grad_output: GradOutput::Tensor(upstreams[0].view()),
            grad_logprob: GradOutput::Tensor(upstreams[1].view()),
            grad_entropy: GradOutput::Tensor(upstreams[2].view()),
        };
        let mut d_x = up(device, &vec![0f32; n * d], &[n, d]);
        let mut z = data.logits([true, true]);
        let out = CrossEntropyOut {
            rank: Some(rank.view_mut()),
            argmax: Some(argmax.view_mut()),
            logprob: Some(logprob.view_mut()),
            entropy: Some(entropy.view_mut()),
            top_k: Some(TopKOut { classes: classes.view_mut(), logprob: top.view_mut() }),
            ..CrossEntropyOut::loss(loss.view_mut())
        };
        let gradient = if linear {
            let gradients =
                LinearGradOut { input: Some(d_x.view_mut()), ..LinearGradOut::default() };
            let input = LinearInput { row_weight: None, ..resident.input(true) };
            LinearCrossEntropy::from(options.clone())
                .max_workspace_bytes(70_000)
                .forward_backward_into(device, &input, upstream, gradients, out)
                .unwrap();
            host::<f32>(&d_x)
        } else {
            let target = TensorRef::new(&data.target, &[n]).unwrap();
            let logits = TensorMut::new(&mut z, &[n, v]).unwrap();
            options.forward_backward_in_place(device, logits, target, upstream, out).unwrap();
            let [d_x, ..] = products_back(&data, &z, true);
            d_x
        };
        let indices = [rank, argmax, classes].map(|t| t.to_host().unwrap());
        let indices = indices.map(|t| t.as_slice::<i64>().unwrap().to_vec());
        ([loss, logprob, entropy, top].map(|t| host::<f32>(&t)), indices, gradient)
    };
    let (linear, plain) = (run(true), run(false));
    for (got, wanted) in linear.0.iter().zip(&plain.0) {
        near("numbers of rows", got, wanted, 1e-5);
    }
    assert_eq!(linear.1, plain.1);
    near("grad_input", &linear.2, &plain.2, 1e-5);
}

#[test]
fn what_is_wrong_with_a_row_is_found_on_the_device() {
    let sizes = [7, 4, 11];
    let wrong = |change: &dyn Fn(&mut Data<f32>)| {
        let (mut data, device) = (Data::<f32>::new(sizes, true), card());
        change(&mut data);
        let resident = Resident::new(&device, &data, false);
        let loss = LinearCrossEntropy::default();
        let result = loss.forward_backward(&device, &resident.input(true), 1.0).unwrap();
        match device.check() {
            Ok(()) => {
                assert!(result.output.loss.item().unwrap().is_finite());
                String::new()
            }
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(wrong(&|_| ()), "");
    for (value, text) in [(0.0, "0"), (-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let error = wrong(&|data| data.tau[3] = value);
        assert!(
            error.contains("temperature") && error.contains(&format!("{text} at row 3")),
            "{error}"
        );
    }
    for (value, text) in [(-0.5, "-0.5"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let error = wrong(&|data| data.u[4] = value);
        assert!(
            error.contains("row_weight") && error.contains(&format!("{text} at row 4")),
            "{error}"
        );
    }
    let error = wrong(&|data| data.target[5] = 11);
    assert!(error.contains("target") && error.contains("row 5"), "{error}");
    // The first row that is wrong is the one that is told of.
    let error = wrong(&|data| (data.target[5], data.u[3], data.tau[4]) = (11, -1.0, 0.0));
    assert!(error.contains("row_weight") && error.contains("row 3"), "{error}");
}

#[test]
fn nobody_waits_and_a_graph_gives_the_same_bits() {
    let (data, device) = (Data::<bf16>::new([21, 16, 260], true), card());
    let resident = Resident::new(&device, &data, false);
    let loss = LinearCrossEntropy::default().max_workspace_bytes(80_000).skip_ignored(false);
    let buffers = || {
        let of = |t: &Tensor| {
            let elements = t.view().elements();
            up(&device, &vec![bf16::from_f32(0.25); elements], &t.view().shape())
        };
        [of(&resident.x), of(&resident.w), of(&resident.b), up(&device, &[0f32], &[])]
    };
    let call = |[x, w, b, total]: &mut [Tensor; 4]| {
        let gradients = LinearGradOut {
            input: Some(x.view_mut()),
            linear_weight: Some(w.view_mut()),
            linear_bias: Some(b.view_mut()),
            accumulate: true,
            accumulate_input: true,
            ..LinearGradOut::default()
        };
        let out = CrossEntropyOut::loss(total.view_mut());
        loss.forward_backward_into(&device, &resident.input(true), 1.0, gradients, out)
    };
    let mut plain = buffers();
    call(&mut plain).unwrap();
    let before = device.driver_calls().unwrap();
    call(&mut buffers()).unwrap();
    assert_eq!(device.driver_calls().unwrap().waits, before.waits);
    let mut captured = buffers();
    device.capture(|| call(&mut captured)).unwrap().replay().unwrap();
    for (plain, captured) in plain.iter().zip(&captured).take(3) {
        assert_eq!(host::<bf16>(plain), host::<bf16>(captured));
    }
    assert_eq!(plain[3].item().unwrap(), captured[3].item().unwrap());
    // What was there counts: without it the same gradients.
    let fresh = loss.forward_backward(&device, &resident.input(true), 1.0).unwrap();
    for (added, fresh) in [(&plain[0], &fresh.input), (&plain[1], &fresh.linear_weight)] {
        for (added, fresh) in host::<bf16>(added).iter().zip(host::<bf16>(fresh)) {
            let far = (0.25 + 2.0 * fresh.abs()) * bf16::OFF;
            assert!((added - (fresh + 0.25)).abs() <= far, "{added}, not 0.25 more than {fresh}");
        }
    }
}

#[test]
fn no_rows_one_class_and_a_path_that_does_not_take_them() {
    let device = card();
    let data = Data::<f32>::new([3, 2, 1], false);
    let resident = Resident::new(&device, &data, false);
    let got = LinearCrossEntropy::default().forward_backward(&device, &resident.input(false), 1.0);
    let got = got.unwrap();
    assert_eq!(got.output.loss.item().unwrap(), 0.0);
    assert_eq!(host::<f32>(&got.linear_weight), [0.0; 2]);

    let none = up::<f32>(&device, &[], &[0, 2]);
    let targets = up::<i64>(&device, &[], &[0]);
    let input = LinearInput::new(none.view(), resident.w.view(), targets.view());
    let got = LinearCrossEntropy::default().forward_backward(&device, &input, 1.0).unwrap();
    assert!(got.output.loss.item().unwrap().is_nan());
    assert_eq!(host::<f32>(&got.linear_weight), [0.0; 2]);

    // What tiles do not take is told of.
    let tiled = LinearCrossEntropy::default().path(LinearPath::Tiled);
    let error = tiled.forward(&device, &resident.input(false)).unwrap_err().to_string();
    assert!(error.contains("path") && error.contains("tiled takes f16 or bf16"), "{error}");
}
