//! `warploss eval`: what it computes, prints and writes.

use super::*;

/// ln 2, ln 4 and such come out of these: each row is the logarithm of small whole numbers.
fn logs(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.ln()).collect()
}

#[test]
fn cross_entropy_prints_one_line_with_its_fields() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[3, 2], &logs(&[1.0, 3.0, 1.0, 1.0, 5.0, 1.0])),
        i64s("target", &[3], &[1, 0, -100]),
        f32s("unrelated", &[1], &[0.0]),
    ]);
    let object = folder.eval("cross-entropy --device cpu").json();
    let keys: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
    let expected =
        ["op", "device", "dtype", "shape", "reduction", "loss", "rows", "ignored", "seconds"];
    assert_eq!(keys, expected);
    assert_eq!(object["op"], "cross-entropy");
    assert_eq!(object["device"], "cpu");
    assert_eq!(object["dtype"], "f32");
    assert_eq!(object["shape"], serde_json::json!([3, 2]));
    assert_eq!(object["reduction"], "mean");
    assert_eq!((&object["rows"], &object["ignored"]), (&3.into(), &1.into()));
    assert!(object["seconds"].as_f64().unwrap() >= 0.0);
    let loss = ((4.0f64 / 3.0).ln() + 2f64.ln()) / 2.0;
    assert!((object["loss"].as_f64().unwrap() - loss).abs() < 1e-6);

    assert_eq!(folder.outputs(), ["loss", "lse"]);
    assert_eq!(folder.read("loss").1, [0usize; 0]);
    let (_, shape, lse) = folder.read("lse");
    assert_eq!(shape, [3]);
    assert_close(&lse, &[4f32.ln(), 2f32.ln(), 0.0], 1e-6);
    assert_eq!(folder.names(), ["in.safetensors", "out.safetensors"]);
}

#[test]
fn gradients_have_the_inputs_dtype_and_take_grad_output() {
    let folder = Folder::new();
    folder.write(&[
        bf16s("input", &[2, 2], &[0.0, 0.0, 0.0, 0.0]),
        i64s("target", &[2], &[1, 0]),
        f32s("grad_output", &[2], &[1.0, -4.0]),
    ]);
    let object = folder.eval("cross-entropy --grad --reduction none").json();
    assert_eq!(object["loss"], Value::Null);
    assert_eq!(folder.outputs(), ["grad_input", "loss", "lse"]);
    let (dtype, shape, grad) = folder.read("grad_input");
    assert_eq!((dtype, shape), (Dtype::BF16, vec![2, 2]));
    assert_close(&grad, &[0.5, -0.5, 2.0, -2.0], 0.0);
    assert_close(&folder.read("loss").2, &[2f32.ln(); 2], 1e-6);

    // Not read without --grad, whatever it is.
    folder.write(&[
        bf16s("input", &[2, 2], &[0.0; 4]),
        i64s("target", &[2], &[1, 0]),
        i64s("grad_output", &[7], &[0; 7]),
    ]);
    assert_eq!(folder.eval("cross-entropy").status, 0);
    assert!(folder.eval("cross-entropy --grad").error(2).contains("grad_output: expected"));
}

#[test]
fn one_number_is_an_upstream_gradient_too() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[1, 2], &[0.0, 0.0]),
        i64s("target", &[1], &[0]),
        f32s("grad_output", &[], &[8.0]),
    ]);
    folder.eval("cross-entropy --grad").json();
    assert_close(&folder.read("grad_input").2, &[-4.0, 4.0], 0.0);
    folder.eval("logsumexp --grad").json();
    assert_close(&folder.read("grad_input").2, &[4.0, 4.0], 0.0);
    // Σg = 16 over two equal classes: each gets 8 − 8.
    folder.eval("log-softmax --grad").json();
    assert_close(&folder.read("grad_input").2, &[0.0, 0.0], 0.0);
}

#[test]
fn options_of_cross_entropy_reach_the_loss() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[2, 2], &logs(&[1.0, 3.0, 1.0, 1.0])),
        i64s("target", &[2], &[1, 0]),
        f32s("weight", &[2], &[1.0, 3.0]),
    ]);
    let loss = |options: &str| {
        let object = folder.eval(&format!("cross-entropy {options}")).json();
        object["loss"].as_f64().unwrap()
    };
    let (a, b) = ((4.0f64 / 3.0).ln(), 2f64.ln());
    for (options, expected) in [
        ("", (3.0 * a + b) / 4.0),
        ("--reduction sum", 3.0 * a + b),
        ("--ignore-index 1", b),
        ("--ignore-index -1 --z-loss 0.5", (3.0 * a + b) / 4.0 + (4f64.ln().powi(2) + b * b) / 4.0),
        ("--logit-scale 2 --ignore-index 0", (10.0f64 / 9.0).ln()),
        ("--label-smoothing 1 --ignore-index 1", (b + 3.0 * b) / 2.0),
        ("--softcap 1 --ignore-index 0", (1.0 + (-(3f64.ln().tanh())).exp()).ln()),
    ] {
        assert!((loss(options) - expected).abs() < 1e-6, "{options}: {expected}");
    }
}

#[test]
fn probabilities_have_a_gradient_too() {
    let folder = Folder::new();
    let third = 1.0 / 3.0;
    folder.write(&[
        f32s("input", &[2, 3], &[0.0, 0.0, 9.0, 0.0, 0.0, 9.0]),
        f32s("target", &[2, 3], &[0.5, 0.5, 0.0, 1.0, 0.0, 0.0]),
    ]);
    let object = folder.eval("cross-entropy --grad --classes 2 --reduction sum").json();
    assert_eq!((&object["rows"], &object["ignored"]), (&2.into(), &0.into()));
    assert!((object["loss"].as_f64().unwrap() - 2.0 * 2f64.ln()).abs() < 1e-6);
    assert_eq!(folder.outputs(), ["grad_input", "grad_target", "loss", "lse"]);
    assert_close(&folder.read("grad_input").2, &[0.0, 0.0, 0.0, -0.5, 0.5, 0.0], 1e-7);
    let ln2 = 2f32.ln();
    assert_close(&folder.read("grad_target").2, &[ln2, ln2, 0.0, ln2, ln2, 0.0], 1e-6);

    folder.write(&[f32s("input", &[3], &[0.0; 3]), f32s("target", &[3], &[third; 3])]);
    let object = folder.eval("cross-entropy").json();
    assert_eq!(object["rows"], 1);
    assert!((object["loss"].as_f64().unwrap() - 3f64.ln()).abs() < 1e-6);
    let run = folder.eval("cross-entropy --ignore-index 1");
    let said = run.error(2);
    assert!(said.contains("--ignore-index") && said.contains("got 1"), "{said}");
}

#[test]
fn nll_picks_what_the_target_names() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[3, 2], &[-1.0, f32::NAN, f32::NAN, -4.0, 0.0, 0.0]),
        i64s("target", &[3], &[0, 1, -100]),
        f32s("weight", &[2], &[1.0, 3.0]),
    ]);
    let object = folder.eval("nll --grad").json();
    assert_eq!(object["op"], "nll");
    assert_eq!((&object["rows"], &object["ignored"]), (&3.into(), &1.into()));
    assert!((object["loss"].as_f64().unwrap() - 13.0 / 4.0).abs() < 1e-6);
    assert_eq!(folder.outputs(), ["grad_input", "loss"]);
    assert_close(&folder.read("grad_input").2, &[-0.25, 0.0, 0.0, -0.75, 0.0, 0.0], 1e-7);
    let run = folder.eval("nll --ignore-index 5");
    let said = run.error(2);
    assert!(said.contains("target") && said.contains("-100"), "{said}");
}

#[test]
fn prefix_names_other_tensors() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[1, 2], &[0.0, 0.0]),
        f32s("step3.input", &[1, 4], &[0.0; 4]),
        i64s("step3.target", &[1], &[0]),
    ]);
    let object = folder.eval("cross-entropy --prefix step3.").json();
    assert_close(&[object["loss"].as_f64().unwrap() as f32], &[4f32.ln()], 1e-6);
    let error = folder.eval("cross-entropy --prefix step4.");
    assert!(error.error(2).contains("step4.input: expected a tensor of this name"));
}

#[test]
fn padding_columns_are_no_classes_and_get_no_gradient() {
    let folder = Folder::new();
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    folder.write(&[
        f32s("input", &[2, 4], &[0.0, 0.0, nan, inf, 0.0, 0.0, 9.0, nan]),
        i64s("target", &[2], &[0, 1]),
    ]);
    let object = folder.eval("cross-entropy --classes 2 --grad --reduction sum").json();
    assert_close(&[object["loss"].as_f64().unwrap() as f32], &[2.0 * 2f32.ln()], 1e-6);
    assert_eq!(object["shape"], serde_json::json!([2, 4]));
    let grad = folder.read("grad_input");
    assert_eq!(grad.1, [2, 4]);
    assert_close(&grad.2, &[-0.5, 0.5, 0.0, 0.0, 0.5, -0.5, 0.0, 0.0], 0.0);

    folder.eval("log-softmax --classes 2 --grad").json();
    let (_, shape, output) = folder.read("output");
    assert_eq!(shape, [2, 4]);
    let half = -(2f32.ln());
    assert_close(&output, &[half, half, -inf, -inf, half, half, -inf, -inf], 1e-6);
    assert_close(&folder.read("grad_input").2, &[0.0; 8], 0.0);

    folder.eval("logsumexp --classes 2 --grad").json();
    assert_close(&folder.read("output").2, &[2f32.ln(); 2], 1e-6);
    let grad = folder.read("grad_input").2;
    assert_close(&grad, &[0.5, 0.5, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0], 0.0);
}

#[test]
fn padding_in_one_row_and_before_more_dimensions() {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[3], &[0.0, 0.0, f32::NAN]), i64s("target", &[], &[0])]);
    let object = folder.eval("cross-entropy --classes 2 --grad").json();
    assert_close(&[object["loss"].as_f64().unwrap() as f32], &[2f32.ln()], 1e-6);
    assert_close(&folder.read("grad_input").2, &[-0.5, 0.5, 0.0], 0.0);

    let x = [0.0, 1.0, 0.0, 1.0, f32::NAN, f32::NAN];
    folder.write(&[f32s("input", &[1, 3, 2], &x), i64s("target", &[1, 2], &[0, 0])]);
    folder.eval("cross-entropy --classes 2 --reduction sum --grad").json();
    assert_close(&folder.read("grad_input").2, &[-0.5, -0.5, 0.5, 0.5, 0.0, 0.0], 0.0);
}

#[test]
fn log_softmax_keeps_the_dtype_and_goes_along_any_dimension() {
    let folder = Folder::new();
    folder.write(&[bf16s("input", &[2, 1, 2], &[0.0; 4])]);
    let object = folder.eval("log-softmax --dim -1").json();
    assert_eq!((&object["loss"], &object["rows"]), (&Value::Null, &2.into()));
    assert_eq!(folder.outputs(), ["output"]);
    let (dtype, shape, output) = folder.read("output");
    assert_eq!((dtype, shape), (Dtype::BF16, vec![2, 1, 2]));
    assert_close(&output, &[-(2f32.ln()); 4], 3e-3);
    // The class dimension is the default; here it has one class.
    folder.eval("log-softmax").json();
    assert_close(&folder.read("output").2, &[0.0; 4], 0.0);
}

#[test]
fn logsumexp_reduces_one_dimension_or_more() {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[2, 2], &logs(&[1.0, 2.0, 3.0, 4.0]))]);
    for (options, shape, expected) in [
        ("", vec![2], logs(&[3.0, 7.0])),
        ("--dim 0", vec![2], logs(&[4.0, 6.0])),
        ("--dim -1 --keepdim", vec![2, 1], logs(&[3.0, 7.0])),
        ("--dim 0,-1", vec![], logs(&[10.0])),
    ] {
        let object = folder.eval(&format!("logsumexp {options}")).json();
        let (dtype, got_shape, got) = folder.read("output");
        assert_eq!((dtype, got_shape), (Dtype::F32, shape.clone()), "{options}");
        assert_close(&got, &expected, 1e-6);
        assert_eq!(object["loss"].is_number(), shape.is_empty(), "{options}");
    }
}

#[test]
fn a_loss_that_is_not_finite_is_a_string() {
    let folder = Folder::new();
    let inf = f32::INFINITY;
    for (logits, target, expected) in
        [([0.0, 0.0], -100, "nan"), ([-inf, 0.0], 0, "inf"), ([f32::NAN, 0.0], 0, "nan")]
    {
        folder.write(&[f32s("input", &[1, 2], &logits), i64s("target", &[1], &[target])]);
        assert_eq!(folder.eval("cross-entropy").json()["loss"], expected);
    }
    folder.write(&[f32s("input", &[2], &[-inf, -inf])]);
    assert_eq!(folder.eval("logsumexp").json()["loss"], "-inf");
}

#[test]
fn threads_change_nothing_but_the_time() {
    let folder = Folder::new();
    let x: Vec<f32> = (0..64 * 501).map(|i| ((i * 37) % 101) as f32 / 10.0).collect();
    let target: Vec<i64> = (0..64).collect();
    folder.write(&[f32s("input", &[64, 501], &x), i64s("target", &[64], &target)]);
    let bytes = |threads: &str| {
        folder.eval(&format!("cross-entropy --grad --threads {threads}")).json();
        std::fs::read(folder.path("out.safetensors")).unwrap()
    };
    assert!(bytes("1") == bytes("3"));
}

#[test]
fn an_existing_output_is_replaced() {
    let folder = Folder::new();
    folder.write(&[f32s("input", &[1, 2], &[0.0, 0.0])]);
    std::fs::write(folder.path("out.safetensors"), "what was there before").unwrap();
    folder.eval("log-softmax").json();
    assert_close(&folder.read("output").2, &[-(2f32.ln()); 2], 1e-6);
    assert_eq!(folder.names(), ["in.safetensors", "out.safetensors"]);
}

#[test]
fn logprob_entropy_writes_both_and_takes_an_upstream_gradient_for_each() {
    let folder = Folder::new();
    let tensors = || {
        vec![
            f32s("input", &[3, 2], &logs(&[1.0, 3.0, 1.0, 1.0, 5.0, 1.0])),
            i64s("target", &[3], &[1, 0, -100]),
        ]
    };
    folder.write(&tensors());
    let object = folder.eval("logprob-entropy --device cpu").json();
    assert_eq!(object["op"], "logprob-entropy");
    assert_eq!(object["loss"], Value::Null);
    assert_eq!(object["reduction"], "none");
    assert_eq!((&object["rows"], &object["ignored"]), (&3.into(), &1.into()));
    assert_eq!(folder.outputs(), ["entropy", "logprob"]);
    assert_close(&folder.read("logprob").2, &[0.75f32.ln(), 0.5f32.ln(), 0.0], 1e-6);
    let (dtype, shape, entropy) = folder.read("entropy");
    let of = |p: f32| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
    assert_eq!((dtype, shape), (Dtype::F32, vec![3]));
    assert_close(&entropy, &[of(0.75), of(0.5), 0.0], 1e-6);

    // Absent, they are 1 and 0: the gradient of the log-probability alone.
    folder.eval("logprob-entropy --grad --ranks").json();
    assert_eq!(folder.outputs(), ["argmax", "entropy", "grad_input", "logprob", "rank"]);
    assert_close(&folder.read("grad_input").2, &[-0.25, 0.25, 0.5, -0.5, 0.0, 0.0], 1e-6);
    let mut more = tensors();
    more.push(f32s("grad_logprob", &[], &[0.0]));
    more.push(f32s("grad_entropy", &[3], &[2.0, 2.0, f32::NAN]));
    folder.write(&more);
    folder.eval("logprob-entropy --grad").json();
    // −p·(ln p + H), doubled: two classes have opposite slopes.
    let slope = -2.0 * 0.25 * (0.25f32.ln() + of(0.75));
    assert_close(&folder.read("grad_input").2, &[slope, -slope, 0.0, 0.0, 0.0, 0.0], 1e-6);
    folder.eval("logprob-entropy --logit-scale 2").json();
    assert_close(&folder.read("logprob").2[..1], &[0.9f32.ln()], 1e-6);

    let mut wrong = tensors();
    wrong.push(f32s("grad_entropy", &[2], &[0.0; 2]));
    folder.write(&wrong);
    assert_eq!(folder.eval("logprob-entropy").status, 0);
    let result = folder.eval("logprob-entropy --grad");
    let line = result.error(2);
    assert!(line.contains("grad_entropy: expected") && line.contains("[2]"), "{line}");
}

#[test]
fn ranks_are_written_on_request_and_the_line_stays_as_it_is() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[3, 3], &[1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]),
        i64s("target", &[3], &[2, 1, -100]),
    ]);
    let plain = folder.eval("cross-entropy").json();
    let ranked = folder.eval("cross-entropy --ranks --grad").json();
    assert_eq!(folder.outputs(), ["argmax", "grad_input", "loss", "lse", "rank"]);
    assert!(ranked.as_object().unwrap().keys().eq(plain.as_object().unwrap().keys()));
    assert_eq!(folder.read("argmax"), (Dtype::I64, vec![3], vec![1.0, 0.0, -1.0]));
    assert_eq!(folder.read("rank"), (Dtype::I64, vec![3], vec![1.0, 1.0, -1.0]));
}
