//! Calls of one form each, right and wrong: of hidden states, whose checks those of logits share.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::reduction::Reduction;
use crate::check::call::bound::Bound;
use crate::check::call::clusters::draw_gradients;
use crate::check::call::draft::Draft;
use crate::check::call::{Role, Setpoint};
use crate::check::draw::lists::DrawnLists;
use crate::check::entry::Reference;
use crate::check::ops::cross_entropy::upstream;
use crate::check::ops::linear_cross_entropy::calls as linear;
use crate::check::ops::linear_cross_entropy::calls::{
    draw_results, draw_rows, expect_by, gradients,
};
use crate::check::reference::{self, ListData};
use crate::spec::class_subset::{ClassSubset, MissingTarget, Rest};
use crate::spec::cross_entropy::{CrossEntropy, CrossEntropyOut, CrossEntropyOutput};
use crate::spec::linear_cross_entropy::{LinearCrossEntropy, LinearInput};

const BUCKET: Setpoint = Setpoint::Integer(Rest::Bucket as i64);

const FORMS: [&str; 4] = ["forward", "forward_into", "forward_backward_into", "backward_into"];

pub(super) fn draw(d: &mut Draft) {
    let form = d.form(&FORMS);
    let features = d.random.pick(&[1, 2, 3, 8, 17]);
    let classes = d.random.pick(&[1, 2, 3, 5, 12, 40, 300]);
    let rows = d.random.below(7);
    let (shape, letters) = match d.random.one_in(8) {
        true => (vec![features], ""),
        false => (vec![rows, features], "N"),
    };
    let rows = shape[..shape.len() - 1].to_vec();
    let input_letters = format!("{letters}D");
    let data = d.features(&shape);
    d.given(("input", Role::Read), (d.dtype, &shape, &input_letters), data);
    let data = d.normal(&[classes, features], 0.4);
    d.given(("linear_weight", Role::Read), (d.dtype, &[classes, features], "CD"), data);
    let mut parameters = vec![("linear_weight".to_owned(), vec![classes, features])];
    if d.random.one_in(2) {
        let data = d.normal(&[classes], 0.4);
        d.given(("linear_bias", Role::Read), (d.dtype, &[classes], "C"), data);
        parameters.push(("linear_bias".to_owned(), vec![classes]));
    }
    let soft = d.random.one_in(4);
    draw_lists(d, (&rows, letters), classes, soft);
    d.weight("weight", &[classes], "C");
    if let Some(weight) = d.call.tensors.last_mut() {
        weight.present &= !soft;
    }
    draw_rows(d, &rows, letters);
    let reduction = d.reduction(false);
    let weighted = d.call.tensors.iter().any(|given| given.name == "weight" && given.present);
    let bucket = d.call.settings.iter().any(|s| s.name == "rest" && s.value == BUCKET);
    let squared: &[f64] = if weighted || bucket { &[] } else { &[1e-4, 0.1] };
    d.number("lse_square_scale", 0.0, squared);
    d.number("logit_scale", 1.0, &[0.5, 2.0]);
    d.option("softcap", Setpoint::Unset, &[Setpoint::Number(30.0)]);
    let loss: (&[usize], &str) = match reduction {
        Reduction::None => (&rows, letters),
        Reduction::Sum | Reduction::Mean | Reduction::BatchMean => (&[], ""),
    };
    let ranks = [("argmax", DType::I64), ("rank", DType::I64)];
    draw_results(d, loss, (&rows, letters), soft, &ranks);
    if form.ends_with("backward_into") {
        draw_gradients(d, ("grad_input", &shape, &input_letters), &parameters);
    }
}

/// Targets, or probabilities, and lists that go with them.
fn draw_lists(d: &mut Draft, (rows, letters): (&[usize], &str), classes: usize, soft: bool) {
    let count = rows.iter().product();
    let mut targets = Vec::new();
    if !soft {
        d.targets("target", classes, rows, letters);
        let ignored = d.call.settings.last().map_or(-100, |setting| match setting.value {
            Setpoint::Integer(ignored) => ignored,
            _ => -100,
        });
        let values = d.call.tensors.last().map_or(&[][..], |given| &given.values);
        let kept = |&target: &f64| if target as i64 == ignored { -1 } else { target as i64 };
        targets = values.iter().map(kept).collect();
    }
    let lists = DrawnLists::draw(&mut d.random, classes, (count, (!soft).then_some(&targets[..])));
    if soft {
        let sizes = [rows, &[lists.k]].concat();
        let share = 1.0 / lists.k as f64;
        let data = d.normal(&sizes, share).into_iter().map(f64::abs).collect();
        d.given(("target", Role::Read), (d.dtype, &sizes, &format!("{letters}K")), data);
    }
    d.set("missing_target", Setpoint::Integer(lists.missing as i64));
    d.set("rest", Setpoint::Integer(lists.rest as i64));
    d.set("shared", Setpoint::Integer(lists.shared.into()));
    let (shape, own) = (lists.shape(rows), if lists.shared { "K" } else { &format!("{letters}K") });
    let ids = d.given(("ids", Role::Read), (lists.dtype, &shape, own), lists.ids.clone());
    ids.padding = 0;
    if let Some(counts) = lists.counts {
        d.given(("counts", Role::Read), (DType::I64, rows, letters), counts).padding = 0;
    }
}

fn loss<'a>(b: &Bound<'a>) -> LinearCrossEntropy<'a> {
    let loss = CrossEntropy::default()
        .reduction(b.reduction())
        .lse_square_scale(b.number("lse_square_scale"))
        .logit_scale(b.float("logit_scale"))
        .softcap(b.optional_number("softcap").map(|cap| cap as f32))
        .ignore_index(b.optional_integer("ignore_index").unwrap_or(-100));
    LinearCrossEntropy::from(match b.optional("weight") {
        Some(weight) => loss.weight(weight),
        None => loss,
    })
}

fn missing(b: &Bound<'_>) -> MissingTarget {
    let of = b.optional_integer("missing_target").unwrap_or(0);
    MissingTarget::ALL.into_iter().find(|&rule| rule as i64 == of).unwrap_or_default()
}

fn rest(b: &Bound<'_>) -> Rest {
    let of = b.optional_integer("rest").unwrap_or(0);
    Rest::ALL.into_iter().find(|&rule| rule as i64 == of).unwrap_or_default()
}

fn shared(b: &Bound<'_>) -> bool {
    b.optional_integer("shared") == Some(1)
}

fn input<'a>(b: &Bound<'a>) -> LinearInput<'a> {
    let subset = match shared(b) {
        true => ClassSubset::shared(b.tensor("ids")),
        false => ClassSubset::per_row(b.tensor("ids"), b.optional("counts")),
    };
    linear::input(b).subset(subset.missing_target(missing(b)).rest(rest(b)))
}

fn outputs<'a>(b: &Bound<'a>) -> CrossEntropyOut<'a> {
    CrossEntropyOut {
        argmax: b.optional_out("argmax"),
        rank: b.optional_out("rank"),
        ..linear::outputs(b)
    }
}

pub(super) fn run(b: &Bound<'_>) -> Result<()> {
    let (loss, input, device) = (loss(b), input(b), b.device);
    match b.call.form {
        "forward" => {
            let CrossEntropyOutput { loss, lse, z_loss } = loss.forward(device, &input)?;
            b.give("loss", loss);
            b.give("lse", lse);
            b.give("z_loss", z_loss);
        }
        "forward_into" => loss.forward_into(device, &input, outputs(b))?,
        "forward_backward_into" => {
            let out = outputs(b);
            loss.forward_backward_into(device, &input, upstream(b), gradients(b), out)?;
        }
        _ => loss.backward_into(device, &input, upstream(b), gradients(b))?,
    }
    Ok(())
}

pub(super) fn expect(b: &Bound<'_>) -> Result<Reference> {
    let ids = b.tensor("ids");
    let counts = b.optional("counts").map(reference::indices).transpose()?;
    let lists = ListData {
        ids: &reference::indices(ids)?,
        k: ids.shape().last().copied().unwrap_or(0),
        counts: counts.as_deref(),
        shared: shared(b),
        missing: missing(b),
        rest: rest(b),
        given: false,
    };
    expect_by(b, |data| reference::class_subset(&loss(b).of_logits, data, &lists))
}
