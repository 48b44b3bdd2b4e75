//! PyTorch's answers: `scripts/golden/linear_cross_entropy.py`.

use crate::harness::devices;
use crate::linear_golden::{Golden, assert_close, each};
use warploss::{
    CrossEntropy, GradOutput, LinearCrossEntropy, LinearGradOut, LinearInput, Reduction, Tensor,
};

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    each("linear_cross_entropy", 80, agrees);
}

fn agrees(case: &Golden<'_>) {
    let reduction = match case.options["reduction"].as_str().unwrap() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        _ => Reduction::Mean,
    };
    let weight = case.tensor("weight");
    let loss = CrossEntropy::default()
        .reduction(reduction)
        .ignore_index(case.options["ignore_index"].as_i64().unwrap())
        .label_smoothing(case.options["label_smoothing"].as_f64().unwrap());
    let loss = match &weight {
        Some(weight) => loss.weight(weight.view()),
        None => loss,
    };
    let loss = LinearCrossEntropy::from(loss);
    let own = ["input", "linear_weight", "target"].map(|key| case.tensor(key).unwrap());
    let optional = ["linear_bias", "temperature", "row_weight", "grad_output"];
    let [bias, temperature, row_weight, upstream] = optional.map(|key| case.tensor(key));
    let input = LinearInput {
        linear_bias: bias.as_ref().map(Tensor::view),
        temperature: temperature.as_ref().map(Tensor::view),
        row_weight: row_weight.as_ref().map(Tensor::view),
        ..LinearInput::new(own[0].view(), own[1].view(), own[2].view())
    };
    let g = match &upstream {
        Some(g) => GradOutput::from(g.view()),
        None => GradOutput::default(),
    };
    for (name, device) in devices() {
        let named = |key: &str| format!("{name}: {} {key}", case.name);
        let out = loss.forward(device, &input).unwrap();
        assert_close(&named("loss"), &out.loss, &case.f64("loss"));
        let grad = loss.forward_backward(device, &input, g).unwrap();
        assert_close(&named("loss"), &grad.output.loss, &case.f64("loss"));
        assert_close(&named("grad_input"), &grad.input, &case.f64("grad_input"));
        let of_weight = case.f64("grad_linear_weight");
        assert_close(&named("grad_linear_weight"), &grad.linear_weight, &of_weight);
        if let Some(bias) = &grad.linear_bias {
            assert_close(&named("grad_linear_bias"), bias, &case.f64("grad_linear_bias"));
        }
        if own[2].dtype().is_float() {
            let mut grad = own[2].clone();
            let gradients =
                LinearGradOut { target: Some(grad.view_mut()), ..LinearGradOut::default() };
            loss.backward_into(device, &input, g, gradients).unwrap();
            assert_close(&named("grad_target"), &grad, &case.f64("grad_target"));
        }
    }
}
