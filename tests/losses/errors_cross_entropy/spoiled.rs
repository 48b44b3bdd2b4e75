//! What is wrong with a call of cross entropy, one thing at a time.

use super::{Call, Form, f32s, i64s};
use crate::data::Data;
use warploss::{DType, Reduction};

/// Forms by what they take.
pub(super) const ALL: &[Form] = &[
    Form::Forward,
    Form::ForwardInto,
    Form::Backward,
    Form::BackwardInto,
    Form::BackwardInPlace,
    Form::Fused,
];
const UPSTREAM: &[Form] = &[Form::Backward, Form::BackwardInto, Form::BackwardInPlace, Form::Fused];
const SAVED: &[Form] = &[Form::Backward, Form::BackwardInto, Form::BackwardInPlace];
const GRAD: &[Form] = &[Form::BackwardInto];
const GRADIENTS: &[Form] = &[Form::BackwardInto, Form::BackwardInPlace, Form::Fused];
const OUT: &[Form] = &[Form::ForwardInto, Form::Fused];

/// What is wrong, how to make it so, which forms must refuse it, and what they must say.
pub(super) type Bad = (&'static str, fn(&mut Call), &'static [Form], &'static [&'static str]);

pub(super) const BAD: &[Bad] = &[
    // Targets.
    (
        "a class too many",
        |c| c.target = i64s(&[2], &[0, 3]),
        ALL,
        &["target", "row 1", "got 3", "[0, 3)", "-100"],
    ),
    (
        "a negative class",
        |c| c.target = i64s(&[2], &[-1, 0]),
        ALL,
        &["target", "row 0", "got -1", "[0, 3)", "-100"],
    ),
    (
        "the first of two bad rows",
        |c| c.target = i64s(&[2], &[7, 9]),
        ALL,
        &["target", "row 0", "got 7"],
    ),
    (
        "-100 when 255 is ignored",
        |c| {
            c.options = c.options.clone().ignore_index(255);
            c.target = i64s(&[2], &[255, -100]);
        },
        ALL,
        &["target", "row 1", "got -100", "255"],
    ),
    (
        "a class beyond 32 bits",
        |c| c.target = i64s(&[2], &[1 << 32, 0]),
        ALL,
        &["target", "got 4294967296"],
    ),
    (
        "an unsigned class too large",
        |c| c.target = Data::indices(DType::U8, &[2], &[2, 200]),
        ALL,
        &["target", "row 1", "got 200"],
    ),
    (
        "a kept class among none",
        |c| {
            c.logits = f32s(&[2, 0]);
            c.grad_logits = f32s(&[2, 0]);
        },
        ALL,
        &["target", "row 0", "[0, 0)"],
    ),
    ("targets of a float dtype", |c| c.target = f32s(&[2]), ALL, &["target", "f32", "i64"]),
    (
        "targets for other rows",
        |c| c.target = i64s(&[3], &[0, 1, 2]),
        ALL,
        &["target", "[3]", "[2]", "[2, 3]"],
    ),
    (
        "targets of the logits' shape",
        |c| c.target = i64s(&[2, 3], &[0; 6]),
        ALL,
        &["target", "[2, 3]"],
    ),
    (
        "targets without the extra dimensions",
        |c| {
            c.logits = f32s(&[2, 3, 4]);
            c.grad_logits = f32s(&[2, 3, 4]);
        },
        ALL,
        &["target", "[2, 4]", "[2]"],
    ),
    // Logits.
    (
        "logits of an index dtype",
        |c| c.logits = i64s(&[2, 3], &[0; 6]),
        ALL,
        &["logits", "i64", "f32"],
    ),
    (
        "a number for logits",
        |c| {
            c.logits = f32s(&[]);
            c.target = i64s(&[], &[0]);
        },
        ALL,
        &["logits", "at least 1 dimension,", "got 0"],
    ),
    // Weights.
    ("a weight too many", |c| c.weight = Some(f32s(&[4])), ALL, &["weight", "[4]", "[3]"]),
    (
        "weights in two dimensions",
        |c| c.weight = Some(f32s(&[1, 3])),
        ALL,
        &["weight", "[1, 3]", "[3]"],
    ),
    (
        "weights of another float dtype",
        |c| c.weight = Some(Data::floats(DType::F16, &[3], &[1.0; 3])),
        ALL,
        &["weight", "f16", "f32"],
    ),
    (
        "weights of an index dtype",
        |c| c.weight = Some(i64s(&[3], &[1; 3])),
        ALL,
        &["weight", "i64", "f32"],
    ),
    (
        "a NaN weight of an unused class",
        |c| c.weight = Some(Data::floats(DType::F32, &[3], &[1.0, f64::NAN, 1.0])),
        ALL,
        &["weight", "index 1", "NaN"],
    ),
    (
        "an infinite weight",
        |c| c.weight = Some(Data::floats(DType::F32, &[3], &[1.0, 1.0, f64::NEG_INFINITY])),
        ALL,
        &["weight", "index 2", "-inf"],
    ),
    // Options.
    (
        "a reduction of divergences",
        |c| c.options = c.options.clone().reduction(Reduction::BatchMean),
        ALL,
        &["reduction", "batchmean", "none, sum or mean"],
    ),
    (
        "smoothing above 1",
        |c| c.options = c.options.clone().label_smoothing(1.5),
        ALL,
        &["label_smoothing", "1.5", "[0, 1]"],
    ),
    (
        "smoothing below 0",
        |c| c.options = c.options.clone().label_smoothing(-0.1),
        ALL,
        &["label_smoothing", "-0.1", "[0, 1]"],
    ),
    (
        "smoothing NaN",
        |c| c.options = c.options.clone().label_smoothing(f64::NAN),
        ALL,
        &["label_smoothing", "NaN", "[0, 1]"],
    ),
    (
        "a scale of 0",
        |c| c.options = c.options.clone().logit_scale(0.0),
        ALL,
        &["logit_scale", "> 0", "got 0"],
    ),
    (
        "a negative scale",
        |c| c.options = c.options.clone().logit_scale(-2.0),
        ALL,
        &["logit_scale", "> 0", "-2"],
    ),
    (
        "an infinite scale",
        |c| c.options = c.options.clone().logit_scale(f32::INFINITY),
        ALL,
        &["logit_scale", "finite", "inf"],
    ),
    (
        "a scale near the end of f32",
        |c| c.options = c.options.clone().logit_scale(2.4e38),
        ALL,
        &["logit_scale", "up to 2e38", "24"],
    ),
    (
        "a NaN scale",
        |c| c.options = c.options.clone().logit_scale(f32::NAN),
        ALL,
        &["logit_scale", "finite", "NaN"],
    ),
    (
        "a cap of 0",
        |c| c.options = c.options.clone().softcap(Some(0.0)),
        ALL,
        &["softcap", "> 0", "got 0"],
    ),
    (
        "an infinite cap",
        |c| c.options = c.options.clone().softcap(Some(f32::INFINITY)),
        ALL,
        &["softcap", "finite", "inf"],
    ),
    (
        "a NaN cap",
        |c| c.options = c.options.clone().softcap(Some(f32::NAN)),
        ALL,
        &["softcap", "finite", "NaN"],
    ),
    (
        "a negative z-loss",
        |c| c.options = c.options.clone().lse_square_scale(-1e-4),
        ALL,
        &["lse_square_scale", "≥ 0", "-0.0001"],
    ),
    (
        "an infinite z-loss",
        |c| c.options = c.options.clone().lse_square_scale(f64::INFINITY),
        ALL,
        &["lse_square_scale", "finite", "inf"],
    ),
    (
        "a NaN z-loss",
        |c| c.options = c.options.clone().lse_square_scale(f64::NAN),
        ALL,
        &["lse_square_scale", "finite", "NaN"],
    ),
    (
        "a z-loss beyond f32",
        |c| c.options = c.options.clone().lse_square_scale(1e39),
        ALL,
        &["lse_square_scale", "f32", "1000000000"],
    ),
    // Probabilities.
    (
        "probabilities for other classes",
        |c| c.target = f32s(&[2, 4]),
        ALL,
        &["target", "[2, 4]", "[2, 3]"],
    ),
    (
        "probabilities of another float dtype",
        |c| c.target = Data::floats(DType::F16, &[2, 3], &[0.5; 6]),
        ALL,
        &["target", "f16", "f32"],
    ),
    (
        "an ignored label with probabilities",
        |c| {
            c.target = f32s(&[2, 3]);
            c.options = c.options.clone().ignore_index(0);
        },
        ALL,
        &["ignore_index", "negative", "got 0"],
    ),
    (
        "an infinite weight beside probabilities",
        |c| {
            c.target = f32s(&[2, 3]);
            c.weight = Some(Data::floats(DType::F32, &[3], &[1.0, 1.0, f64::INFINITY]));
        },
        ALL,
        &["weight", "index 2", "inf"],
    ),
    (
        "a teacher among class indices",
        |c| c.options = c.options.clone().teacher_scale(Some(0.5)),
        ALL,
        &["teacher_scale", "class indices", "0.5"],
    ),
    (
        "a teacher's scale of 0",
        |c| {
            c.target = f32s(&[2, 3]);
            c.options = c.options.clone().teacher_scale(Some(0.0));
        },
        ALL,
        &["teacher_scale", "> 0", "got 0"],
    ),
    (
        "a gradient of class indices",
        |c| c.grad_target = Some(f32s(&[2, 3])),
        GRADIENTS,
        &["grad_target", "class indices", "[2, 3]"],
    ),
    (
        "a gradient of a teacher's logits",
        |c| {
            c.target = f32s(&[2, 3]);
            c.options = c.options.clone().teacher_scale(Some(1.0));
            c.grad_target = Some(f32s(&[2, 3]));
        },
        GRADIENTS,
        &["grad_target", "teacher", "[2, 3]"],
    ),
    (
        "a gradient of probabilities in another shape",
        |c| {
            c.target = f32s(&[2, 3]);
            c.grad_target = Some(f32s(&[3, 2]));
        },
        GRADIENTS,
        &["grad_target", "[3, 2]", "[2, 3]"],
    ),
    (
        "a gradient of probabilities in another dtype",
        |c| {
            c.target = f32s(&[2, 3]);
            c.grad_target = Some(Data::poison(DType::BF16, &[2, 3]));
        },
        GRADIENTS,
        &["grad_target", "bf16", "f32"],
    ),
    // Upstream gradient and saved log-sum-exp.
    (
        "upstream gradients for other rows",
        |c| c.grad_output = Some(f32s(&[3])),
        UPSTREAM,
        &["grad_output", "[3]", "[2]"],
    ),
    (
        "upstream gradients of a mean, per row",
        |c| {
            c.options = c.options.clone().reduction(Reduction::Mean);
            c.loss = Data::poison(DType::F32, &[]);
            c.z_loss = Data::poison(DType::F32, &[]);
            c.grad_output = Some(f32s(&[2]));
        },
        UPSTREAM,
        &["grad_output", "[2]", "[]"],
    ),
    (
        "upstream gradients of another float dtype",
        |c| c.grad_output = Some(Data::floats(DType::BF16, &[2], &[1.0; 2])),
        UPSTREAM,
        &["grad_output", "bf16", "f32"],
    ),
    (
        "upstream gradients of an index dtype",
        |c| c.grad_output = Some(i64s(&[2], &[1, 1])),
        UPSTREAM,
        &["grad_output", "i64", "f32"],
    ),
    ("a saved lse of other rows", |c| c.saved_lse = f32s(&[3]), SAVED, &["lse", "[3]", "[2]"]),
    (
        "a saved lse that is not f32",
        |c| c.saved_lse = Data::floats(DType::F16, &[2], &[1.0; 2]),
        SAVED,
        &["lse", "f16", "f32"],
    ),
    // Outputs.
    (
        "a gradient of another shape",
        |c| c.grad_logits = Data::poison(DType::F32, &[3, 2]),
        GRAD,
        &["grad_logits", "[3, 2]", "[2, 3]"],
    ),
    (
        "a gradient of another dtype",
        |c| c.grad_logits = Data::poison(DType::F16, &[2, 3]),
        GRAD,
        &["grad_logits", "f16", "f32"],
    ),
    (
        "one loss for two rows",
        |c| c.loss = Data::poison(DType::F32, &[]),
        OUT,
        &["loss", "[]", "[2]"],
    ),
    (
        "a loss that is not f32",
        |c| c.loss = Data::poison(DType::BF16, &[2]),
        OUT,
        &["loss", "bf16", "f32"],
    ),
    (
        "losses with padding",
        |c| c.loss = Data::poison(DType::F32, &[2]).padded(1),
        OUT,
        &["loss", "stride 1", "got row stride 2"],
    ),
    (
        "an lse of another shape",
        |c| c.lse = Data::poison(DType::F32, &[2, 1]),
        OUT,
        &["lse", "[2, 1]", "[2]"],
    ),
    (
        "a z-loss of another shape",
        |c| c.z_loss = Data::poison(DType::F32, &[1]),
        OUT,
        &["z_loss", "[1]", "[2]"],
    ),
];
