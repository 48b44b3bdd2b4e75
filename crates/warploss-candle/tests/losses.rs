//! Against candle's own losses, and candle's own operations, in f32: values, and gradients of all that there is below.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use warploss_candle::warploss::{CrossEntropy, Divergence, Reduction};
use warploss_candle::{
    CrossEntropyLoss, LinearArgs, LinearCrossEntropyLoss, LinearDistillationLoss,
    LinearLogprobEntropyOp, LinearSide, loss, nn,
};

const CPU: Device = Device::Cpu;

/// Numbers that are nearly normal, the same ones at every run.
fn normal(seed: u64, deviation: f64, shape: &[usize]) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let one = |_| ((0..6).map(|_| uniform()).sum::<f64>() * deviation / 2f64.sqrt()) as f32;
    Tensor::from_vec((0..shape.iter().product()).map(one).collect::<Vec<f32>>(), shape, &CPU)
}

fn var(seed: u64, deviation: f64, shape: &[usize]) -> Result<Var> {
    Var::from_tensor(&normal(seed, deviation, shape)?)
}

/// Gives variables that were drawn at random the same numbers at every run.
fn settle(map: &candle_nn::VarMap) -> Result<()> {
    map.all_vars()
        .iter()
        .try_for_each(|var| var.set(&normal(var.elem_count() as u64, 0.3, var.dims())?))
}

/// Within 2e-5 of the largest: what f32 is off by that has passed products, candle's or ours.
fn near(what: &str, got: &Tensor, wanted: &Tensor) -> Result<()> {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let wanted = wanted.to_dtype(DType::F64)?.flatten_all()?;
    let off = (got.to_dtype(DType::F64)?.flatten_all()? - &wanted)?.abs()?;
    let [off, most] = [off, wanted.abs()?].map(|t| t.max(D::Minus1)?.to_scalar::<f64>());
    let (off, most): (f64, f64) = (off?, most?);
    assert!(off <= 2e-5 * most, "{what}: {off} off of {most}");
    assert!(most > 0.0, "{what}: nothing to compare");
    Ok(())
}

fn target(rows: usize, classes: usize, dtype: DType) -> Result<Tensor> {
    let ids: Vec<u32> = (0..rows).map(|row| (row * 7919 % classes) as u32).collect();
    Tensor::from_vec(ids, rows, &CPU)?.to_dtype(dtype)
}

/// Losses of rows by candle's own operations.
fn plain(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let log_softmax = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let ids = target.to_dtype(DType::U32)?.unsqueeze(1)?;
    log_softmax.gather(&ids, 1)?.squeeze(1)?.neg()
}

#[test]
fn cross_entropy_is_candles_own() -> Result<()> {
    for (rows, classes, dtype) in
        [(5, 7, DType::U32), (33, 1000, DType::I64), (2, 40_003, DType::U8)]
    {
        let x = var(1, 2.0, &[rows, 16])?;
        let w = var(2, 0.5, &[16, classes])?;
        let target = target(rows, classes.min(256), dtype)?;
        let logits = x.matmul(&w)?;
        let theirs = candle_nn::loss::cross_entropy(&logits, &target.to_dtype(DType::U32)?)?;
        let wanted = theirs.backward()?;
        let ways = [CrossEntropyLoss::default(), CrossEntropyLoss::default().in_place(true)];
        for call in ways {
            let ours = call.forward(&x.matmul(&w)?, &target)?;
            near("loss", &ours, &theirs)?;
            // Times something else than 1 as well.
            for by in [1.0, -2.5] {
                let got = (&ours * by)?.backward()?;
                for (name, var) in [("x", &x), ("w", &w)] {
                    near(name, got.get(var).unwrap(), &(wanted.get(var).unwrap() * by)?)?;
                }
            }
        }
        near("function", &loss::cross_entropy(&logits, &target)?, &theirs)?;
    }
    Ok(())
}

#[test]
fn losses_of_rows_have_gradients_of_rows() -> Result<()> {
    let logits = var(3, 2.0, &[11, 50])?;
    let target = target(11, 50, DType::I64)?;
    let by = normal(13, 1.0, &[11])?;
    let theirs = plain(&logits, &target)?;
    let wanted = (&theirs * &by)?.sum_all()?.backward()?;
    let ours = CrossEntropyLoss::default().reduction(Reduction::None).forward(&logits, &target)?;
    near("losses", &ours, &theirs)?;
    let got = (&ours * &by)?.sum_all()?.backward()?;
    near("logits", got.get(&logits).unwrap(), wanted.get(&logits).unwrap())
}

#[test]
fn options_weights_and_probabilities_do_what_they_do_in_the_library() -> Result<()> {
    let logits = var(4, 2.0, &[6, 9])?;
    let weight = (normal(42, 0.5, &[9])?.abs()? + 0.1)?;
    let target = target(6, 9, DType::I64)?;
    // Weighted, and of the mean over weights.
    let own = weight.gather(&target, 0)?;
    let theirs = ((plain(&logits, &target)? * &own)?.sum_all()? / own.sum_all()?)?;
    let call = CrossEntropyLoss::default().weight(weight);
    let ours = call.forward(&logits, &target)?;
    near("weighted", &ours, &theirs)?;
    let [got, wanted] = [ours.backward()?, theirs.backward()?];
    near("logits", got.get(&logits).unwrap(), wanted.get(&logits).unwrap())?;
    // Probabilities, with a gradient of their own.
    let q = Var::from_tensor(&normal(43, 0.1, &[6, 9])?.abs()?)?;
    let log_softmax = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let theirs = ((log_softmax * q.as_tensor())?.sum_all()? / -6.0)?;
    let ours = CrossEntropyLoss::default().forward(&logits, &q)?;
    near("probabilities", &ours, &theirs)?;
    let [got, wanted] = [ours.backward()?, theirs.backward()?];
    for var in [&logits, &q] {
        near("gradient", got.get(var).unwrap(), wanted.get(var).unwrap())?;
    }
    let smoothed = CrossEntropyLoss::new(CrossEntropy::default().label_smoothing(0.1));
    let smoothed = smoothed.forward(&logits, &target)?.to_scalar::<f32>()?;
    assert!(smoothed != loss::cross_entropy(&logits, &target)?.to_scalar::<f32>()?);
    Ok(())
}

#[test]
fn linear_cross_entropy_is_a_product_and_candles_loss() -> Result<()> {
    let (rows, features, classes) = (37, 24, 1003);
    let hidden = var(5, 1.0, &[rows, features])?;
    let weight = var(6, 0.3, &[classes, features])?;
    let bias = var(7, 0.3, &[classes])?;
    let target = target(rows, classes, DType::U32)?;
    let args = LinearArgs::new(&hidden, &weight, &target).linear_bias(&bias);
    let logits = hidden.matmul(&weight.t()?)?.broadcast_add(&bias)?;
    let by = normal(14, 1.0, &[rows])?;
    let call = LinearCrossEntropyLoss::default();
    let of_rows = call.clone().max_workspace_bytes(1 << 20).reduction(Reduction::None);
    let theirs = candle_nn::loss::cross_entropy(&logits, &target)?;
    let theirs_of_rows = (plain(&logits, &target)? * &by)?.sum_all()?;
    let ours = [call.forward(&args)?, (of_rows.forward(&args)? * &by)?.sum_all()?];
    for (ours, theirs) in ours.iter().zip([theirs, theirs_of_rows]) {
        near("loss", ours, &theirs)?;
        let [got, wanted] = [ours.backward()?, theirs.backward()?];
        for (name, var) in [("hidden", &hidden), ("weight", &weight), ("bias", &bias)] {
            near(name, got.get(var).unwrap(), wanted.get(var).unwrap())?;
        }
    }
    // A budget stays what it is, whatever is said after it.
    let small = call.clone().max_workspace_bytes(1).reduction(Reduction::Sum);
    let said = small.forward(&args).unwrap_err().to_string();
    assert!(said.contains("max_workspace_bytes"), "{said}");
    // Of a classifier that is not trained no gradient is made.
    let frozen = LinearArgs::new(&hidden, &weight.detach(), &target);
    let got = call.forward(&frozen)?.backward()?;
    assert!(got.get(&weight).is_none() && got.get(&hidden).is_some());
    // And without anything that is trained there is no graph.
    let none = LinearArgs::new(&hidden.detach(), &weight.detach(), &target);
    assert!(!call.forward(&none)?.track_op());
    Ok(())
}

#[test]
fn log_probabilities_and_entropies_are_those_of_the_softmax() -> Result<()> {
    let (rows, features, classes) = (13, 8, 301);
    let hidden = var(8, 1.0, &[rows, features])?;
    let weight = var(9, 0.5, &[classes, features])?;
    let temperature = (normal(44, 0.4, &[rows])?.abs()? + 0.5)?;
    let target = target(rows, classes, DType::I64)?;
    let logits = hidden.matmul(&weight.t()?)?.broadcast_div(&temperature.unsqueeze(1)?)?;
    let log_softmax = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let entropy = (log_softmax.exp()? * &log_softmax)?.sum(1)?.neg()?;
    let theirs = [plain(&logits, &target)?.neg()?, entropy];
    let args = LinearArgs::new(&hidden, &weight, &target).temperature(&temperature);
    let (logprob, entropy) = LinearLogprobEntropyOp::default().forward(&args)?;
    near("logprob", &logprob, &theirs[0])?;
    near("entropy", &entropy, &theirs[1])?;
    let (a, b) = (normal(40, 1.0, &[rows])?, normal(41, 1.0, &[rows])?);
    // Of both, and of one alone.
    for entropies in [1.0, 0.0] {
        let sum = |logprob: &Tensor, entropy: &Tensor| -> Result<_> {
            ((logprob * &a)?.sum_all()? + ((entropy * &b)?.sum_all()? * entropies)?)?.backward()
        };
        let (got, wanted) = (sum(&logprob, &entropy)?, sum(&theirs[0], &theirs[1])?);
        for (name, var) in [("hidden", &hidden), ("weight", &weight)] {
            near(name, got.get(var).unwrap(), wanted.get(var).unwrap())?;
        }
    }
    let weighted = args.row_weight(&temperature);
    let said = LinearLogprobEntropyOp::default().forward(&weighted).unwrap_err().to_string();
    assert!(said.contains("row_weight"), "{said}");
    Ok(())
}

#[test]
fn distillation_is_a_divergence_of_softmaxes() -> Result<()> {
    let (rows, classes) = (17, 203);
    let hidden = var(50, 1.0, &[rows, 8])?;
    let [weight, bias] = [var(51, 0.4, &[classes, 8])?, var(52, 0.4, &[classes])?];
    let teacher = [normal(53, 1.0, &[rows, 5])?, normal(54, 0.5, &[classes, 5])?];
    let q = hidden.matmul(&weight.t()?)?.broadcast_add(&bias)?;
    let q = candle_nn::ops::log_softmax(&q, 1)?;
    let p = candle_nn::ops::log_softmax(&teacher[0].matmul(&teacher[1].t()?)?, 1)?;
    let kl = |p: &Tensor, q: &Tensor| -> Result<Tensor> { (p.exp()? * (p - q)?)?.sum(1) };
    let of_teacher = LinearSide::new(&teacher[0], &teacher[1]);
    let student = LinearSide::new(&hidden, &weight).linear_bias(&bias);
    let ways = [(Divergence::Kl, kl(&p, &q)?), (Divergence::ReverseKl, kl(&q, &p)?)];
    for (divergence, theirs) in ways {
        let theirs = theirs.mean_all()?;
        let ours = LinearDistillationLoss::from(divergence).max_workspace_bytes(1 << 18);
        let ours = ours.forward(&student, &of_teacher, None)?;
        near("divergence", &ours, &theirs)?;
        let (got, wanted) = ((ours * 2.0)?.backward()?, (theirs * 2.0)?.backward()?);
        for (name, var) in [("hidden", &hidden), ("weight", &weight), ("bias", &bias)] {
            near(name, got.get(var).unwrap(), wanted.get(var).unwrap())?;
        }
    }
    let learns = LinearSide::new(&hidden, &weight);
    let call = LinearDistillationLoss::from(Divergence::Kl);
    let said = call.forward(&learns, &learns, None).unwrap_err().to_string();
    assert!(said.contains("teacher") && said.contains("detach"), "{said}");
    Ok(())
}

#[test]
fn the_adaptive_softmax_is_its_own_log_probabilities() -> Result<()> {
    use candle_nn::{VarBuilder, VarMap};
    use warploss_candle::warploss::AdaptiveLogSoftmax;
    let map = VarMap::new();
    let variables = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let options = AdaptiveLogSoftmax::new(8, 40, &[6, 20]).div_value(2.0).head_bias(true);
    let layer = nn::AdaptiveLogSoftmaxWithLoss::new(options, variables)?;
    assert_eq!(map.all_vars().len(), 6);
    settle(&map)?;
    let hidden = var(10, 1.0, &[30, 8])?;
    let target = target(30, 40, DType::U32)?;
    // The head, and each cluster below its column of it, by candle's operations.
    let named = layer.parameters().clone();
    let head = hidden.matmul(&named.head_weight.t()?)?;
    let head = head.broadcast_add(named.head_bias.as_ref().unwrap())?;
    let head = candle_nn::ops::log_softmax(&head, 1)?;
    let mut all = vec![head.narrow(1, 0, 6)?];
    for (i, tail) in named.tails.iter().enumerate() {
        let z = hidden.matmul(&tail.projection.t()?)?.matmul(&tail.weight.t()?)?;
        let own = candle_nn::ops::log_softmax(&z, 1)?;
        all.push(own.broadcast_add(&head.narrow(1, 6 + i, 1)?)?);
    }
    let all = Tensor::cat(&all, 1)?;
    near("log_prob", &layer.log_prob(&hidden)?, &all)?;
    let theirs = all.gather(&target.unsqueeze(1)?, 1)?.mean_all()?.neg()?;
    let ours = layer.forward(&hidden, &target)?;
    near("loss", &ours, &theirs)?;
    let (got, wanted) = ((ours * 3.0)?.backward()?, (theirs * 3.0)?.backward()?);
    near("hidden", got.get(&hidden).unwrap(), wanted.get(&hidden).unwrap())?;
    for var in map.all_vars() {
        near("parameter", got.get(&var).unwrap(), wanted.get(&var).unwrap())?;
    }
    // Nothing is trained: a loss alone.
    assert!(!layer_without_graph(&layer)?.forward(&hidden.detach(), &target)?.track_op());
    Ok(())
}

fn layer_without_graph(
    layer: &nn::AdaptiveLogSoftmaxWithLoss,
) -> Result<nn::AdaptiveLogSoftmaxWithLoss> {
    use warploss_candle::warploss::AdaptiveLogSoftmax;
    let parameters = layer.parameters().try_map(|_, t| Ok::<_, candle_core::Error>(t.detach()))?;
    let options = AdaptiveLogSoftmax::new(8, 40, &[6, 20]).div_value(2.0).head_bias(true);
    Ok(nn::AdaptiveLogSoftmaxWithLoss::from_parameters(options, parameters))
}

#[test]
fn a_layer_trains_as_a_linear_layer_does() -> Result<()> {
    use candle_nn::{Module, Optimizer, SGD, VarBuilder, VarMap};
    let map = VarMap::new();
    let variables = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let layer = nn::OutputLayer::new([8, 50], true, Default::default(), variables)?;
    settle(&map)?;
    let copies = [layer.weight(), layer.bias().unwrap()].map(|t| Var::from_tensor(&t.copy()?));
    let [weight, bias] = copies;
    let (weight, bias) = (weight?, bias?);
    let twin = candle_nn::Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    let mut ours = SGD::new(map.all_vars(), 0.5)?;
    let mut theirs = SGD::new(vec![weight, bias], 0.5)?;
    let (x, target) = (normal(15, 1.0, &[20, 8])?, target(20, 50, DType::U32)?);
    let mut losses = Vec::new();
    for _ in 0..200 {
        let [a, b] = [
            layer.forward(&x, &target)?,
            candle_nn::loss::cross_entropy(&twin.forward(&x)?, &target)?,
        ];
        let pair = [a.to_scalar::<f32>()?, b.to_scalar::<f32>()?];
        assert!((pair[0] - pair[1]).abs() < 1e-4, "{pair:?}");
        losses.push(pair[0]);
        ours.backward_step(&a)?;
        theirs.backward_step(&b)?;
    }
    assert!(losses[199] < losses[0] / 2.0, "{losses:?}");
    near("logits", &layer.logits(&x)?, &twin.forward(&x)?)
}

#[test]
fn tensors_are_taken_as_they_lie() -> Result<()> {
    let whole = var(11, 2.0, &[20, 60])?;
    let target = target(9, 40, DType::U32)?;
    // Rows at a distance; columns at one; rows that are one.
    let views: [fn(&Tensor) -> Result<Tensor>; 3] = [
        |t| t.narrow(0, 3, 9)?.narrow(1, 7, 40),
        |t| t.narrow(0, 1, 9)?.narrow(1, 0, 40)?.t()?.contiguous()?.t(),
        |t| t.get(5)?.narrow(0, 0, 40)?.unsqueeze(0)?.broadcast_as((9, 40)),
    ];
    for view in views {
        let logits = view(&whole)?;
        let theirs = candle_nn::loss::cross_entropy(&logits.contiguous()?, &target)?;
        let ours = loss::cross_entropy(&logits, &target)?;
        near("loss", &ours, &theirs)?;
        let [got, wanted] = [ours.backward()?, theirs.backward()?];
        near("whole", got.get(&whole).unwrap(), wanted.get(&whole).unwrap())?;
    }
    for dtype in [DType::F16, DType::BF16] {
        let narrow = whole.to_dtype(dtype)?.narrow(0, 0, 9)?.narrow(1, 0, 40)?;
        let theirs = candle_nn::loss::cross_entropy(&narrow.to_dtype(DType::F32)?, &target)?;
        let ours = loss::cross_entropy(&narrow, &target)?;
        assert_eq!(ours.dtype(), DType::F32);
        near("16 bits", &ours, &theirs)?;
        assert!(ours.backward()?.get(&whole).is_some());
    }
    Ok(())
}

#[test]
fn what_the_library_refuses_is_candles_error_in_its_words() -> Result<()> {
    let logits = var(12, 1.0, &[4, 6])?;
    let before = logits.flatten_all()?.to_vec1::<f32>()?;
    let said = |target: &Tensor, parts: &[&str]| {
        for call in [CrossEntropyLoss::default(), CrossEntropyLoss::default().in_place(true)] {
            let error = call.forward(&logits, target).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    };
    said(&target(5, 6, DType::U32)?, &["target", "[4]", "[5]"]);
    said(&Tensor::new(&[0i64, 1, 6, 2], &CPU)?, &["target", "[0, 6)", "6 at row 2"]);
    said(&Tensor::zeros((4, 6), DType::F64, &CPU)?, &["target", "f32, f16 or bf16", "F64"]);
    assert_eq!(logits.flatten_all()?.to_vec1::<f32>()?, before);
    let wide = Tensor::zeros((4, 6), DType::F64, &CPU)?;
    let error = loss::cross_entropy(&wide, &target(4, 6, DType::U32)?).unwrap_err().to_string();
    assert!(error.contains("logits") && error.contains("F64"), "{error}");
    let hidden = Tensor::zeros((4, 3), DType::F32, &CPU)?;
    let error = loss::linear_cross_entropy(&hidden, &logits, &target(4, 4, DType::U32)?);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("linear_weight") && error.contains("[V, 3]"), "{error}");
    Ok(())
}
