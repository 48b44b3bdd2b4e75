//! What is asked of all classes.

use super::*;

#[test]
fn distributions_agree_with_the_cpu_in_chunks_of_any_size() {
    let order: Vec<u32> = (0..CLASSES as u32).map(|i| (i * 3 + 5) % CLASSES as u32).collect();
    let order = Arc::new(ClassOrder::from_classes(order).unwrap());
    for (rows, order) in [(50, None), (23, Some(order.clone())), (1, Some(order)), (0, None)] {
        let setting = Setting::new(DType::F32, rows, 14);
        let loss = adaptive().class_order(order);
        let (view, input, cpu) = (setting.parameters.view(), setting.input.view(), Device::cpu());
        let expected = loss.log_prob(&cpu, &view, input).unwrap();
        let [card, other] = cards();
        for (card, workspace) in
            [(&card, 256 << 20), (&card, 9000), (&other, 256 << 20), (&other, 1)]
        {
            let loss = loss.clone().workspace(workspace);
            let log_prob = loss.log_prob(card, &view, input).unwrap();
            assert_close("log_prob", &log_prob, &values(&expected));
            let best = loss.predict(card, &view, input).unwrap();
            assert_eq!(best, loss.predict(&cpu, &view, input).unwrap());
            let (classes, top) = loss.top_k(card, &view, input, 5).unwrap();
            let (_, on_cpu) = loss.top_k(&cpu, &view, input, 5).unwrap();
            assert_close("top", &top, &values(&on_cpu));
            let (classes, all) = (classes.as_slice::<i64>().unwrap(), values(&log_prob));
            for (at, (&class, value)) in classes.iter().zip(values(&top)).enumerate() {
                let of_class = all[at / 5 * CLASSES + class as usize];
                assert!((of_class - value).abs() <= 1e-5, "{at}: {value}, not {of_class}");
            }
            // The same numbers decide: only what lies at a rounded border may differ.
            let [drawn, on_cpu] =
                [card, &cpu].map(|device| loss.sample(device, &view, input, 5).unwrap());
            let pairs =
                drawn.as_slice::<i64>().unwrap().iter().zip(on_cpu.as_slice::<i64>().unwrap());
            let differ = pairs.filter(|(a, b)| a != b).count();
            assert!(differ <= rows / 20, "{differ} of {rows} draws differ");
        }
    }
}

#[test]
fn rows_without_probabilities_draw_the_same_class_everywhere() {
    let order: Vec<u32> = (0..CLASSES as u32).map(|i| (i * 3 + 5) % CLASSES as u32).collect();
    let order = Arc::new(ClassOrder::from_classes(order).unwrap());
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut setting = Setting::new(dtype, 6, 17);
        let mut rows = values(&setting.input);
        rows[..FEATURES].fill(f64::NAN);
        rows[2 * FEATURES + 1] = f64::INFINITY;
        rows[3 * FEATURES] = f64::NAN;
        rows[5 * FEATURES..].fill(f64::NEG_INFINITY);
        let input = floats(dtype, &[6, FEATURES], &rows);
        for (broken_cluster, order) in [(false, None), (true, None), (false, Some(order.clone()))] {
            if broken_cluster {
                let weight = &mut setting.parameters.tails[0].weight;
                *weight = floats(dtype, &weight.shape(), &vec![f64::NAN; values(weight).len()]);
            }
            let loss = adaptive().class_order(order);
            let view = setting.parameters.view();
            for seed in 0..12 {
                let cpu = loss.sample(&Device::cpu(), &view, input.view(), seed).unwrap();
                for card in cards() {
                    let drawn = loss.sample(&card, &view, input.view(), seed).unwrap();
                    for row in [0, 2, 3, 5] {
                        let [a, b] = [&drawn, &cpu].map(|t| t.as_slice::<i64>().unwrap()[row]);
                        assert_eq!(a, b, "{dtype}, row {row}, seed {seed}");
                    }
                }
            }
        }
    }
}

#[test]
fn draws_come_as_often_as_their_probabilities_say() {
    const ROWS: usize = 4000;
    let [card, _] = cards();
    let one = Setting::new(DType::F32, 1, 33);
    let row = values(&one.input);
    let rows: Vec<f64> = std::iter::repeat_n(row, ROWS).flatten().collect();
    let input = floats(DType::F32, &[ROWS, FEATURES], &rows);
    let view = one.parameters.view();
    let log_prob = values(&adaptive().log_prob(&Device::cpu(), &view, one.input.view()).unwrap());
    let drawn = adaptive().sample(&card, &view, input.view(), 3).unwrap();
    let mut counts = vec![0f64; CLASSES];
    drawn.as_slice::<i64>().unwrap().iter().for_each(|&class| counts[class as usize] += 1.0);
    for (class, (count, logp)) in counts.iter().zip(log_prob).enumerate() {
        let expected = ROWS as f64 * logp.exp();
        let off = 5.0 * expected.max(1.0).sqrt();
        assert!((count - expected).abs() <= off, "class {class}: {count}, expected {expected}");
    }
}

/// Parameters whose head has so large a bias at its first class, or at its last cluster's column.
fn biased(seed: u64, of_cluster: bool) -> Setting {
    let mut setting = Setting::new(DType::F32, 40, seed);
    let bias = setting.parameters.head_bias.as_mut().unwrap();
    let mut numbers = values(bias);
    let column = if of_cluster { numbers.len() - 1 } else { 0 };
    numbers[column] = 60.0;
    *bias = floats(DType::F32, &bias.shape(), &numbers);
    setting
}

#[test]
fn rows_that_the_head_decides_go_through_no_cluster() {
    for card in cards() {
        let [decided, undecided] = [false, true].map(|of_cluster| biased(3, of_cluster));
        let launches = |setting: &Setting| {
            let before = card.driver_calls().unwrap().launches;
            let (view, x) = (setting.parameters.view(), setting.input.view());
            let best = adaptive().predict(&card, &view, x).unwrap();
            assert_eq!(best, adaptive().predict(&Device::cpu(), &view, x).unwrap());
            let drawn = adaptive().sample(&card, &view, x, 5).unwrap();
            assert_eq!(drawn, adaptive().sample(&Device::cpu(), &view, x, 5).unwrap());
            (card.driver_calls().unwrap().launches - before, best, drawn)
        };
        let (few, best, drawn) = launches(&decided);
        assert!(best.as_slice::<i64>().unwrap().iter().all(|&class| class == 0));
        assert_eq!(best, drawn);
        let (many, best, _) = launches(&undecided);
        assert!(best.as_slice::<i64>().unwrap().iter().all(|&class| class >= 300));
        assert!(few < many, "{few} launches, {many}");
        // Nobody reads what is not needed.
        let mut poisoned = biased(3, false);
        for tail in &mut poisoned.parameters.tails {
            let shape = tail.weight.shape();
            tail.weight = floats(DType::F32, &shape, &vec![f64::NAN; shape.iter().product()]);
        }
        assert_eq!(launches(&poisoned).0, few);
    }
}

#[test]
fn picks_that_are_captured_follow_their_inputs() {
    let [card, _] = cards();
    let setting = Setting::new(DType::F32, 60, 21).on(&card);
    let view = setting.parameters.view();
    let pick = || {
        let (classes, _) = adaptive().top_k(&card, &view, setting.input.view(), 4)?;
        Ok([classes, adaptive().sample(&card, &view, setting.input.view(), 3)?])
    };
    let expected = pick().unwrap().map(|on_card| on_card.to_host().unwrap());
    let mut picked = None;
    let graph = card.capture(|| pick().map(|all| picked = Some(all))).unwrap();
    graph.replay().unwrap();
    for (got, expected) in picked.unwrap().iter().zip(&expected) {
        assert_eq!(got.to_host().unwrap(), *expected);
    }
}
