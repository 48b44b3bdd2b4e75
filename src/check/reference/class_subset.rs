//! Cross entropy over lists of classes: each row by itself, with the rows of a classifier that it lists.

use super::Softmax;
use super::cross_entropy::transform;
use super::linear_cross_entropy::{
    LinearData, LinearReference, LinearTarget, linear_cross_entropy,
};
use super::products::WithSizes;
use crate::base::reduction::Reduction;
use crate::base::tensor::Tensor;
use crate::spec::class_subset::{MissingTarget, Rest};
use crate::spec::cross_entropy::CrossEntropy;

/// What rows list.
#[derive(Debug, Clone, Copy)]
pub struct ListData<'a> {
    /// `[N, K]`, or `[K]` of all rows.
    pub ids: &'a [i64],
    /// K.
    pub k: usize,
    /// One a row.
    pub counts: Option<&'a [i64]>,
    /// Whether all rows have the same ids.
    pub shared: bool,
    /// Of a row whose target is not listed.
    pub missing: MissingTarget,
    /// What all others are.
    pub rest: Rest,
    /// Whether the input is logits, `[N, V]`, and there is no classifier.
    pub given: bool,
}

impl ListData<'_> {
    /// A row's classes, rising, with where the first of each stood.
    ///
    /// # Panics
    /// Of an id out of range.
    pub fn classes(&self, row: usize) -> Vec<(usize, usize)> {
        let first = if self.shared { 0 } else { row * self.k };
        let count = self.counts.map_or(self.k, |counts| counts[row] as usize);
        let ids = self.ids[first..first + count].iter().enumerate().filter(|&(_, &id)| id != -1);
        let mut classes: Vec<_> =
            ids.map(|(place, &id)| (usize::try_from(id).expect("a class"), place)).collect();
        classes.sort_unstable();
        classes.dedup_by_key(|&mut (class, _)| class);
        classes
    }

    /// The classes of so many that a row's probabilities have to do with.
    pub fn reads(&self, row: usize, classes: usize) -> Vec<usize> {
        match self.rest {
            Rest::Excluded => self.classes(row).into_iter().map(|(class, _)| class).collect(),
            Rest::Bucket => (0..classes).collect(),
        }
    }

    /// The same with a row's target where that is appended; `None` of a row that does not count.
    pub fn with_target(&self, row: usize, target: i64, ignored: i64) -> Option<Vec<usize>> {
        let mut classes: Vec<usize> =
            self.classes(row).into_iter().map(|(class, _)| class).collect();
        if target == ignored {
            return None;
        }
        let target = target as usize;
        match (classes.binary_search(&target), self.missing) {
            (Err(_), MissingTarget::Ignore) => None,
            (Err(at), _) => {
                classes.insert(at, target);
                Some(classes)
            }
            (Ok(_), _) => Some(classes),
        }
    }
}

/// One row's share of what goes in.
struct Row {
    list: Vec<usize>,
    /// Of the listed: rows of the classifier, biases, weights.
    weight: Vec<f64>,
    bias: Option<Vec<f64>>,
    of_classes: Option<Tensor>,
    input: Vec<f64>,
}

/// The loss and its gradients, of `of.classes` classes in all.
///
/// # Panics
/// Where the engine returns an error for shapes, targets or lists, this may panic.
pub fn class_subset(
    options: &CrossEntropy<'_>,
    of: &LinearData<'_>,
    lists: &ListData<'_>,
) -> LinearReference {
    let (features, classes) = (of.features, of.classes);
    let rows = of.input.len() / features;
    let of_classes =
        options.class_weight().map(|weight| weight.to_f64().expect("weights in host memory"));
    let list_of = |row: usize| match of.target {
        LinearTarget::Classes(target) => lists.with_target(row, target[row], options.ignore_index),
        LinearTarget::Probabilities(_) => Some(lists.reads(row, classes)),
    };
    let u = |row: usize| of.row_weight.map_or(1.0, |weights| weights[row]);
    let w = |row: usize| match (of.target, &of_classes) {
        (LinearTarget::Classes(target), Some(weights)) => weights[target[row] as usize],
        _ => 1.0,
    };
    let kept = || (0..rows).filter(|&row| list_of(row).is_some());
    let by_weight: f64 = kept().map(|row| u(row) * w(row)).sum();
    let mean = options.reduction == Reduction::Mean;
    let divisor = match mean {
        true if by_weight == 0.0 => f64::NAN,
        true => by_weight,
        false => 1.0,
    };
    let mut result = LinearReference {
        grad_weight: WithSizes::zeros(of.weight.len()),
        grad_bias: WithSizes::zeros(classes),
        ..LinearReference::default()
    };
    let targets = match of.target {
        LinearTarget::Classes(_) => 0,
        LinearTarget::Probabilities(_) => lists.k,
    };
    for row in 0..rows {
        let Some(list) = list_of(row) else {
            for to in [&mut result.loss, &mut result.z_loss, &mut result.lse] {
                to.push(0.0, 0.0);
            }
            for to in [&mut result.logprob, &mut result.entropy] {
                to.push(0.0, 0.0);
            }
            result.grad_input.extend(WithSizes::zeros(features));
            continue;
        };
        let own = Row::new(of, lists, (row, list), of_classes.as_deref());
        let out = own.evaluate((options, of), lists, row, divisor);
        own.put_back(&mut result, &out, lists.given, features);
        let mut of_target = WithSizes::zeros(targets);
        for (i, &(_, place)) in lists.classes(row).iter().enumerate().filter(|_| targets > 0) {
            of_target.add(place, out.grad_target.values[i], out.grad_target.sizes[i]);
        }
        result.grad_target.extend(of_target);
    }
    let reduce = |of: WithSizes| match options.reduction {
        Reduction::None => of,
        _ => {
            let sum = |values: &[f64]| vec![values.iter().sum::<f64>() / divisor];
            WithSizes { values: sum(&of.values), sizes: sum(&of.sizes) }
        }
    };
    let none = options.lse_square_scale == 0.0;
    (result.loss, result.z_loss) = (reduce(result.loss), reduce(result.z_loss));
    if none {
        result.z_loss = WithSizes::zeros(result.z_loss.values.len());
    }
    result
}

impl Row {
    fn new(
        of: &LinearData<'_>,
        lists: &ListData<'_>,
        (row, list): (usize, Vec<usize>),
        of_classes: Option<&[f64]>,
    ) -> Row {
        let features = of.features;
        let x = &of.input[row * features..][..features];
        // Given logits are their products with 1.
        let (input, weight) = match lists.given {
            true => (vec![1.0], list.iter().map(|&class| x[class]).collect()),
            false => {
                let of_class = |&class: &usize| &of.weight[class * features..][..features];
                (x.to_vec(), list.iter().flat_map(of_class).copied().collect())
            }
        };
        let pick = |of: &[f64]| list.iter().map(|&class| of[class]).collect::<Vec<f64>>();
        let weights = of_classes.map(|weights| {
            let weights: Vec<f32> = pick(weights).into_iter().map(|w| w as f32).collect();
            Tensor::from_vec(weights, &[list.len()]).expect("a vector")
        });
        Row { weight, bias: of.bias.map(pick), of_classes: weights, input, list }
    }

    fn evaluate(
        &self,
        (options, of): (&CrossEntropy<'_>, &LinearData<'_>),
        lists: &ListData<'_>,
        row: usize,
        divisor: f64,
    ) -> LinearReference {
        let options = CrossEntropy { weight: None, ..options.clone().reduction(Reduction::None) };
        let options = match &self.of_classes {
            Some(weights) => options.ignore_index(-1).weight(weights.view()),
            None => options.ignore_index(-1),
        };
        let place = |target: i64| self.list.iter().position(|&class| class as i64 == target);
        let (mut target, mut probabilities) = ([0], Vec::new());
        let listed = lists.classes(row);
        match of.target {
            LinearTarget::Classes(all) => target = [place(all[row]).expect("listed") as i64],
            LinearTarget::Probabilities(q) => {
                let places = listed.iter().map(|&(_, place)| place);
                probabilities = places.map(|place| q[row * lists.k + place]).collect();
            }
        }
        let [g, a, b] = of.upstream.map(|g| [g[if g.len() == 1 { 0 } else { row }]]);
        let g = [g[0] / divisor];
        let one = |of: Option<&[f64]>| of.map(|of| [of[row]]);
        let temperature = one(of.temperature);
        // Where nothing weighs anything the mean is NaN, and so are all gradients.
        let row_weight = if divisor.is_nan() { None } else { one(of.row_weight) };
        let rest = (lists.rest == Rest::Bucket).then(|| {
            let tau = temperature.map_or(1.0, |t| t[0]);
            RestOfRow::new(&self.logits(&options, tau), &listed, &mut probabilities)
        });
        let target = match of.target {
            LinearTarget::Classes(_) => LinearTarget::Classes(&target),
            LinearTarget::Probabilities(_) => LinearTarget::Probabilities(&probabilities),
        };
        let (hidden, classifier) =
            ((&self.input[..], self.input.len()), (&self.weight[..], self.list.len()));
        let data = LinearData {
            bias: self.bias.as_deref(),
            temperature: temperature.as_ref().map(|t| &t[..]),
            row_weight: row_weight.as_ref().map(|u| &u[..]),
            upstream: [&g, &a, &b],
            ..LinearData::new(hidden, classifier, target)
        };
        let mut out = linear_cross_entropy(&options, &data);
        if let Some(rest) = rest {
            rest.settle(&mut out, &listed, (row_weight.map_or(1.0, |u| u[0]), g[0]));
        }
        out
    }

    /// z of every class of the row.
    fn logits(&self, options: &CrossEntropy<'_>, tau: f64) -> Vec<f64> {
        let products = self.weight.chunks_exact(self.input.len()).enumerate().map(|(i, w)| {
            let product: f64 = w.iter().zip(&self.input).map(|(w, x)| w * x).sum();
            product + self.bias.as_ref().map_or(0.0, |bias| bias[i])
        });
        products.map(|x| transform(options, x / tau).0).collect()
    }

    /// Puts a row's results, and its gradients, among those of all.
    fn put_back(&self, to: &mut LinearReference, out: &LinearReference, given: bool, n: usize) {
        for (to, of) in [
            (&mut to.loss, &out.loss),
            (&mut to.z_loss, &out.z_loss),
            (&mut to.lse, &out.lse),
            (&mut to.logprob, &out.logprob),
            (&mut to.entropy, &out.entropy),
        ] {
            to.extend(of.clone());
        }
        let mut dx = WithSizes::zeros(n);
        for (i, &class) in self.list.iter().enumerate() {
            to.grad_bias.add(class, out.grad_bias.values[i], out.grad_bias.sizes[i]);
            if given {
                dx.add(class, out.grad_weight.values[i], out.grad_weight.sizes[i]);
                continue;
            }
            for d in 0..n {
                let (at, from) = (class * n + d, i * n + d);
                to.grad_weight.add(at, out.grad_weight.values[from], out.grad_weight.sizes[from]);
            }
        }
        to.grad_input.extend(if given { dx } else { out.grad_input.clone() });
    }
}

/// All classes that a row does not list, as one.
struct RestOfRow {
    /// What the target leaves to it.
    q: f64,
    /// ln p.
    ln_p: f64,
    /// Σ r ln r of its classes' shares of it.
    own: f64,
}

impl RestOfRow {
    /// Has the probabilities of listed classes become those of all, of which the rest's lie where it lies: their
    /// gradient of z is the same.
    fn new(z: &[f64], listed: &[(usize, usize)], q: &mut Vec<f64>) -> RestOfRow {
        let mut all = vec![None; z.len()];
        listed.iter().zip(q.iter()).for_each(|(&(class, _), &q)| all[class] = Some(q));
        let rest: Vec<f64> =
            z.iter().zip(&all).filter(|(_, q)| q.is_none()).map(|(&z, _)| z).collect();
        let softmax = Softmax::new(&rest);
        let lse = |of: &Softmax| of.max + of.total.ln();
        let left = if rest.is_empty() { 0.0 } else { (1.0 - q.iter().sum::<f64>()).max(0.0) };
        let ln_r = |z: f64| z - lse(&softmax);
        let share = |z: f64| if left == 0.0 { 0.0 } else { left * ln_r(z).exp() };
        *q = z.iter().zip(&all).map(|(&z, q)| q.unwrap_or_else(|| share(z))).collect();
        let times_own = |z: &f64| match *z == f64::NEG_INFINITY {
            true => 0.0,
            false => ln_r(*z).exp() * ln_r(*z),
        };
        RestOfRow {
            q: left,
            ln_p: lse(&softmax) - lse(&Softmax::new(z)),
            own: if left == 0.0 { 0.0 } else { rest.iter().map(times_own).sum() },
        }
    }

    /// The loss of all classes is off by what the rest's own are; what is left of 1 has every listed class in it.
    fn settle(&self, out: &mut LinearReference, listed: &[(usize, usize)], (u, g): (f64, f64)) {
        out.loss.values[0] += u * self.q * self.own;
        out.loss.sizes[0] += (u * self.q * self.own).abs();
        let mut of_listed = WithSizes::zeros(listed.len());
        for (i, &(class, _)) in listed.iter().enumerate() {
            let by = if self.q > 0.0 { u * g * self.ln_p } else { 0.0 };
            let (value, size) = (out.grad_target.values[class], out.grad_target.sizes[class]);
            of_listed.add(i, value + by, size + by.abs());
        }
        out.grad_target = of_listed;
    }
}
