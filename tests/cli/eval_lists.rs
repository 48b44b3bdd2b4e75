//! `warploss eval linear-cross-entropy` over lists of classes.

use super::*;

/// Hidden states that pick rows of the classifier, so that logits are easily told.
fn written(lists: Vec<Given>) -> Folder {
    let folder = Folder::new();
    let mut tensors = vec![
        f32s("input", &[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        f32s("linear_weight", &[4, 2], &[0.0, 1.0, 2.0, -1.0, f32::NAN, f32::NAN, 1.0, 0.5]),
        i64s("target", &[3], &[1, 0, 3]),
    ];
    tensors.extend(lists);
    folder.write(&tensors);
    folder
}

/// −ln of the share of `own` among these.
fn nll(own: f32, logits: &[f32]) -> f32 {
    logits.iter().map(|z| z.exp()).sum::<f32>().ln() - own
}

#[test]
fn ids_of_rows_or_of_all_rows_are_what_the_softmax_goes_over() {
    let per_row = i64s("ids", &[3, 3], &[1, 3, -1, 0, 3, 1, 3, 3, 1]);
    let shared = i64s("ids", &[3], &[3, 0, 1]);
    let rows = [nll(2.0, &[2.0, 1.0]), nll(1.0, &[1.0, 0.5, -1.0]), nll(1.5, &[1.5, 1.0])];
    let all = [nll(2.0, &[0.0, 2.0, 1.0]), nll(1.0, &[1.0, 0.5, -1.0]), nll(1.5, &[1.0, 1.5, 1.0])];
    for (lists, expected) in [(per_row, rows), (shared, all)] {
        let folder = written(vec![lists]);
        let line = "linear-cross-entropy --reduction none --grad --top-k 2 --device cpu";
        let object = folder.eval(&format!("{line} --write loss,rank")).json();
        assert_eq!((object["rows"].as_u64(), object["ignored"].as_u64()), (Some(3), Some(0)));
        assert_close(&folder.read("loss").2, &expected, 1e-6);
        assert_eq!(folder.read("rank").2, [0.0, 0.0, 0.0]);
        assert_eq!(folder.read("top_k_ids").2[..4], [1.0, 3.0, 0.0, 3.0]);
        // The row of the classifier that is NaN is nobody's.
        assert_eq!(folder.read("grad_linear_weight").2[4..6], [0.0, 0.0]);
    }
}

#[test]
fn a_target_that_is_not_listed_is_what_the_option_says() {
    let lists = || i64s("ids", &[3, 2], &[1, 3, 3, 1, 0, 1]);
    let folder = written(vec![lists()]);
    let eval = |rule: &str| folder.eval(&format!("linear-cross-entropy --device cpu {rule}"));
    let error = eval("").error(2).to_owned();
    assert!(error.contains("target") && error.contains("0 at row 1"), "{error}");
    let appended = eval("--missing-target append --reduction sum").json();
    let expected = nll(2.0, &[2.0, 1.0]) + nll(1.0, &[1.0, 0.5, -1.0]) + nll(1.5, &[1.5, 1.0, 1.0]);
    assert!((appended["loss"].as_f64().unwrap() - f64::from(expected)).abs() < 1e-5);
    let ignored = eval("--missing-target ignore").json();
    assert_eq!(ignored["ignored"].as_u64(), Some(2));
    let expected = f64::from(nll(2.0, &[2.0, 1.0]));
    assert!((ignored["loss"].as_f64().unwrap() - expected).abs() < 1e-6);
}

#[test]
fn counts_and_probabilities_go_with_the_ids() {
    let folder =
        written(vec![i64s("ids", &[3, 2], &[1, 3, 0, 99, 3, 1]), i64s("counts", &[3], &[2, 1, 2])]);
    let object = folder.eval("linear-cross-entropy --device cpu --reduction none").json();
    assert_eq!(object["rows"].as_u64(), Some(3));
    let expected = [nll(2.0, &[2.0, 1.0]), 0.0, nll(1.5, &[1.5, 1.0])];
    assert_close(&folder.read("loss").2, &expected, 1e-6);
    let bad = written(vec![i64s("ids", &[3, 2], &[1, 3, 0, 99, 3, 1])]);
    let error = bad.eval("linear-cross-entropy --device cpu").error(2).to_owned();
    assert!(error.contains("ids") && error.contains("99 at row 1, place 1"), "{error}");
}

#[test]
fn the_rest_of_the_classes_is_one_more_where_the_option_says_so() {
    let folder = Folder::new();
    folder.write(&[
        f32s("input", &[1, 2], &[1.0, 0.5]),
        f32s("linear_weight", &[4, 2], &[0.0, 1.0, 2.0, -1.0, 1.0, 0.0, -1.0, 0.5]),
        f32s("target", &[1, 2], &[0.5, 0.25]),
        i64s("ids", &[1, 2], &[1, 2]),
    ]);
    let eval = |rest: &str| {
        let line = format!("linear-cross-entropy --device cpu {rest}");
        folder.eval(&line).json()["loss"].as_f64().unwrap()
    };
    let z = [0.5f64, 1.5, 1.0, -0.75];
    let lse = |z: &[f64]| z.iter().map(|z| z.exp()).sum::<f64>().ln();
    let (of_list, all, rest) = (lse(&z[1..3]), lse(&z), lse(&[z[0], z[3]]));
    let excluded = 0.5 * (of_list - z[1]) + 0.25 * (of_list - z[2]);
    let bucket = 0.5 * (all - z[1]) + 0.25 * (all - z[2]) + 0.25 * (all - rest);
    assert!((eval("") - excluded).abs() < 1e-6);
    assert!((eval("--rest bucket") - bucket).abs() < 1e-6);
    folder.write(&[
        f32s("input", &[1, 1], &[1.0]),
        f32s("linear_weight", &[2, 1], &[0.0, 1.0]),
        i64s("target", &[1], &[0]),
    ]);
    let error = folder.eval("linear-cross-entropy --device cpu --rest bucket").error(2).to_owned();
    assert!(error.contains("--rest") && error.contains("ids"), "{error}");
}
