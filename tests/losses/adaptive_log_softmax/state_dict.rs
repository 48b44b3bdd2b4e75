//! Options told from a state dict, and parameters in files.

use super::*;
use safetensors::{Dtype, tensor::TensorView};
use std::path::Path;
use warploss::Shape;

/// Options with everything that shapes can tell.
fn options() -> AdaptiveLogSoftmax<'static> {
    AdaptiveLogSoftmax::new(6, 20, &[4, 9, 15]).widths(Some(vec![5, 0, 2])).head_bias(true)
}

/// Keys and shapes.
type Shapes = Vec<(String, Shape)>;

fn named(loss: &AdaptiveLogSoftmax<'_>, prefix: &str) -> Shapes {
    let shapes = loss.shapes().unwrap().into_named().into_iter();
    shapes.map(|(key, shape)| (format!("{prefix}{key}"), shape)).collect()
}

fn refused<T: std::fmt::Debug>(result: warploss::Result<T>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn options_follow_from_shapes() {
    for (prefix, loss) in [("", options()), ("loss.", options().head_bias(false))] {
        let mut shapes = named(&loss, prefix);
        shapes.push(("encoder.weight".into(), Shape::new(&[3]).unwrap()));
        let told = AdaptiveLogSoftmax::from_shapes(prefix, shapes).unwrap();
        assert_eq!(told, loss);
    }
}

#[test]
fn shapes_of_no_options_have_their_key_named() {
    let told = |change: &dyn Fn(&mut Shapes)| {
        let mut shapes = named(&options(), "m.");
        change(&mut shapes);
        refused(AdaptiveLogSoftmax::from_shapes("m.", shapes))
    };
    let without = |key: &'static str| told(&|shapes| shapes.retain(|(k, _)| k != key));
    assert_eq!(
        without("m.tail.1.0.weight"),
        "state_dict: expected `m.tail.1.0.weight`, got no such key"
    );
    assert_eq!(without("m.head.weight"), "state_dict: expected `m.head.weight`, got no such key");
    assert_eq!(
        told(&|shapes| shapes[0].1 = Shape::new(&[3, 6]).unwrap()),
        "state_dict: expected `m.head.weight` of more rows than tails, which are ≥ 1, \
         got 3 rows and 3 tails"
    );
    assert_eq!(
        told(&|shapes| shapes[3].1 = Shape::new(&[5]).unwrap()),
        "state_dict: expected `m.tail.0.1.weight` of 2 dimensions, got shape [5]"
    );
}

#[test]
fn what_is_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.safetensors");
    for (seed, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
        let saved = options().init(dtype, seed as u64).unwrap();
        saved.save(&path, "model.loss.").unwrap();
        let (loss, loaded) = AdaptiveLogSoftmax::load(&path, "model.loss.").unwrap();
        assert_eq!((loss, loaded), (options(), saved));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

/// A file of some f64 numbers under each name.
fn write_f64(path: &Path, names: &[&str]) {
    let bytes = [0; 16];
    let view = || TensorView::new(Dtype::F64, vec![2, 1], &bytes).unwrap();
    safetensors::serialize_to_file(names.iter().map(|name| (*name, view())), None, path).unwrap();
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.safetensors");
    let load = |prefix: &str| refused(AdaptiveLogSoftmax::load(&path, prefix));
    let said = load("");
    assert!(said.starts_with("path: expected a file that can be read, got"), "{said}");
    std::fs::write(&path, "no tensors").unwrap();
    let said = load("");
    assert!(said.starts_with("path: expected a safetensors file, got"), "{said}");
    options().init(DType::F32, 0).unwrap().save(&path, "a.").unwrap();
    assert_eq!(load("b."), "state_dict: expected `b.head.weight`, got no such key");
    // What does not belong to the module may be of any dtype, what does may not.
    write_f64(&path, &["a.head.weight", "a.encoder"]);
    let said = load("a.");
    assert!(
        said.starts_with("path: expected `a.head.weight` of a dtype that losses take, got"),
        "{said}"
    );

    let parameters = options().init(DType::F32, 0).unwrap();
    let nowhere = folder.path().join("none").join("loss.safetensors");
    let said = refused(parameters.save(&nowhere, ""));
    assert!(said.starts_with("path: expected a file that can be written, got"), "{said}");
}
