//! Distillation from hidden states: against PyTorch, against the divergence of the logits themselves, and itself in
//! other chunks and on other threads; and what is refused.

use crate::adaptive_log_softmax::{floats, noise, values};
use crate::harness::devices;
use crate::linear_golden::{Golden, assert_close, each};
use warploss::check::catalogue::Op;
use warploss::check::subject::{Engine, check};
use warploss::{
    DType, Device, DistillationGradOut, DistillationInput, Divergence, Error, GradOutput,
    JsDivLogits, LinearDistillation, LinearGradOut, LinearHead, LinearPath, Reduction, Tensor,
};

/// A side's tensors, and gradients of them.
struct Side {
    input: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    temperature: Option<Tensor>,
}

impl Side {
    fn head(&self) -> LinearHead<'_> {
        LinearHead {
            linear_bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            ..LinearHead::new(self.input.view(), self.weight.view())
        }
    }

    /// Memory for gradients, which holds something.
    fn gradients(&self) -> Vec<Tensor> {
        let own = [Some(&self.input), Some(&self.weight), self.bias.as_ref()];
        own.into_iter().flatten().cloned().collect()
    }

    /// Of noise.
    fn noise(dtype: DType, seed: u64, [rows, classes, features]: [usize; 3]) -> Side {
        let of = |seed, shape: &[usize]| {
            let n = shape.iter().product();
            floats(dtype, shape, &noise(seed, n).iter().map(|v| 2.0 * v).collect::<Vec<_>>())
        };
        let taus = noise(seed + 9, rows).iter().map(|v| 1.0 + 0.5 * v).collect::<Vec<_>>();
        Side {
            input: of(seed, &[rows, features]),
            weight: of(seed + 1, &[classes, features]),
            bias: Some(of(seed + 2, &[classes])),
            temperature: Some(floats(DType::F32, &[rows], &taus)),
        }
    }
}

fn out(gradients: &mut [Tensor]) -> LinearGradOut<'_> {
    let mut views = gradients.iter_mut().map(Tensor::view_mut);
    LinearGradOut {
        input: views.next(),
        linear_weight: views.next(),
        linear_bias: views.next(),
        ..LinearGradOut::default()
    }
}

/// Loss, and all gradients of both sides.
fn everything(
    device: &Device,
    loss: &LinearDistillation<'_>,
    sides: &[Side; 2],
    row_weight: Option<&Tensor>,
    g: GradOutput<'_>,
) -> Vec<Tensor> {
    let mut input = DistillationInput::new(sides[0].head(), sides[1].head());
    input.row_weight = row_weight.map(Tensor::view);
    let mut one = loss.forward(device, &input).unwrap();
    let first = values(&one);
    let mut gradients = sides.each_ref().map(Side::gradients);
    let [student, teacher] = &mut gradients;
    let to = DistillationGradOut { student: out(student), teacher: out(teacher) };
    loss.forward_backward_into(device, &input, g, to, one.view_mut()).unwrap();
    let same = values(&one).iter().zip(&first).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
    assert!(same, "forward alone gives another loss: {first:?}, {one:?}");
    [vec![one], gradients.concat()].concat()
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    each("linear_distillation", 40, agrees);
}

fn agrees(case: &Golden<'_>) {
    let number = |key: &str| case.options[key].as_f64().unwrap() as f32;
    let divergence = match case.options["divergence"].as_str().unwrap() {
        "kl" => Divergence::Kl,
        "reverse-kl" => Divergence::ReverseKl,
        "js" => Divergence::Js(number("beta")),
        _ => Divergence::TotalVariation,
    };
    let reduction = match case.options["reduction"].as_str().unwrap() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        _ => Reduction::BatchMean,
    };
    let labels = case.tensor("labels");
    let options = JsDivLogits::default()
        .divergence(divergence)
        .reduction(reduction)
        .logit_scale(number("logit_scale"))
        .teacher_scale(number("teacher_scale"));
    let loss = LinearDistillation::from(match &labels {
        Some(labels) => options.labels(labels.view()),
        None => options,
    });
    let side = |prefix: &str, weight: &str| Side {
        input: case.tensor(&format!("{prefix}input")).unwrap(),
        weight: case.tensor(&format!("{weight}weight")).unwrap(),
        bias: case.tensor(&format!("{weight}bias")),
        temperature: case.tensor(&format!("{prefix}temperature")),
    };
    let sides = [side("", "linear_"), side("teacher_", "teacher_")];
    let [row_weight, g] = ["row_weight", "grad_output"].map(|key| case.tensor(key));
    let g = g.as_ref().map_or(GradOutput::default(), |g| GradOutput::from(g.view()));
    let biased = |side: &Side, name| side.bias.is_some().then_some(name);
    let names = [
        Some("loss"),
        Some("grad_input"),
        Some("grad_linear_weight"),
        biased(&sides[0], "grad_linear_bias"),
        Some("grad_teacher_input"),
        Some("grad_teacher_weight"),
        biased(&sides[1], "grad_teacher_bias"),
    ];
    for (name, device) in devices() {
        let all = everything(device, &loss, &sides, row_weight.as_ref(), g);
        let keys: Vec<&str> = names.into_iter().flatten().collect();
        assert_eq!(all.len(), keys.len());
        for (key, got) in keys.into_iter().zip(&all) {
            assert_close(&format!("{name}: {} {key}", case.name), got, &case.f64(key));
        }
    }
}

/// More than the catalogue's own test goes through.
#[test]
fn cases_of_the_catalogue_agree_with_the_reference() {
    for (name, device) in devices() {
        for seed in 100..if name.starts_with("cpu") { 180 } else { 130 } {
            let case = Op::LinearDistillation.case(seed).unwrap();
            for finding in check(&Engine(device.clone()), &case).unwrap() {
                assert!(finding.worst.agrees(), "{name}: {finding}\n  of {case}");
            }
        }
    }
}

/// Classifiers that make logits of hidden states as they are: the gradients of one are those of the other.
#[test]
fn every_result_is_that_of_the_logits() {
    let (rows, classes) = (7, 37);
    let ones = (0..classes * classes).map(|at| f64::from(u8::from(at / classes == at % classes)));
    let identity = floats(DType::F32, &[classes, classes], &ones.collect::<Vec<_>>());
    let logits = |seed| {
        let z = noise(seed, rows * classes).iter().map(|v| 3.0 * v).collect::<Vec<_>>();
        floats(DType::F32, &[rows, classes], &z)
    };
    let sides = [1, 2].map(|seed| Side {
        input: logits(seed),
        weight: identity.clone(),
        bias: None,
        temperature: None,
    });
    let labels = (0..rows as i64).map(|row| if row == 4 { -100 } else { row }).collect();
    let labels = Tensor::from_vec::<i64>(labels, &[rows]).unwrap();
    for divergence in
        [Divergence::Kl, Divergence::ReverseKl, Divergence::Js(0.3), Divergence::TotalVariation]
    {
        let options = JsDivLogits::default()
            .divergence(divergence)
            .reduction(Reduction::None)
            .logit_scale(0.8)
            .labels(labels.view());
        let linear = LinearDistillation::from(options.clone());
        for (name, device) in devices() {
            let got = everything(device, &linear, &sides, None, 1.5.into());
            let [x, y] = sides.each_ref().map(|side| side.input.view());
            let expected = options.forward(device, x, y).unwrap();
            let (mut dx, mut dy) = (sides[0].input.clone(), sides[1].input.clone());
            let to =
                warploss::JsDivLogitsGradOut { logits: dx.view_mut(), target: Some(dy.view_mut()) };
            options.backward_into(device, x, y, 1.5, to).unwrap();
            for (got, expected) in [(&got[0], &expected), (&got[1], &dx), (&got[3], &dy)] {
                for (got, expected) in values(got).iter().zip(values(expected)) {
                    let near = (got - expected).abs() <= 2.5e-7 * expected.abs().max(1.0);
                    assert!(near, "{name}, {divergence:?}: {got}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn chunks_and_threads_change_no_bit() {
    let sizes @ [rows, ..] = [600, 300, 9];
    for dtype in [DType::F32, DType::BF16] {
        let sides = [1, 50].map(|seed| Side::noise(dtype, seed, sizes));
        let weight = noise(7, rows).iter().map(|v| v.abs()).collect::<Vec<_>>();
        let weight = floats(DType::F32, &[rows], &weight);
        let loss = LinearDistillation::from(Divergence::Js(0.4));
        let input = DistillationInput::new(sides[0].head(), sides[1].head());
        let mut first: Option<Vec<Vec<u64>>> = None;
        for threads in [1, 2, 5] {
            let device = Device::cpu_with_threads(threads).unwrap();
            let whole = loss.plan(&device, &input, [true; 2]).unwrap().workspace_bytes;
            for budget in [whole, whole / 2] {
                let small = loss.clone().max_workspace_bytes(budget);
                let plan = small.plan(&device, &input, [true; 2]).unwrap();
                assert!(plan.workspace_bytes <= budget, "{plan:?} in {budget}");
                assert!((plan.chunk_rows < rows) == (budget < whole), "{plan:?}");
                let all = everything(&device, &small, &sides, Some(&weight), 1.0.into());
                // A gradient of 16 bits may be rounded once a chunk where there is no room for its sum.
                let bits = |t: &Tensor| values(t).into_iter().map(f64::to_bits).collect::<Vec<_>>();
                let bits: Vec<_> = all.iter().map(bits).collect();
                let expected = first.get_or_insert_with(|| bits.clone());
                for (i, (got, expected)) in bits.iter().zip(expected).enumerate() {
                    assert!(got == expected, "{dtype}, {threads} threads, {plan:?}: result {i}");
                }
            }
        }
    }
}

#[test]
fn rows_that_do_not_count_are_zeros_whatever_they_hold() {
    let sizes @ [rows, _, features] = [5, 33, 4];
    let labels = Tensor::from_vec(vec![0i64, 1, -100, 2, 3], &[rows]).unwrap();
    let of_logits = JsDivLogits::default().divergence(Divergence::Kl).labels(labels.view());
    let loss = LinearDistillation::from(of_logits);
    let whole = [1, 50].map(|seed| Side::noise(DType::F32, seed, sizes));
    let broken = [1, 50].map(|seed| {
        let mut side = Side::noise(DType::F32, seed, sizes);
        let mut x = values(&side.input);
        x[2 * features..3 * features].fill(f64::NAN);
        side.input = floats(DType::F32, &[rows, features], &x);
        side
    });
    for (name, device) in devices() {
        let [whole, broken] =
            [&whole, &broken].map(|sides| everything(device, &loss, sides, None, 1.0.into()));
        assert_eq!(whole, broken, "{name}");
        for grad in [&broken[1], &broken[4]] {
            assert_eq!(values(grad)[2 * features..3 * features], [0.0; 4], "{name}");
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there_and_a_student_is_enough() {
    let sizes = [11, 40, 6];
    let sides = [1, 50].map(|seed| Side::noise(DType::F32, seed, sizes));
    let loss = LinearDistillation::from(Divergence::ReverseKl);
    let input = DistillationInput::new(sides[0].head(), sides[1].head());
    for (name, device) in devices() {
        let all = everything(device, &loss, &sides, None, 1.0.into());
        let grad = loss.forward_backward(device, &input, 1.0).unwrap();
        let own = [Some(grad.input), Some(grad.linear_weight), grad.linear_bias];
        let own: Vec<Tensor> = own.into_iter().flatten().collect();
        assert_eq!(own, all[1..4], "{name}");
        let mut sums = sides[0].gradients();
        let to = LinearGradOut { accumulate: true, accumulate_input: true, ..out(&mut sums) };
        loss.backward_into(device, &input, 1.0, to).unwrap();
        for ((sum, before), added) in sums.iter().zip(sides[0].gradients()).zip(&own) {
            let right = values(&before).into_iter().zip(values(added)).map(|(a, b)| a + b);
            for (got, right) in values(sum).into_iter().zip(right) {
                assert!(
                    (got - right).abs() <= 1e-6 * right.abs().max(1.0),
                    "{name}: {got}, {right}"
                );
            }
        }
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
    let (x, w, y, v) = (of(&[3, 4]), of(&[7, 4]), of(&[3, 2]), of(&[7, 2]));
    let (two, six, row) = (of(&[2, 2]), of(&[6, 2]), of(&[3]));
    let student = LinearHead::new(x.view(), w.view());
    let teacher = LinearHead::new(y.view(), v.view());
    let plain = DistillationInput::new(student, teacher);
    let loss = LinearDistillation::from(Divergence::Kl);
    let bad = floats(DType::F32, &[3], &[1.0, -1.0, 1.0]);
    for (_, device) in devices() {
        assert!(loss.forward(device, &plain).is_ok());
        let with = |teacher| loss.forward(device, &DistillationInput { teacher, ..plain });
        refused(
            with(LinearHead { input: two.view(), ..teacher }),
            &["teacher_input", "[3, D]", "[2, 2]"],
        );
        refused(
            with(LinearHead { linear_weight: six.view(), ..teacher }),
            &["teacher_weight", "[7, D]", "[6, 2]"],
        );
        refused(
            with(LinearHead { linear_weight: w.view(), ..teacher }),
            &["teacher_weight", "[V, 2]", "[7, 4]"],
        );
        refused(with(teacher.linear_bias(row.view())), &["teacher_bias", "[7]", "[3]"]);
        refused(
            with(teacher.temperature(bad.view())),
            &["teacher_temperature", "> 0", "-1 at row 1"],
        );
        let student = student.temperature(bad.view());
        refused(
            loss.forward(device, &DistillationInput { student, ..plain }),
            &["temperature", "> 0", "-1 at row 1"],
        );
        refused(
            loss.forward(device, &plain.row_weight(bad.view())),
            &["row_weight", "≥ 0", "-1 at row 1"],
        );
        let small = loss.clone().max_workspace_bytes(10);
        refused(small.forward(device, &plain), &["max_workspace_bytes", "at least", "10"]);
        let mut bias = of(&[7]);
        let teacher =
            LinearGradOut { linear_bias: Some(bias.view_mut()), ..LinearGradOut::default() };
        let gradients = DistillationGradOut { teacher, ..DistillationGradOut::default() };
        refused(
            loss.backward_into(device, &plain, 1.0, gradients),
            &["grad_teacher_bias", "no teacher_bias"],
        );
        let mut target = of(&[3, 7]);
        let target = LinearGradOut { target: Some(target.view_mut()), ..LinearGradOut::default() };
        refused(loss.backward_into(device, &plain, 1.0, target), &["grad_target", "no target"]);
        let js = LinearDistillation::from(Divergence::Js(1.5));
        refused(js.forward(device, &plain), &["beta", "[0, 1]", "1.5"]);
        let tiled = loss.clone().path(LinearPath::Tiled);
        refused(tiled.forward(device, &plain), &["path", "chunked", "tiled on"]);
    }
}
