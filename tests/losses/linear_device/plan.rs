//! Plans of calls that give more than losses and gradients: what they say is what those calls do.

use super::*;
use warploss::LinearOutputs;

const SIZES: [usize; 3] = [70, 24, 901];

/// What a call writes: a loss, ranks and likeliest classes, the classifier's gradient and what rounding leaves of it.
struct Results {
    f32s: [Tensor; 2],
    i64s: [Tensor; 2],
    gradients: [Tensor; 2],
    k: usize,
}

impl Results {
    fn new(device: &Device, k: usize) -> Results {
        let ([rows, features, classes], k) = (SIZES, k.max(1));
        let f32s = |shape: &[usize]| up(device, &vec![0.0f32; shape.iter().product()], shape);
        let i64s = |shape: &[usize]| up(device, &vec![0i64; shape.iter().product()], shape);
        let zeros = vec![bf16::ZERO; classes * features];
        Results {
            f32s: [f32s(&[]), f32s(&[rows, k])],
            i64s: [i64s(&[rows]), i64s(&[rows, k])],
            gradients: [(); 2].map(|()| up(device, &zeros, &[classes, features])),
            k,
        }
    }

    fn call(
        &mut self,
        device: &Device,
        loss: &LinearCrossEntropy<'_>,
        input: &LinearInput<'_>,
        outputs: LinearOutputs,
    ) -> Result<(), warploss::Error> {
        assert_eq!(self.k, outputs.top_k.max(1));
        let [one, logprob] = self.f32s.each_mut().map(Tensor::view_mut);
        let [rank, classes] = self.i64s.each_mut().map(Tensor::view_mut);
        let [weight, rest] = self.gradients.each_mut().map(Tensor::view_mut);
        let out = CrossEntropyOut {
            rank: outputs.ranks.then_some(rank),
            top_k: (outputs.top_k > 0).then_some(TopKOut { classes, logprob }),
            ..CrossEntropyOut::loss(one)
        };
        if !outputs.gradients {
            return loss.forward_into(device, input, out);
        }
        let gradients = LinearGradOut {
            linear_weight: Some(weight),
            linear_weight_rest: outputs.linear_weight_rest.then_some(rest),
            ..LinearGradOut::default()
        };
        loss.forward_backward_into(device, input, 1.0, gradients, out)
    }
}

#[test]
fn the_least_budget_of_a_plan_is_that_of_the_call() {
    let data = Data::<bf16>::new(SIZES, false);
    let mut leasts = Vec::new();
    for outputs in [
        LinearOutputs { ranks: true, ..false.into() },
        LinearOutputs { top_k: 40, ..true.into() },
        true.into(),
        LinearOutputs { linear_weight_rest: true, ..true.into() },
    ] {
        let device = card();
        let resident = Resident::new(&device, &data, false);
        let input = resident.input(false);
        let loss = |bytes| LinearCrossEntropy::default().max_workspace_bytes(bytes);
        let said = |bytes| loss(bytes).plan(&device, &input, outputs).unwrap_err();
        let least = least_of(&said(1));
        let mut results = Results::new(&device, outputs.top_k);
        let refused = results.call(&device, &loss(least - 1), &input, outputs);
        assert_eq!(refused.unwrap_err(), said(least - 1), "{outputs:?}");
        for budget in [least, 2 * least, 1 << 26] {
            let plan = loss(budget).plan(&device, &input, outputs).unwrap();
            device.trim();
            results.call(&device, &loss(budget), &input, outputs).unwrap();
            let taken = device.trim();
            assert!(taken <= plan.workspace_bytes, "{outputs:?}: {taken} of {plan:?}");
            assert!(plan.workspace_bytes <= budget, "{outputs:?}: {plan:?}");
        }
        leasts.push(least);
    }
    // The rest has the f32 sum of all of the gradient with it.
    assert!(leasts[3] >= leasts[2] + 4 * SIZES[1] * SIZES[2], "{leasts:?}");
}

#[test]
fn a_plan_has_the_path_that_outputs_leave() {
    let (data, device) = (Data::<bf16>::new(SIZES, true), card());
    let resident = Resident::new(&device, &data, false);
    let input = resident.input(true);
    let loss = LinearCrossEntropy::default();
    let plan = |outputs: LinearOutputs| {
        let plan = loss.clone().path(LinearPath::Tiled).plan(&device, &input, outputs);
        plan.map(|plan| plan.path)
    };
    assert_eq!(plan(true.into()).unwrap(), LinearPath::Tiled);
    for outputs in [
        LinearOutputs { ranks: true, ..false.into() },
        LinearOutputs { top_k: 3, ..true.into() },
        LinearOutputs { linear_weight_rest: true, ..true.into() },
    ] {
        let said = plan(outputs).unwrap_err().to_string();
        let tiled = loss.clone().path(LinearPath::Tiled);
        let done = Results::new(&device, outputs.top_k).call(&device, &tiled, &input, outputs);
        assert_eq!(said, done.unwrap_err().to_string(), "{outputs:?}");
        assert!(said.contains("path"), "{said}");
        assert_eq!(loss.plan(&device, &input, outputs).unwrap().path, LinearPath::Chunked);
    }
}

#[test]
fn results_that_there_cannot_be_have_no_plan() {
    let (data, device) = (Data::<bf16>::new(SIZES, false), card());
    let wide = Data::<f32>::new(SIZES, false);
    let [resident, soft] = [false, true].map(|soft| Resident::new(&device, &data, soft));
    let wide = Resident::new(&device, &wide, false);
    let loss = LinearCrossEntropy::default();
    let said = |input: LinearInput<'_>, outputs: LinearOutputs, parts: &[&str]| {
        let error = loss.plan(&device, &input, outputs).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let top = |top_k| LinearOutputs { top_k, ..false.into() };
    let rest = LinearOutputs { linear_weight_rest: true, ..true.into() };
    said(resident.input(false), top(129), &["top_k", "from 0 to 128", "129"]);
    said(soft.input(false), top(1), &["top_k", "probabilities"]);
    said(soft.input(false), LinearOutputs { ranks: true, ..false.into() }, &["ranks"]);
    said(wide.input(false), rest, &["grad_linear_weight_rest", "f16 or bf16", "f32"]);
    let alone = LinearOutputs { gradients: false, ..rest };
    said(resident.input(false), alone, &["grad_linear_weight_rest", "gradients"]);
}
