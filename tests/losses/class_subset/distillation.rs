//! A teacher's probabilities of its likeliest classes.

use super::{CLASSES, Data, FEATURES, ROWS, ids, near};
use crate::adaptive_log_softmax::{floats, noise, values};
use crate::harness::devices;
use crate::linear_cross_entropy::everything;
use warploss::{
    ClassSubset, CrossEntropy, DType, LinearCrossEntropy, LinearInput, Reduction, Tensor,
};

const K: usize = 7;

#[test]
fn probabilities_belong_to_the_ids_and_the_first_of_a_class_counts() {
    let data = Data::new(DType::F32);
    // A class comes twice, and a place holds none.
    let list: Vec<i64> = (0..ROWS as i64)
        .flat_map(|row| {
            let class = |i: i64| (row * 5 + i * 11) % CLASSES as i64;
            [class(3), class(1), -1, class(0), class(1), class(4), class(2)]
        })
        .collect();
    let q: Vec<f64> = noise(8, ROWS * K).iter().map(|v| 0.15 * (1.1 + v)).collect();
    let listed = ids(list.clone(), &[ROWS, K]);
    let target = floats(DType::F32, &[ROWS, K], &q);
    let options = CrossEntropy::default().reduction(Reduction::Mean).lse_square_scale(0.01);
    let loss = LinearCrossEntropy::from(options);
    // The same over a classifier whose other logits are minus infinity.
    let mut wide = vec![0.0; ROWS * CLASSES];
    let read = |row: usize, place: usize| place != 2 && place != 4 && list[row * K + place] >= 0;
    for row in 0..ROWS {
        for place in (0..K).filter(|&place| read(row, place)) {
            wide[row * CLASSES + list[row * K + place] as usize] = q[row * K + place];
        }
    }
    let wide = floats(DType::F32, &[ROWS, CLASSES], &wide);
    for (name, device) in devices() {
        let input = LinearInput { target: target.view(), ..data.input() };
        let input = input.subset(ClassSubset::per_row(listed.view(), None));
        let got = everything(device, &loss, &input, 0.7.into(), (false, 1));
        let of = |what: &str| &got.iter().find(|(own, _)| *own == what).unwrap().1;
        let grad = values(of("grad_target"));
        for row in 0..ROWS {
            assert_eq!([grad[row * K + 2], grad[row * K + 4]], [0.0; 2], "{name}");
        }
        // Row by row, each with a classifier of its own.
        let mut sums = [0.0, 0.0];
        let mut dw = vec![0.0; CLASSES * FEATURES];
        for row in 0..ROWS {
            let classes: Vec<usize> =
                (0..K).filter(|&p| read(row, p)).map(|p| list[row * K + p] as usize).collect();
            let pick = |of: &Tensor, each: usize| -> Vec<f64> {
                let all = values(of);
                classes.iter().flat_map(|&c| all[c * each..][..each].to_vec()).collect()
            };
            let shape = [classes.len(), FEATURES];
            let (w, b) = (pick(&data.w, FEATURES), pick(&data.b, 1));
            let (w, b) = (floats(DType::F32, &shape, &w), floats(DType::F32, &[classes.len()], &b));
            let own = |of: &Tensor, each: usize| values(of)[row * each..][..each].to_vec();
            let x = floats(DType::F32, &[1, FEATURES], &own(&data.x, FEATURES));
            let all = own(&wide, CLASSES);
            let q: Vec<f64> = classes.iter().map(|&c| all[c]).collect();
            let q = floats(DType::F32, &[1, classes.len()], &q);
            let tau = floats(DType::F32, &[1], &own(&data.temperature, 1));
            let alone = LinearInput::new(x.view(), w.view(), q.view())
                .linear_bias(b.view())
                .temperature(tau.view());
            let plain = CrossEntropy::default().lse_square_scale(0.01);
            let plain = LinearCrossEntropy::from(plain.reduction(Reduction::Sum));
            let u = own(&data.row_weight, 1)[0];
            let one = plain.forward_backward(&warploss::Device::cpu(), &alone, 1.0).unwrap();
            sums[0] += u * f64::from(one.output.loss.item().unwrap());
            sums[1] += u;
            for (i, &class) in classes.iter().enumerate() {
                for d in 0..FEATURES {
                    let g = values(&one.linear_weight)[i * FEATURES + d];
                    dw[class * FEATURES + d] += 0.7 * u * g;
                }
            }
        }
        let [sum, all] = sums;
        near(name, of("loss"), &floats(DType::F32, &[], &[sum / all]));
        let dw: Vec<f64> = dw.into_iter().map(|g| g / all).collect();
        let expected = floats(DType::F32, &[CLASSES, FEATURES], &dw);
        near(name, of("grad_linear_weight"), &expected);
    }
}
