//! What a linear cross entropy takes on the CPU beside its inputs, outputs and gradients, by the counting
//! allocator: what its plan says at most, which is within the budget.

use crate::allocations::{alone, peak};
use half::bf16;
use warploss::{
    CrossEntropy, CrossEntropyOut, DType, Device, LinearCrossEntropy, LinearGradOut, LinearInput,
    LinearPath, Tensor, TopKOut,
};

/// Classes with rows and features: one block of classes and many, a row and several chunks, features beside which
/// logits are few.
const SHAPES: [[usize; 3]; 6] = [
    [37, 300, 24],
    [1, 5000, 16],
    [130, 2049, 700],
    [513, 9000, 40],
    [1100, 70_000, 8],
    [300, 1000, 1030],
];

fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
    let numbers = (0..shape.iter().product()).map(|i: usize| (i * 7919 % 201) as f32 * 0.01 - 1.0);
    match dtype {
        DType::BF16 => Tensor::from_vec(numbers.map(bf16::from_f32).collect(), shape),
        _ => Tensor::from_vec(numbers.collect::<Vec<f32>>(), shape),
    }
    .expect("a tensor")
}

/// Buffers of a call.
struct Call {
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    f32s: [Tensor; 3],
    ranks: [Tensor; 2],
    top: [Tensor; 2],
    gradients: [Tensor; 3],
}

impl Call {
    fn new(dtype: DType, [rows, classes, features]: [usize; 3]) -> Call {
        let [input, weight, bias] =
            [&[rows, features][..], &[classes, features], &[classes]].map(|s| tensor(dtype, s));
        // Some are left out, so that rows do not lie as products take them.
        let target = |row: usize| if row % 9 == 5 { -100 } else { (row * 577 % classes) as i64 };
        let i64s = |shape: &[usize]| Tensor::from_vec(vec![0i64; shape.iter().product()], shape);
        Call {
            gradients: [&input, &weight, &bias].map(Clone::clone),
            input,
            weight,
            bias,
            target: Tensor::from_vec((0..rows).map(target).collect(), &[rows]).expect("a tensor"),
            f32s: [(); 3].map(|()| tensor(DType::F32, &[rows])),
            ranks: [(); 2].map(|()| i64s(&[rows]).expect("a tensor")),
            top: [i64s(&[rows, 3]).expect("a tensor"), tensor(DType::F32, &[rows, 3])],
        }
    }

    /// Bytes that a call takes on fresh threads, and those that its plan says it does.
    fn bytes(&mut self, loss: &LinearCrossEntropy<'_>, backward: bool) -> [usize; 2] {
        let device = Device::cpu_with_threads(2).expect("threads");
        let input = LinearInput::new(self.input.view(), self.weight.view(), self.target.view());
        let input = input.linear_bias(self.bias.view());
        let plan = loss.plan(&device, &input, backward).expect("a plan");
        let mut one = tensor(DType::F32, &[]);
        let [lse, logprob, entropy] = self.f32s.each_mut().map(|t| Some(t.view_mut()));
        let [argmax, rank] = self.ranks.each_mut().map(|t| Some(t.view_mut()));
        let [classes, of_top] = self.top.each_mut().map(|t| t.view_mut());
        let out = CrossEntropyOut {
            lse,
            logprob,
            entropy,
            argmax,
            rank,
            top_k: Some(TopKOut { classes, logprob: of_top }),
            ..CrossEntropyOut::loss(one.view_mut())
        };
        let [of_input, of_weight, of_bias] = self.gradients.each_mut().map(|t| Some(t.view_mut()));
        let gradients = LinearGradOut {
            input: of_input,
            linear_weight: of_weight,
            linear_bias: of_bias,
            ..LinearGradOut::default()
        };
        // Another thread than that of earlier calls, whose memory was kept.
        let bytes = std::thread::scope(|scope| {
            let call = || {
                peak(|| {
                    match backward {
                        true => loss.forward_backward_into(&device, &input, 1.0, gradients, out),
                        false => loss.forward_into(&device, &input, out),
                    }
                    .expect("a legal call");
                })
            };
            scope.spawn(call).join().expect("a call")
        });
        [bytes, plan.workspace_bytes]
    }
}

#[test]
fn a_linear_cross_entropy_takes_what_its_plan_says() {
    alone(module_path!(), "a_linear_cross_entropy_takes_what_its_plan_says", count);
}

fn count() {
    let mut failures = Vec::new();
    let loss = LinearCrossEntropy::from(CrossEntropy::default().label_smoothing(0.1));
    for dtype in [DType::F32, DType::BF16] {
        for shape in SHAPES {
            let mut call = Call::new(dtype, shape);
            for (path, backward) in
                [(LinearPath::Auto, false), (LinearPath::Chunked, false), (LinearPath::Auto, true)]
            {
                for budget in [512 << 20, 48 << 20] {
                    let loss = loss.clone().path(path).max_workspace_bytes(budget);
                    let [bytes, planned] = call.bytes(&loss, backward);
                    let what = format!("{dtype}, {shape:?}, {path:?}, gradients {backward}");
                    println!("{what}: {bytes} of {planned} bytes, of {budget}");
                    if bytes > planned || planned > budget {
                        failures.push(format!("{what}: {bytes} of {planned} bytes, of {budget}"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// As long as it is wide, an evaluation of 8192 rows over 262144 classes has its plan's memory, whatever the
/// features; of fewer rows, and a few features, that is counted as well.
#[test]
fn an_evaluation_of_a_large_vocabulary_takes_little() {
    alone(module_path!(), "an_evaluation_of_a_large_vocabulary_takes_little", || {
        let (classes, limit) = (262_144, 64 << 20);
        let device = Device::cpu_with_threads(2).expect("threads");
        let loss = LinearCrossEntropy::default();
        let target = Tensor::from_vec(vec![0i64; 8192], &[8192]).expect("a tensor");
        for dtype in [DType::F32, DType::BF16] {
            for features in [8, 512] {
                let (input, weight) =
                    (tensor(dtype, &[8192, features]), tensor(dtype, &[classes, features]));
                let input = LinearInput::new(input.view(), weight.view(), target.view());
                let plan = loss.plan(&device, &input, false).expect("a plan");
                assert!(plan.workspace_bytes < limit, "{features} features: {plan:?}");
            }
            let [bytes, planned] =
                Call::new(dtype, [1024, classes, 8]).bytes(&LinearCrossEntropy::default(), false);
            println!("{dtype}: {bytes} of {planned} bytes");
            assert!(bytes <= planned && planned < limit, "{dtype}: {bytes} of {planned} bytes");
        }
    });
}
