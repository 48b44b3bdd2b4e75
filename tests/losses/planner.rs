//! Cutoffs by measurement: the search is exact, the fit finds what made the samples.

use warploss::planner::{CostSample, Costs, CutoffPlanner, Plan};
use warploss::{DType, Device};

const COSTS: Costs =
    Costs { call: 2e-4, softmax: 3e-5, operation: 1.1e-11, logit: 6e-10, parameter: 9e-10 };

/// A small deterministic generator.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn planner(counts: &[u64], costs: Costs) -> CutoffPlanner {
    CutoffPlanner::new(counts, 64, 256, costs).unwrap()
}

/// The best of all cutoffs of a number of clusters.
fn brute(planner: &CutoffPlanner, classes: usize, clusters: usize) -> f64 {
    fn each(
        cutoffs: &mut Vec<usize>,
        left: usize,
        classes: usize,
        visit: &mut dyn FnMut(&[usize]),
    ) {
        if left == 0 {
            return visit(cutoffs);
        }
        let from = cutoffs.last().map_or(1, |c| c + 1);
        for cutoff in from..classes {
            cutoffs.push(cutoff);
            each(cutoffs, left - 1, classes, visit);
            cutoffs.pop();
        }
    }
    let mut best = f64::INFINITY;
    each(&mut Vec::new(), clusters, classes, &mut |cutoffs| {
        best = best.min(planner.predict(cutoffs).unwrap());
    });
    best
}

fn assert_near(what: &str, got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-9 * expected.abs(), "{what}: {got}, expected {expected}");
}

#[test]
fn no_other_cutoffs_are_cheaper() {
    let mut seed = 7;
    for case in 0..40 {
        let classes = 2 + random(&mut seed) as usize % 24;
        let counts: Vec<u64> = (0..classes)
            .map(|rank| match case % 4 {
                0 => random(&mut seed) % 1000,
                1 => 100_000 / (rank as u64 + 1),
                2 => 1 << (random(&mut seed) % 20),
                _ => 5, // all alike
            })
            .map(|n| n.max(u64::from(case % 3 == 0)))
            .collect();
        // Costs of which now one, now another decides.
        let mut some = |x: f64| x * 10f64.powi((random(&mut seed) % 5) as i32 - 2);
        let costs = Costs {
            call: some(COSTS.call),
            softmax: some(COSTS.softmax / 30.0),
            operation: some(COSTS.operation),
            logit: some(COSTS.logit),
            parameter: some(COSTS.parameter),
        };
        let planner = planner(&counts, costs).max_clusters(3).min_width((case % 3) * 5);
        let plan = planner.plan().unwrap();
        let possible = (classes - 1).min(3);
        assert_eq!(plan.by_clusters.len(), possible, "{classes} classes");
        for clusters in 1..=possible {
            let expected = brute(&planner, classes, clusters);
            assert_near("by clusters", plan.by_clusters[clusters - 1], expected);
            let shortlists: Vec<usize> = (1..classes).collect();
            let curve = planner.by_shortlist(clusters, &shortlists).unwrap();
            let best = curve.iter().fold(f64::INFINITY, |m, &s| m.min(s));
            assert_near("the curve's lowest point", best, expected);
        }
        assert_near("plan", plan.predicted_seconds, planner.predict(&plan.cutoffs).unwrap());
        let best = plan.by_clusters.iter().fold(f64::INFINITY, |m, &s| m.min(s));
        assert_near("the plan is the best of its curve", plan.predicted_seconds, best);
    }
}

#[test]
fn a_plan_is_a_loss_for_its_counts() {
    let mut counts: Vec<u64> = (1..=3000u64).map(|rank| 1_000_000 / rank).collect();
    counts.reverse();
    let plan: Plan = planner(&counts, COSTS).max_clusters(2).plan().unwrap();
    assert_eq!(plan.class_order().class(0), Some(2999));
    let loss = plan.loss();
    assert_eq!((loss.cutoffs(), loss.classes()), (&plan.cutoffs[..], 3000));
    let widths: Vec<usize> = (0..loss.clusters()).map(|i| loss.width(i)).collect();
    assert_eq!((&widths, &widths[0]), (&plan.widths, &16));
    assert!(plan.predicted_seconds < plan.full_softmax_seconds);
    loss.init(DType::F32, 1).unwrap();
    let floored = planner(&counts, COSTS).min_width(8).max_clusters(3).plan().unwrap();
    assert!(floored.widths.iter().all(|&h| h >= 8), "{:?}", floored.widths);
}

#[test]
fn capacities_hold_what_is_drawn() {
    let counts: Vec<u64> = (1..=3000u64).map(|rank| 1_000_000 / rank).collect();
    let (planner, total) = (planner(&counts, COSTS), counts.iter().sum::<u64>());
    let cutoffs = [10, 200, 2999];
    let capacities = planner.capacities(&cutoffs).unwrap();
    let mut seed = 11;
    for _ in 0..200 {
        let mut rows = [0; 3];
        for _ in 0..256 {
            let mut at = ((random(&mut seed) << 31 | random(&mut seed)) % total) as i64;
            let class = counts.iter().position(|&n| {
                at -= n as i64;
                at < 0
            });
            if let Some(i) = (0..3).rfind(|&i| class.unwrap() >= cutoffs[i]) {
                rows[i] += 1;
            }
        }
        assert!(rows.iter().zip(&capacities).all(|(r, c)| r <= c), "{rows:?}, {capacities:?}");
    }
    // And not much more.
    assert!(capacities[2] <= 2 && capacities[0] < 160, "{capacities:?}");
    assert!(planner.capacities(&[5, 3]).is_err());
}

fn sample(seed: &mut u64, costs: &Costs) -> CostSample {
    let mut size = |scale: f64| scale * (1.0 + (random(seed) % 1000) as f64);
    let sample = CostSample {
        softmaxes: size(0.01).round(),
        operations: size(1e6),
        logits: size(1e4),
        parameters: size(1e4),
        seconds: 1.0,
    };
    CostSample { seconds: costs.predict(&sample), ..sample }
}

#[test]
fn a_fit_finds_the_costs_that_made_the_samples() {
    let mut seed = 3;
    for zero in 0..6 {
        let mut costs = COSTS;
        let terms: [&mut f64; 5] = [
            &mut costs.call,
            &mut costs.softmax,
            &mut costs.operation,
            &mut costs.logit,
            &mut costs.parameter,
        ];
        // A cost that there is not must come out as 0, the last time all are there.
        if let Some(term) = terms.into_iter().nth(zero) {
            *term = 0.0;
        }
        let samples: Vec<_> = (0..12).map(|_| sample(&mut seed, &costs)).collect();
        let fitted = Costs::fit(&samples).unwrap();
        for s in &samples {
            let off = fitted.predict(s) / s.seconds - 1.0;
            assert!(off.abs() < 1e-6, "{fitted:?} from {costs:?}: {off}");
        }
        let of = |c: &Costs| [c.call, c.softmax, c.operation, c.logit, c.parameter];
        for (got, expected) in of(&fitted).into_iter().zip(of(&costs)) {
            assert!((got - expected).abs() <= 1e-4 * expected + 1e-15, "{fitted:?}, {costs:?}");
        }
    }
}

#[test]
fn costs_are_never_below_zero() {
    // Times that rise with nothing: only a constant is left of it.
    let mut seed = 5;
    let samples: Vec<_> = (0..8)
        .map(|i| CostSample { seconds: 1e-3 / (1.0 + f64::from(i)), ..sample(&mut seed, &COSTS) })
        .collect();
    let costs = Costs::fit(&samples).unwrap();
    let all = [costs.call, costs.softmax, costs.operation, costs.logit, costs.parameter];
    assert!(all.iter().all(|&c| c >= 0.0) && all.iter().any(|&c| c > 0.0), "{costs:?}");
}

#[test]
fn costs_are_measured_on_a_device() {
    let costs = Costs::measure(&Device::cpu(), DType::F32, 32, 64).unwrap();
    assert!(costs.operation + costs.logit + costs.parameter + costs.softmax > 0.0, "{costs:?}");
}

#[test]
fn what_is_bad_is_named() {
    let message = |result: warploss::Result<Plan>| result.unwrap_err().to_string();
    let new = |counts: &[u64], features, batch, costs| {
        message(CutoffPlanner::new(counts, features, batch, costs).and_then(|p| p.plan()))
    };
    assert_eq!(new(&[1], 4, 4, COSTS), "counts: expected of at least 2 classes, got 1");
    assert_eq!(new(&[0, 0], 4, 4, COSTS), "counts: expected one above 0, got all 0");
    assert_eq!(new(&[1, 2], 0, 4, COSTS), "in_features: expected at least 1, got 0");
    assert_eq!(new(&[1, 2], 4, 0, COSTS), "batch: expected at least 1, got 0");
    let costs = Costs { logit: f64::NAN, ..COSTS };
    assert_eq!(
        new(&[1, 2], 4, 4, costs),
        "costs: expected `logit` to be a finite number ≥ 0, got NaN"
    );
    let planner = planner(&[5, 3, 1], COSTS);
    let clusters = message(planner.clone().max_clusters(0).plan());
    assert_eq!(clusters, "max_clusters: expected at least 1, got 0");
    let divisor = message(planner.clone().div_value(0.5).plan());
    assert_eq!(divisor, "div_value: expected a finite number ≥ 1, got 0.5");
    assert!(planner.predict(&[2, 1]).unwrap_err().to_string().starts_with("cutoffs: "));
    assert!(Costs::fit(&[]).unwrap_err().to_string().starts_with("samples: expected at least 5"));
}
