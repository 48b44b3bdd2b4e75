//! Logits that never reach memory: at the borders of tiles, splits and slabs, with all that may be asked of them.

use super::*;

const TILED: LinearPath = LinearPath::Tiled;

#[test]
fn every_border_of_a_tile_by_every_option() {
    let weight: Vec<f32> = numbers(9, 600).map(|x| (1.2 + x) as f32).collect();
    let squared = CrossEntropy::default().lse_square_scale(1e-2);
    // Rows, features and classes about 128, 32 and 256, and several tiles of each.
    let shapes = [
        [193, 70, 517],
        [127, 31, 255],
        [128, 32, 256],
        [129, 33, 257],
        [3, 1, 1],
        [7, 64, 1],
        [2, 123, 600],
        [33, 65, 513],
    ];
    for sizes @ [_, _, v] in shapes {
        let weighted = CrossEntropy::default()
            .weight(TensorRef::new(&weight[..v], &[v]).unwrap())
            .label_smoothing(0.1)
            .softcap(Some(15.0))
            .logit_scale(1.25);
        for (options, weight) in [(&weighted, Some(&weight[..v])), (&squared, None)] {
            // One slab, and one tile of classes a slab.
            let (data, device) = (Data::<bf16>::new(sizes, true), card());
            let least = least(&device, &Resident::new(&device, &data, false).input(true), TILED);
            for budget in [1 << 26, least] {
                agrees::<bf16>(sizes, (options, weight), (TILED, budget));
            }
            agrees::<f16>(sizes, (options, weight), (TILED, 1 << 26));
        }
    }
}

/// Outputs of a call by rows, and its gradients.
fn run(resident: &Resident, device: &Device, path: LinearPath, budget: usize) -> Vec<Vec<f64>> {
    let n = resident.x.shape()[0];
    let zeros = || up(device, &vec![0f32; n], &[n]);
    let [mut losses, mut lse, mut logprob, mut entropy] = [zeros(), zeros(), zeros(), zeros()];
    let given: Vec<Tensor> = (0..3)
        .map(|i| up(device, &numbers(20 + i, n).map(|x| x as f32).collect::<Vec<_>>(), &[n]))
        .collect();
    let upstream = CrossEntropyUpstream {
        grad_output: GradOutput::Tensor(given[0].view()),
        grad_logprob: GradOutput::Tensor(given[1].view()),
        grad_entropy: GradOutput::Tensor(given[2].view()),
    };
    let of = |t: &Tensor| up(device, &vec![bf16::from_f32(0.0); t.view().elements()], &t.shape());
    let [mut d_x, mut d_w, mut d_b] = [&resident.x, &resident.w, &resident.b].map(of);
    let gradients = LinearGradOut {
        input: Some(d_x.view_mut()),
        linear_weight: Some(d_w.view_mut()),
        linear_bias: Some(d_b.view_mut()),
        ..LinearGradOut::default()
    };
    let out = CrossEntropyOut {
        lse: Some(lse.view_mut()),
        logprob: Some(logprob.view_mut()),
        entropy: Some(entropy.view_mut()),
        ..CrossEntropyOut::loss(losses.view_mut())
    };
    let options = CrossEntropy::default().reduction(Reduction::None).softcap(Some(20.0));
    LinearCrossEntropy::from(options)
        .path(path)
        .max_workspace_bytes(budget)
        .forward_backward_into(device, &resident.input(true), upstream, gradients, out)
        .unwrap();
    let rows = [losses, lse, logprob, entropy].map(|t| host::<f32>(&t));
    rows.into_iter().chain([d_x, d_w, d_b].map(|t| host::<bf16>(&t))).collect()
}

#[test]
fn log_probability_and_entropy_with_their_gradients_are_those_of_chunks() {
    let data = Data::<bf16>::new([37, 45, 700], true);
    let device = card();
    let resident = Resident::new(&device, &data, false);
    let [tiled, chunked] =
        [TILED, LinearPath::Chunked].map(|p| run(&resident, &device, p, 1 << 26));
    for (i, (tiled, chunked)) in tiled.iter().zip(&chunked).enumerate() {
        let off = if i < 4 { 1e-5 } else { 2.0 * bf16::OFF };
        near(&format!("output {i}"), tiled, chunked, off);
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_is_beside_it_and_whatever_the_budget() {
    let [n, d, v] = [300, 37, 1100];
    let data = Data::<bf16>::new([n, d, v], true);
    let device = card();
    let resident = Resident::new(&device, &data, false);
    let all = run(&resident, &device, TILED, 1 << 28);
    let little = least(&device, &resident.input(true), TILED);
    assert_eq!(all[..4], run(&resident, &device, TILED, little)[..4]);
    // At the borders of tiles of rows; upstream gradients do not matter here.
    for (from, to) in [(0, 1), (1, 2), (126, 130), (128, 256), (250, 300)] {
        let part = Data::<bf16> {
            sizes: [to - from, d, v],
            x: data.x[from * d..to * d].to_vec(),
            w: data.w.clone(),
            b: data.b.clone(),
            target: data.target[from..to].to_vec(),
            tau: data.tau[from..to].to_vec(),
            u: data.u[from..to].to_vec(),
            probabilities: Vec::new(),
        };
        let got = run(&Resident::new(&device, &part, false), &device, TILED, 1 << 28);
        for (got, all) in got[..4].iter().zip(&all) {
            assert_eq!(got[..], all[from..to], "rows {from} to {to}");
        }
    }
}

/// A tile of rows of which none counts is gone by, and has no gradient.
#[test]
fn rows_that_do_not_count_by_whole_tiles() {
    let [n, d, v] = [400, 9, 600];
    let mut data = Data::<bf16>::new([n, d, v], true);
    for row in (0..n).filter(|row| (120..290).contains(row)) {
        data.target[row] = -100;
        data.x[row * d..][..d].fill(bf16::NAN);
    }
    let device = card();
    let resident = Resident::new(&device, &data, false);
    let tiled = run(&resident, &device, TILED, 1 << 26);
    let chunked = run(&resident, &device, LinearPath::Chunked, 1 << 26);
    for (i, (tiled, chunked)) in tiled.iter().zip(&chunked).enumerate() {
        let off = if i < 4 { 1e-5 } else { 2.0 * bf16::OFF };
        near(&format!("output {i}"), tiled, chunked, off);
    }
    assert!(tiled[4][128 * d..256 * d].iter().all(|&g| g == 0.0));
}

/// Common offsets of 2^24, a distribution that is all but certain, masked classes, none that counts.
#[test]
fn extremes() {
    let device = card();
    let [n, d, v] = [5, 3, 300];
    let mut data = Data::<bf16>::new([n, d, v], false);
    data.tau.fill(1.0);
    data.u.fill(1.0);
    let class = |data: &mut Data<bf16>, c: usize, w: [f32; 3], b: f32| {
        data.w[c * d..][..d].copy_from_slice(&w.map(bf16::from_f32));
        data.b[c] = bf16::from_f32(b);
    };
    for c in 0..v {
        class(&mut data, c, [16777216.0, (c % 7) as f32, 0.0], 0.0);
    }
    data.x = [1.0, 1.0, 0.0].repeat(n).into_iter().map(bf16::from_f32).collect();
    // Beside 2^24 only even numbers are left of the rest, rounded to.
    let resident = Resident::new(&device, &data, false);
    let [tiled, chunked] = [TILED, LinearPath::Chunked].map(|path| {
        let loss = LinearCrossEntropy::default().path(path);
        loss.forward_backward(&device, &resident.input(true), 1.0).unwrap()
    });
    near("loss", &host::<f32>(&tiled.output.loss), &host::<f32>(&chunked.output.loss), 1e-6);
    near("grad", &host::<bf16>(&tiled.linear_weight), &host::<bf16>(&chunked.linear_weight), 1e-2);

    // One class is certain; of a class of -inf nothing is left.
    for c in 0..v {
        class(&mut data, c, [0.0; 3], if c == 3 { 200.0 } else { -1.0 });
    }
    class(&mut data, 299, [0.0; 3], f32::NEG_INFINITY);
    data.target.fill(3);
    let resident = Resident::new(&device, &data, false);
    let tiled = LinearCrossEntropy::default().path(TILED);
    let got = tiled.forward_backward(&device, &resident.input(true), 1.0).unwrap();
    assert_eq!(got.output.loss.item().unwrap(), 0.0);
    assert!(host::<bf16>(&got.linear_weight).iter().all(|g| g.abs() < 1e-30));

    data.target.fill(-100);
    data.x.fill(bf16::NAN);
    let resident = Resident::new(&device, &data, false);
    let got = tiled.forward_backward(&device, &resident.input(true), 1.0).unwrap();
    assert!(got.output.loss.item().unwrap().is_nan());
    let gradients = [&got.input, &got.linear_weight, got.linear_bias.as_ref().unwrap()];
    assert!(gradients.iter().all(|g| host::<bf16>(g).iter().all(|&g| g == 0.0)));
}

/// Nothing waits, nothing but states is taken for a forward pass, and what the card lacks of a chunk is no error.
#[test]
fn evaluation_takes_memory_by_rows_alone() {
    let device = card();
    let data = Data::<bf16>::new([40, 16, 3000], true);
    let resident = Resident::new(&device, &data, false);
    let loss = LinearCrossEntropy::default().path(TILED);
    let input = resident.input(true);
    let plan = loss.plan(&device, &input, false).unwrap();
    assert_eq!((plan.path, plan.chunk_rows), (TILED, 0));
    device.trim();
    let got = loss.forward(&device, &input).unwrap();
    let taken = device.trim();
    assert!(taken <= plan.workspace_bytes, "{taken} of {plan:?}");
    let chunked = LinearCrossEntropy::default().path(LinearPath::Chunked);
    let plain = chunked.forward(&device, &input).unwrap();
    near("loss", &host::<f32>(&got.loss), &host::<f32>(&plain.loss), 1e-5);
}

/// Off by no more than bf16's rounding of each term, and by that indeed.
#[test]
fn a_rounded_gradient_of_logits_is_as_good_as_bf16() {
    let device = card();
    let data = Data::<bf16>::new([21, 40, 300], true);
    let resident = Resident::new(&device, &data, false);
    let input = resident.input(true);
    for path in [TILED, LinearPath::Chunked] {
        let loss = LinearCrossEntropy::default().path(path);
        let exact = loss.forward_backward(&device, &input, 1.0).unwrap();
        let rounded = loss.round_grad_logits(true).forward_backward(&device, &input, 1.0).unwrap();
        let losses = [&exact, &rounded].map(|grad| grad.output.loss.item().unwrap());
        assert_eq!(losses[0], losses[1]);
        for (exact, rounded) in
            [(&exact.input, &rounded.input), (&exact.linear_weight, &rounded.linear_weight)]
        {
            let (exact, rounded) = (host::<bf16>(exact), host::<bf16>(rounded));
            assert_ne!(exact, rounded);
            let largest = exact.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            for (exact, rounded) in exact.iter().zip(&rounded) {
                let far = 2.0 * bf16::OFF * exact.abs() + bf16::OFF * largest;
                assert!((exact - rounded).abs() <= far, "{rounded}, not {exact} ± {far}");
            }
        }
    }
}
