//! State dicts, PyTorch's: named tensors to parameters, options from their shapes, and files.

use crate::base::error::{Count, Error, Result};
use crate::base::shape::Shape;
use crate::spec::adaptive_log_softmax::parameters::{HEAD_BIAS, HEAD_WEIGHT, tail_key};
use crate::spec::adaptive_log_softmax::{AdaptiveLogSoftmax, AdaptiveParameters};
use std::collections::BTreeMap;

fn refuse<T>(expected: String, got: String) -> Result<T> {
    Err(Error::Value { argument: "state_dict", expected, got })
}

/// Whether a key, without its prefix, looks like one of this module's.
#[cfg(feature = "safetensors")]
fn ours(key: &str) -> bool {
    key.starts_with("head.") || key.starts_with("tail.")
}

impl AdaptiveLogSoftmax<'_> {
    /// Puts named tensors in their places, as they come from a state dict; `prefix` is what stands
    /// before the keys there.
    ///
    /// # Errors
    /// A key that is missing, that is not one of the keys, or whose shape is not the one of
    /// [`AdaptiveLogSoftmax::shapes`]; the key is named.
    pub fn parameters_from<T>(
        &self,
        prefix: &str,
        named: impl IntoIterator<Item = (String, T)>,
        shape_of: impl Fn(&T) -> Shape,
    ) -> Result<AdaptiveParameters<T>> {
        let mut named: BTreeMap<String, T> = named.into_iter().collect();
        let shapes = self.shapes()?;
        let parameters = shapes.try_map(|key, shape| {
            let key = format!("{prefix}{key}");
            let wanted = format!("`{key}` of shape {shape}");
            let Some(tensor) = named.remove(&key) else {
                return refuse(wanted, "no such key".into());
            };
            match shape_of(&tensor) {
                got if got == *shape => Ok(tensor),
                got => refuse(wanted, format!("shape {got}")),
            }
        })?;
        match named.keys().find(|key| key.starts_with(prefix)) {
            Some(key) => {
                let bias = if self.head_bias { " with head.bias" } else { "" };
                let clusters = Count(self.clusters(), "cluster");
                let expected = format!("the keys of {clusters}{bias} alone");
                refuse(expected, format!("`{key}` as well"))
            }
            None => Ok(parameters),
        }
    }

    /// The options that a state dict was made with, told from its shapes alone: features, classes,
    /// cutoffs, widths, bias. Keys without the prefix are left out.
    ///
    /// # Errors
    /// A key that is missing or whose shape fits no options; the key is named.
    pub fn from_shapes(
        prefix: &str,
        shapes: impl IntoIterator<Item = (String, Shape)>,
    ) -> Result<AdaptiveLogSoftmax<'static>> {
        let shapes: BTreeMap<String, Shape> = shapes.into_iter().collect();
        let matrix = |key: &str| -> Result<[usize; 2]> {
            let key = format!("{prefix}{key}");
            match shapes.get(&key).map(|shape| (**shape).to_vec()) {
                Some(sizes) => match sizes[..] {
                    [rows, columns] => Ok([rows, columns]),
                    _ => refuse(format!("`{key}` of 2 dimensions"), format!("shape {sizes:?}")),
                },
                None => refuse(format!("`{key}`"), "no such key".into()),
            }
        };
        let [head, in_features] = matrix(HEAD_WEIGHT)?;
        let has = |key: &str| shapes.contains_key(&format!("{prefix}{key}"));
        let clusters = (0..).take_while(|&i| has(&tail_key(i, 0)) || has(&tail_key(i, 1))).count();
        let Some(shortlist) = head.checked_sub(clusters).filter(|&c| c > 0 && clusters > 0) else {
            let expected =
                format!("`{prefix}{HEAD_WEIGHT}` of more rows than tails, which are ≥ 1");
            return refuse(
                expected,
                format!("{} and {}", Count(head, "row"), Count(clusters, "tail")),
            );
        };
        let (mut end, mut cutoffs, mut widths) = (shortlist, Vec::new(), Vec::new());
        for i in 0..clusters {
            cutoffs.push(end);
            widths.push(matrix(&tail_key(i, 0))?[0]);
            end = end.saturating_add(matrix(&tail_key(i, 1))?[0]);
        }
        Ok(AdaptiveLogSoftmax::new(in_features, end, &cutoffs)
            .widths(Some(widths))
            .head_bias(has(HEAD_BIAS)))
    }
}

#[cfg(feature = "safetensors")]
impl AdaptiveLogSoftmax<'_> {
    /// Options and parameters from a safetensors file, in which the keys of PyTorch's state dict
    /// stand behind `prefix`, among others perhaps.
    ///
    /// # Errors
    /// The file cannot be read; as [`AdaptiveLogSoftmax::from_shapes`] and
    /// [`AdaptiveLogSoftmax::parameters_from`].
    pub fn load(
        path: impl AsRef<std::path::Path>,
        prefix: &str,
    ) -> Result<(AdaptiveLogSoftmax<'static>, AdaptiveParameters<crate::base::tensor::Tensor>)>
    {
        let wanted = |key: &str| key.strip_prefix(prefix).is_some_and(ours);
        let named = crate::loss::io::file::read(path.as_ref(), wanted)?;
        let shapes = named.iter().map(|(key, tensor)| (key.clone(), tensor.shape()));
        let loss = AdaptiveLogSoftmax::from_shapes(prefix, shapes)?;
        let parameters = loss.parameters_from(prefix, named, crate::base::tensor::Tensor::shape)?;
        Ok((loss, parameters))
    }
}

#[cfg(feature = "safetensors")]
impl AdaptiveParameters<crate::base::tensor::Tensor> {
    /// Writes the parameters to a safetensors file, as PyTorch's state dict with `prefix` before
    /// each key. The file is written under another name and renamed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<std::path::Path>, prefix: &str) -> Result<()> {
        let named = self.try_map(|key, tensor| match tensor.view().place() {
            "host" => Ok(tensor),
            got => Err(Error::Value {
                argument: "path",
                expected: "parameters in host memory".into(),
                got: format!("`{key}` in {got} memory"),
            }),
        })?;
        let named = named.into_named().into_iter();
        let named: Vec<_> = named.map(|(key, tensor)| (format!("{prefix}{key}"), tensor)).collect();
        let path = path.as_ref();
        crate::loss::io::file::write(path, &named)
            .map_err(|e| crate::loss::io::file::failed("a file that can be written", path, e))
    }
}
