//! All classes, where few rows of their logits fit the workspace.

use super::*;

const CLASSES: usize = 517;
const FEATURES: usize = 70;

/// With gradients the logits of a slab of classes are made for all rows, or for as many as the workspace takes, and
/// none of them reaches memory: the same as with logits in memory, and every time the same bits.
#[test]
fn gradients_go_without_logits_where_few_rows_of_them_fit() {
    for (dtype, rows, bias) in
        [(DType::F16, 300, true), (DType::BF16, 300, false), (DType::BF16, 130, true)]
    {
        let sampler = NegativeSampler::all(CLASSES).unwrap();
        let loss = SampledSoftmax::new(FEATURES, sampler)
            .bias(bias)
            .ignore_index(Some(-100))
            .reduction(Reduction::None);
        // Peaked logits: of some 30.
        let mut parameters = loss.init(dtype, 5).unwrap();
        parameters.weight = floats(dtype, &[CLASSES, FEATURES], 6);
        parameters.bias = parameters.bias.map(|bias| floats(dtype, &bias.shape(), 7));
        let input = floats(dtype, &[rows, FEATURES], 8);
        let mut target: Vec<i64> = (0..rows).map(|row| (row * 7919 % CLASSES) as i64).collect();
        target.iter_mut().skip(1).step_by(5).for_each(|t| *t = -100);
        let upstream = floats(DType::F32, &[rows], 9);
        let of_parameters = parameters.try_map::<_, ()>(|_, p| Ok(wide(p))).unwrap();
        let data = (&wide(&input)[..], &target[..]);
        let expected = sampled_softmax(&loss, &of_parameters, data, &wide(&upstream));
        let target = Tensor::from_vec(target, &[rows]).unwrap();
        let name = format!("{dtype} {rows}");
        let case = Case { name, loss, parameters, input, target, upstream, expected };
        let stored = |card: &Device| card.schedules().iter().any(|n| n.contains("CrossEntropy"));
        let run = |workspace: usize, seed: u64| {
            let card = Device::emulated(Description::a100(), Some(seed)).unwrap();
            let loss = case.loss.clone().workspace(workspace);
            let grad = Case { loss, ..case.clone() }.run(&card, 2e-5);
            (stored(&card), grad)
        };
        assert!(run(64 << 20, 1).0, "{}: all rows at once", case.name);
        // Two chunks of 300 rows, and slabs of 256 classes.
        let [(first, one), (second, two)] = [2, 3].map(|seed| run(250_000, seed));
        assert!(!first && !second, "{}: few rows", case.name);
        assert_eq!(one, two, "{}: bits", case.name);
        // Not even a tile of rows.
        let card = Device::emulated(Description::a100(), None).unwrap();
        let loss = case.loss.clone().workspace(60_000);
        let (view, up) = (case.parameters.view(), GradOutput::from(case.upstream.view()));
        loss.forward_backward(&card, &view, case.input.view(), case.target.view(), up).unwrap();
        assert!(stored(&card), "{}: fewer rows", case.name);
    }
}
