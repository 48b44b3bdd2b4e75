//! The head's bias, which is added where its logits are read.

use super::*;
use crate::schedules::{OF_F32, Route};

#[test]
fn every_schedule_of_log_probabilities_adds_the_heads_bias() {
    for route in OF_F32 {
        // All columns of the head but one are classes.
        let Route { schedule, rows, classes: columns, .. } = route;
        for dtype in [DType::F32, DType::F16] {
            let loss = AdaptiveLogSoftmax::new(FEATURES, columns + 2, &[columns - 1])
                .head_bias(true)
                .widths(Some(vec![1]));
            let mut parameters = loss.init(dtype, 3).unwrap();
            parameters.head_bias = Some(floats(dtype, &[columns], &noise(4, columns)));
            let input = floats(dtype, &[rows, FEATURES], &noise(5, rows * FEATURES));
            let call = |device: &Device| {
                values(&loss.log_prob(device, &parameters.view(), input.view()).unwrap())
            };
            let card = route.device();
            let what = format!("{schedule}, {dtype}");
            for (got, expected) in call(&card).into_iter().zip(call(&Device::cpu())) {
                assert!((got - expected).abs() < 1e-5, "{what}: {got}, expected {expected}");
            }
            let notes = card.schedules();
            let reached = |n: &String| n.contains("LogSoftmaxBiased") && n.contains(schedule);
            assert!(notes.iter().any(reached), "{what}: {notes:?}");
        }
    }
}
