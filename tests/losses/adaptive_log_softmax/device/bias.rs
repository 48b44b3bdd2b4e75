//! The head's bias, which is added where its logits are read.

use super::*;

#[test]
fn every_schedule_of_log_probabilities_adds_the_heads_bias() {
    // Multiprocessors, KiB of shared memory, blocks of a cluster, bytes of L2; rows and columns of the head.
    let routes = [
        ("4 lanes a row", (132, 227, 16), 50 << 20, (9, 13)),
        ("32 lanes a row", (132, 227, 16), 50 << 20, (9, 333)),
        ("block a row", (1, 227, 16), 50 << 20, (7, 3001)),
        ("cluster of", (1, 18, 16), 50 << 20, (4, 10_002)),
        ("blocks a row, two phases", (2, 3, 1), 50 << 20, (8, 9001)),
        ("two visits", (1, 3, 1), 2_000_000, (26, 40_003)),
    ];
    for (schedule, (multiprocessors, shared, cluster), l2, (rows, columns)) in routes {
        let description = Description {
            multiprocessors,
            cluster,
            l2,
            shared_per_block: shared << 10,
            ..Description::h100()
        };
        for dtype in [DType::F32, DType::F16] {
            // All columns but one are classes.
            let loss = AdaptiveLogSoftmax::new(FEATURES, columns + 2, &[columns - 1])
                .head_bias(true)
                .widths(Some(vec![1]));
            let mut parameters = loss.init(dtype, 3).unwrap();
            parameters.head_bias = Some(floats(dtype, &[columns], &noise(4, columns)));
            let input = floats(dtype, &[rows, FEATURES], &noise(5, rows * FEATURES));
            let call = |device: &Device| {
                values(&loss.log_prob(device, &parameters.view(), input.view()).unwrap())
            };
            let card = Device::emulated(description.clone(), Some(7)).unwrap();
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
