//! Every public call that takes a target is handed the wrong ones: another kind, shape, dtype or
//! stride, on the host and on a device. A new call is a row in
//! `targets/calls.rs`.

mod calls;

use crate::data::{Data, FLOATS, Rng, on_device};
use crate::harness::{RESIDENT, devices};
use crate::ranks::unwritten;
use calls::calls;
use warploss::balance::{BalancedSampler, SamplerOptions};
use warploss::{
    AdaptiveEmbedding, AdaptiveLogSoftmax, CrossEntropy, CrossEntropyGradients, CrossEntropyOut,
    DType, Device, ElementwiseGradOut, GradOutput, JsDivLogits, JsDivLogitsGradOut, LayerGradOut,
    LayerOut, LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream, MultiMargin,
    NegativeSampler, Nll, OutputLayer, Reduction, Result, SampledSoftmax, Tensor, TensorRef, Wrt,
    information, topk_accuracy,
};

const FEATURES: usize = 4;
const CLASSES: usize = 3;
const LAYER_CLASSES: usize = 10;

/// What calls read and write besides their target: two rows of three classes.
struct Buffers {
    x: Data,
    y: Data,
    lse: Data,
    hidden: Data,
    grad: Data,
    grad_target: Data,
    loss: Data,
    elements: Data,
    z_loss: Data,
    new_lse: Data,
    argmax: Data,
    rank: Data,
    embedded: Data,
}

fn f32s(shape: &[usize]) -> Data {
    Data::floats(DType::F32, shape, &Rng(3).normals(shape.iter().product(), 1.0))
}

/// Numbers in (0, 1): what every loss takes.
fn shares(shape: &[usize]) -> Data {
    let normals = Rng(3).normals(shape.iter().product(), 1.0);
    let shares: Vec<f64> = normals.iter().map(|v| 1.0 / (1.0 + v.exp())).collect();
    Data::floats(DType::F32, shape, &shares)
}

impl Buffers {
    fn new() -> Buffers {
        let poison = |shape: &[usize]| Data::poison(DType::F32, shape);
        Buffers {
            x: shares(&[2, CLASSES]).padded(1),
            y: f32s(&[2, CLASSES]),
            lse: f32s(&[2]),
            hidden: f32s(&[2, FEATURES]),
            grad: poison(&[2, CLASSES]).padded(2),
            grad_target: poison(&[2, CLASSES]),
            loss: poison(&[2]),
            elements: poison(&[2, CLASSES]),
            z_loss: poison(&[2]),
            new_lse: poison(&[2]),
            argmax: unwritten(&[2]),
            rank: unwritten(&[2]),
            embedded: poison(&[2, FEATURES]),
        }
    }

    /// Everything that a call may write; what it holds on the host is not asked for on a device.
    fn bits(&self) -> Vec<Vec<u64>> {
        let floats = [&self.x, &self.grad, &self.grad_target, &self.loss, &self.elements];
        let more = [&self.z_loss, &self.new_lse, &self.embedded, &self.hidden];
        floats.into_iter().chain(more).map(Data::bits).collect()
    }

    fn out(&mut self) -> CrossEntropyOut<'_> {
        CrossEntropyOut {
            lse: Some(self.new_lse.view_mut()),
            z_loss: Some(self.z_loss.view_mut()),
            ..CrossEntropyOut::loss(self.loss.view_mut())
        }
    }
}

/// What the argument holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    /// Class indices, `[2]`.
    Indices,
    /// The same, of any shape.
    AnyIndices,
    /// The same, `[2]`, with rows of any stride; on the host alone.
    HostIndices,
    /// Class indices `[2]`, or probabilities `[2, 3]`.
    Either,
    /// Floats of `[2, 3]`.
    Floats,
    /// The same, or what broadcasts.
    Broadcast,
}

type Run = Box<dyn Fn(&Device, TensorRef<'_>, &mut Buffers) -> Result<()>>;

struct Call {
    name: String,
    argument: &'static str,
    takes: Takes,
    run: Run,
}

fn call(
    name: impl Into<String>,
    (argument, takes): (&'static str, Takes),
    run: impl Fn(&Device, TensorRef<'_>, &mut Buffers) -> Result<()> + 'static,
) -> Call {
    Call { name: name.into(), argument, takes, run: Box::new(run) }
}

/// A target that is refused, and what the error must say besides the argument.
type Wrong = (String, Data, Vec<String>);

fn wrong(takes: Takes) -> Vec<Wrong> {
    let integers = [DType::I64, DType::I32, DType::U32, DType::U8];
    let floats =
        |dtype, shape: &[usize]| Data::floats(dtype, shape, &vec![1.0; shape.iter().product()]);
    let indices =
        |dtype, shape: &[usize]| Data::indices(dtype, shape, &vec![1; shape.iter().product()]);
    let mut all: Vec<Wrong> = Vec::new();
    let mut add = |data: Data, says: &[&str]| {
        let (dtype, shape) = (data.dtype(), data.shape());
        let name = format!("{dtype} {shape:?} stride {}", data.view().row_stride());
        all.push((name, data, says.iter().map(|&s| s.to_owned()).collect()));
    };
    // Of the rows' shape, the logits', the hidden rows', and others.
    let shapes: [&[usize]; 8] =
        [&[2], &[2, CLASSES], &[2, FEATURES], &[], &[3], &[2, 1], &[1, 2, CLASSES], &[0]];
    let known = "i64, i32, u32 or u8";
    match takes {
        Takes::Indices | Takes::AnyIndices | Takes::HostIndices => {
            for (dtype, shape) in FLOATS.iter().flat_map(|&d| shapes.map(|s| (d, s))) {
                add(floats(dtype, shape), &[known, "class indices", dtype.name()]);
            }
        }
        Takes::Either => {
            for dtype in FLOATS {
                add(floats(dtype, &[2]), &[known, "class indices", dtype.name()]);
                add(floats(dtype, &[3]), &["expected shape [2, 3]", "got [3]"]);
                add(floats(dtype, &[2, FEATURES]), &["expected shape [2, 3]", "got [2, 4]"]);
                if dtype != DType::F32 {
                    add(floats(dtype, &[2, CLASSES]), &["expected dtype f32", dtype.name()]);
                }
            }
            for dtype in integers {
                add(indices(dtype, &[2, CLASSES]), &["probabilities", "f32", dtype.name()]);
            }
        }
        Takes::Floats | Takes::Broadcast => {
            for dtype in [DType::F16, DType::BF16].into_iter() {
                add(floats(dtype, &[2, CLASSES]), &["expected dtype f32", dtype.name()]);
            }
            for dtype in integers {
                add(indices(dtype, &[2, CLASSES]), &["f32", dtype.name()]);
            }
            add(f32s(&[2, FEATURES]), &["[2, 3]", "[2, 4]"]);
            if takes == Takes::Floats {
                for shape in [&[2usize] as &[usize], &[1, CLASSES], &[], &[CLASSES, 2]] {
                    add(f32s(shape), &["[2, 3]", &format!("{shape:?}")]);
                }
            }
        }
    }
    if matches!(takes, Takes::Indices | Takes::Either) {
        for (dtype, shape) in integers.iter().flat_map(|&d| shapes.map(|s| (d, s))) {
            let soft = takes == Takes::Either && *shape == [2, CLASSES];
            if *shape != [2] && !soft {
                let got = format!("got {shape:?}");
                add(indices(dtype, shape), &["expected shape [2]", &got]);
            }
        }
    }
    if takes == Takes::HostIndices {
        add(indices(DType::I64, &[2, 1]), &["expected 1 dimension,", "got 2"]);
    }
    all
}

/// A target that every row of `calls` takes.
fn right(takes: Takes) -> Data {
    match takes {
        Takes::Floats | Takes::Broadcast => f32s(&[2, CLASSES]),
        _ => Data::indices(DType::I64, &[2], &[0, 2]),
    }
}

fn check(at: &str, device: &Device, resident: bool) {
    for call in calls() {
        let mut buffers = Buffers::new();
        let at = format!("{}, {at}", call.name);
        let refuses_place = resident && call.takes == Takes::HostIndices;
        let done = (call.run)(device, right(call.takes).view(), &mut buffers);
        match done {
            Err(error) if !refuses_place => panic!("the right target: {error}: {at}"),
            _ => device.check().expect("a legal call"),
        }
        for (what, data, says) in wrong(call.takes) {
            let mut buffers = Buffers::new();
            let before = buffers.bits();
            let Err(error) = (call.run)(device, data.view(), &mut buffers) else {
                panic!("{what} was taken: {at}")
            };
            let said = error.to_string();
            let argument = said.split(':').next();
            assert_eq!(argument, Some(call.argument), "{said:?} for {what}: {at}");
            for part in &says {
                assert!(said.contains(part), "{part:?} is not in {said:?} for {what}: {at}");
            }
            assert!(before == buffers.bits(), "something was written for {what}: {at}");
        }
    }
}

#[test]
fn the_wrong_target_is_refused_by_every_call_on_every_device() {
    for (name, device) in devices() {
        check(name, device, false);
    }
}

#[test]
fn the_wrong_target_is_refused_by_every_call_on_tensors_that_are_there() {
    for (name, device) in devices().iter().filter(|(name, _)| *name == RESIDENT) {
        on_device(device, || check(&format!("data on the {name}"), device, true));
    }
}

/// Classes that are none are told of the tensor that they came in, as every device has it.
#[test]
fn a_class_that_is_none_is_told_of_its_tensor() {
    for (name, device) in devices() {
        for call in calls().iter().filter(|call| {
            !matches!(call.takes, Takes::Floats | Takes::Broadcast | Takes::HostIndices)
        }) {
            for bad in [LAYER_CLASSES as i64, -7, i64::MAX, i64::MIN] {
                let mut buffers = Buffers::new();
                let before = buffers.bits();
                let target = Data::indices(DType::I64, &[2], &[0, bad]);
                let error = (call.run)(device, target.view(), &mut buffers).expect_err("no class");
                let said = error.to_string();
                let at = format!("{}, {name}", call.name);
                assert!(said.starts_with(&format!("{}: ", call.argument)), "{said}: {at}");
                assert!(said.contains(&format!("got {bad} at")), "{said}: {at}");
                assert!(before == buffers.bits(), "something was written: {at}");
            }
        }
    }
}

/// Ranks that are no ranks.
#[test]
fn top_k_accuracy_takes_ranks_alone() {
    for (_, device) in devices() {
        for wrong in [f32s(&[2]), Data::indices(DType::I32, &[2], &[0, 1])] {
            let said = topk_accuracy(device, wrong.view(), &[1]).expect_err("no ranks").to_string();
            assert!(said.starts_with("rank: expected dtype i64"), "{said}");
        }
    }
}
