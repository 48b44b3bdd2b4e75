//! Log-probability and entropy of hidden states times a classifier: against PyTorch, against the same of the logits
//! themselves, and what is refused.

use crate::adaptive_log_softmax::{floats, noise, values};
use crate::harness::devices;
use crate::linear_golden::{Golden, assert_close, each};
use warploss::{
    DType, Device, Error, GradOutput, LinearGradOut, LinearInput, LinearLogprobEntropy, LinearPath,
    LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream, Tensor,
};

#[test]
fn results_and_gradients_agree_with_pytorch() {
    each("linear_logprob_entropy", 32, agrees);
}

fn agrees(case: &Golden<'_>) {
    let options = LogprobEntropy::default()
        .ignore_index(case.options["ignore_index"].as_i64().unwrap())
        .logit_scale(case.options["logit_scale"].as_f64().unwrap() as f32)
        .softcap(case.options["softcap"].as_f64().map(|cap| cap as f32));
    let op = LinearLogprobEntropy::from(options);
    let own = ["input", "linear_weight", "target"].map(|key| case.tensor(key).unwrap());
    let optional = ["linear_bias", "temperature", "grad_logprob", "grad_entropy"];
    let [bias, temperature, grad_logprob, grad_entropy] = optional.map(|key| case.tensor(key));
    let input = LinearInput {
        linear_bias: bias.as_ref().map(Tensor::view),
        temperature: temperature.as_ref().map(Tensor::view),
        ..LinearInput::new(own[0].view(), own[1].view(), own[2].view())
    };
    let mut upstream = LogprobEntropyUpstream::default();
    if let [Some(a), Some(b)] = [&grad_logprob, &grad_entropy] {
        upstream = LogprobEntropyUpstream {
            grad_logprob: GradOutput::from(a.view()),
            grad_entropy: GradOutput::from(b.view()),
        };
    }
    for (name, device) in devices() {
        let named = |key: &str| format!("{name}: {} {key}", case.name);
        let out = op.forward(device, &input).unwrap();
        let grad = op.forward_backward(device, &input, upstream).unwrap();
        for out in [&out, &grad.output] {
            assert_close(&named("logprob"), &out.logprob, &case.f64("logprob"));
            assert_close(&named("entropy"), &out.entropy, &case.f64("entropy"));
        }
        assert_close(&named("grad_input"), &grad.input, &case.f64("grad_input"));
        let of_weight = case.f64("grad_linear_weight");
        assert_close(&named("grad_linear_weight"), &grad.linear_weight, &of_weight);
        if let Some(bias) = &grad.linear_bias {
            assert_close(&named("grad_linear_bias"), bias, &case.f64("grad_linear_bias"));
        }
    }
}

/// A classifier that makes logits of hidden states as they are: the gradient of one is that of the other.
fn identity(n: usize) -> Tensor {
    let ones = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect::<Vec<_>>();
    floats(DType::F32, &[n, n], &ones)
}

#[test]
fn every_result_is_that_of_the_logits() {
    let (rows, classes) = (9, 41);
    let mut z = noise(3, rows * classes).iter().map(|v| 4.0 * v).collect::<Vec<_>>();
    // Equals, whose order is the classes'.
    z[5 * classes + 7] = z[5 * classes + 30];
    let z = floats(DType::F32, &[rows, classes], &z);
    let w = identity(classes);
    let target = (0..rows as i64).map(|row| if row == 3 { -100 } else { row * 5 }).collect();
    let target = Tensor::from_vec::<i64>(target, &[rows]).unwrap();
    let worth = [5, 6].map(|seed| floats(DType::F32, &[rows], &noise(seed, rows)));
    let upstream = LogprobEntropyUpstream {
        grad_logprob: worth[0].view().into(),
        grad_entropy: worth[1].view().into(),
    };
    let input = LinearInput::new(z.view(), w.view(), target.view());
    let options = LogprobEntropy::default().logit_scale(0.75).softcap(Some(3.0));
    let op = LinearLogprobEntropy::from(options.clone());
    for (name, device) in devices() {
        let (out, ranks) = op.forward_with_ranks(device, &input).unwrap();
        let (expected, of_logits) =
            options.forward_with_ranks(device, z.view(), target.view()).unwrap();
        assert_eq!(ranks, of_logits, "{name}");
        let near = |what: &str, got: &Tensor, expected: &Tensor| {
            assert_eq!(got.shape(), expected.shape(), "{name}, {what}");
            for (got, expected) in values(got).iter().zip(values(expected)) {
                let near = (got - expected).abs() <= 2.5e-7 * expected.abs().max(1.0);
                assert!(near, "{name}, {what}: {got}, not {expected}");
            }
        };
        near("logprob", &out.logprob, &expected.logprob);
        near("entropy", &out.entropy, &expected.entropy);
        near("lse", &out.lse, &expected.lse);
        let grad = op.forward_backward(device, &input, upstream).unwrap();
        let dz = options.forward_backward(device, z.clone(), target.view(), upstream).unwrap();
        near("gradient", &grad.input, &dz.grad_logits);
        assert_eq!(grad.output, out, "{name}: a pass with gradients has the same results");
    }
}

#[test]
fn a_backward_pass_of_its_own_adds_the_same_gradients() {
    let (rows, features, classes) = (21, 6, 70);
    let x = floats(DType::F32, &[rows, features], &noise(1, rows * features));
    let w = floats(DType::F32, &[classes, features], &noise(2, classes * features));
    let target = Tensor::from_vec::<i64>((0..rows as i64).collect(), &[rows]).unwrap();
    let input = LinearInput::new(x.view(), w.view(), target.view());
    let upstream = LogprobEntropyUpstream { grad_entropy: 0.5.into(), ..Default::default() };
    let op = LinearLogprobEntropy::default();
    for (name, device) in devices() {
        let grad = op.forward_backward(device, &input, upstream).unwrap();
        let (mut dx, mut dw) = (x.clone(), w.clone());
        let out = LinearGradOut {
            input: Some(dx.view_mut()),
            linear_weight: Some(dw.view_mut()),
            accumulate: true,
            accumulate_input: true,
            ..LinearGradOut::default()
        };
        op.backward_into(device, &input, upstream, out).unwrap();
        for (got, before, added) in [(&dx, &x, &grad.input), (&dw, &w, &grad.linear_weight)] {
            let sums = values(before).into_iter().zip(values(added)).map(|(a, b)| a + b);
            for (got, sum) in values(got).iter().zip(sums) {
                assert!((got - sum).abs() <= 1e-6 * sum.abs().max(1.0), "{name}: {got}, not {sum}");
            }
        }
    }
}

#[test]
fn ignored_rows_are_zeros_whatever_they_hold() {
    let (rows, features, classes) = (5, 4, 33);
    let x = noise(1, rows * features);
    let mut broken = x.clone();
    broken[2 * features..3 * features].fill(f64::NAN);
    let w = floats(DType::F32, &[classes, features], &noise(2, classes * features));
    let target = Tensor::from_vec(vec![0i64, 4, -100, 32, 1], &[rows]).unwrap();
    let upstream = LogprobEntropyUpstream { grad_entropy: (-0.1).into(), ..Default::default() };
    let op = LinearLogprobEntropy::default();
    for (name, device) in devices() {
        let of = |x: &[f64]| {
            let x = floats(DType::F32, &[rows, features], x);
            let input = LinearInput::new(x.view(), w.view(), target.view());
            op.forward_backward(device, &input, upstream).unwrap()
        };
        let (whole, broken) = (of(&x), of(&broken));
        assert_eq!(whole, broken, "{name}");
        assert_eq!(values(&broken.output.logprob)[2], 0.0, "{name}");
        assert_eq!(values(&broken.output.entropy)[2], 0.0, "{name}");
        assert_eq!(values(&broken.input)[2 * features..3 * features], [0.0; 4], "{name}");
    }
}

/// An error's words.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let text = result.expect_err(words[0]).to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} has no {word:?}");
    }
}

#[test]
fn what_does_not_belong_is_refused_by_name() {
    let of = |shape: &[usize]| floats(DType::F32, shape, &noise(1, shape.iter().product()));
    let (x, w, row, q) = (of(&[3, 4]), of(&[7, 4]), of(&[3]), of(&[3, 7]));
    let target = Tensor::from_vec(vec![0i64, 1, 2], &[3]).unwrap();
    let plain = LinearInput::new(x.view(), w.view(), target.view());
    let op = LinearLogprobEntropy::default();
    for (_, device) in devices() {
        assert!(op.forward(device, &plain).is_ok());
        refused(op.forward(device, &plain.row_weight(row.view())), &["row_weight", "none", "[3]"]);
        let soft = LinearInput { target: q.view(), ..plain };
        refused(op.forward(device, &soft), &["target", "i64", "f32"]);
        let small = op.clone().max_workspace_bytes(10);
        refused(small.forward(device, &plain), &["max_workspace_bytes", "at least", "10"]);
        assert!(op.plan(device, &plain, true).unwrap().chunk_rows >= 3);
        let [mut logprob, mut entropy] = [of(&[3]), of(&[4])];
        let out = LogprobEntropyOut::new(logprob.view_mut(), entropy.view_mut());
        refused(op.forward_into(device, &plain, out), &["entropy", "[3]", "[4]"]);
        assert_eq!(values(&logprob), values(&of(&[3])), "nothing is written");
        let upstream =
            LogprobEntropyUpstream { grad_entropy: w.view().into(), ..Default::default() };
        refused(op.forward_backward(device, &plain, upstream), &["grad_entropy", "[3]", "[7, 4]"]);
        let bad = Tensor::from_vec(vec![0i64, 7, 2], &[3]).unwrap();
        let bad = LinearInput { target: bad.view(), ..plain };
        refused(op.forward(device, &bad), &["target", "[0, 7)", "7 at row 1"]);
    }
    let tiled = op.path(LinearPath::Tiled);
    refused(tiled.forward(&Device::cpu(), &plain), &["path", "chunked", "tiled on cpu"]);
}
