//! How a right call is made wrong: one thing, or a few.

use crate::base::dtype::DType;
use crate::base::reduction::Reduction;
use crate::check::call::draft::NUMBERS;
use crate::check::call::{Call, Given, Role, Setpoint};
use crate::check::random::Random;

/// Makes one to three things wrong in half of all calls; some of it may be legal nevertheless.
pub(super) fn spoil(random: &mut Random, call: &mut Call) {
    if random.one_in(2) {
        return;
    }
    for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
        let options = call.settings.len();
        match random.below(8) {
            0 | 1 if options > 0 => setting(random, call),
            2 | 3 => shape(random, call),
            4 => dtype(random, call),
            5 => presence(random, call),
            _ => element(random, call),
        }
    }
}

fn setting(random: &mut Random, call: &mut Call) {
    let at = random.below(call.settings.len());
    let setting = &mut call.settings[at];
    // A budget changes nothing but where sums are rounded.
    if setting.name == "workspace" {
        return;
    }
    let new = match &setting.value {
        Setpoint::Number(_) | Setpoint::Unset => Setpoint::Number(random.pick(&NUMBERS)),
        Setpoint::Integer(_) => Setpoint::Integer(random.pick(&INTEGERS)),
        Setpoint::Flag(yes) => Setpoint::Flag(!yes),
        Setpoint::List(list) => Setpoint::List(other_list(random, list)),
        Setpoint::Dims(dims) => {
            let mut dims = dims.clone();
            match (random.below(3), dims.len()) {
                (0, 1..) => {
                    dims[0] = random.pick(&[-9, -3, -2, -1, 0, 1, 2, 3, 8, isize::MAX, isize::MIN])
                }
                (1, _) => dims.push(random.below(4) as isize - 2),
                _ => drop(dims.pop()),
            }
            Setpoint::Dims(dims)
        }
        Setpoint::Word(word) => Setpoint::Word(word),
        Setpoint::Reduction(_) => Setpoint::Reduction(random.pick(&[
            Reduction::None,
            Reduction::Sum,
            Reduction::Mean,
            Reduction::BatchMean,
        ])),
    };
    if (setting.name, &new) == ("label_smoothing", &Setpoint::Number(1.0)) {
        return;
    }
    setting.value = new;
    call.spoiled.push(format!("option {}", setting.name));
}

const INTEGERS: [i64; 12] =
    [0, 1, -1, 2, 3, 255, -100, 256, 1 << 31, -(1 << 31), i64::MAX, i64::MIN];

fn other_list(random: &mut Random, list: &[usize]) -> Vec<usize> {
    let mut list = list.to_vec();
    let at = random.below(list.len().max(1));
    match (random.below(5), list.len()) {
        (0, 1..) => drop(list.remove(at)),
        (1, 1..) => list[at] = random.pick(&[0, 1, 2, 5, 40, 1 << 20, 1 << 40]),
        (2, 2..) => list.swap(0, 1),
        (3, 1..) => list.push(list[at]),
        _ => list.push(random.below(50)),
    }
    list
}

/// Some tensor that is there.
fn some<'c>(random: &mut Random, call: &'c mut Call) -> Option<&'c mut Given> {
    let mut there: Vec<&mut Given> = call.tensors.iter_mut().filter(|g| g.present).collect();
    let at = random.below(there.len());
    (!there.is_empty()).then(|| there.swap_remove(at))
}

fn shape(random: &mut Random, call: &mut Call) {
    let Some(given) = some(random, call) else { return };
    let rank = given.shape.len();
    let at = random.below(rank.max(1));
    match (random.below(7), rank) {
        (0, 1..) => {
            given.shape.remove(at);
            given.letters.remove(at);
        }
        (1, 0..=7) => {
            let at = random.below(rank + 1);
            given.shape.insert(at, random.pick(&[0, 1, 1, 2, 3]));
            given.letters.insert(at, ' ');
        }
        (2, 2..) => {
            given.shape.swap(0, at);
            given.letters.swap(0, at);
        }
        (3, 1..) => (given.shape[at], given.letters[at]) = (0, ' '),
        (4, 1..) if given.shape[at] > 0 => {
            (given.shape[at], given.letters[at]) = (given.shape[at] - 1, ' ');
        }
        (5, 1..) => (given.shape[at], given.letters[at]) = (given.shape[at] + 1, ' '),
        _ => given.padding += 1,
    }
    if given.role == Role::Consumed {
        given.padding = 0;
    }
    let name = format!("shape of {}", given.name);
    call.spoiled.push(name);
}

fn dtype(random: &mut Random, call: &mut Call) {
    let Some(given) = some(random, call) else { return };
    given.dtype = random.pick(&DType::ALL);
    let name = format!("dtype of {}", given.name);
    call.spoiled.push(name);
}

fn presence(random: &mut Random, call: &mut Call) {
    let mut optional: Vec<&mut Given> = call.tensors.iter_mut().filter(|g| g.optional).collect();
    if optional.is_empty() {
        return;
    }
    let at = random.below(optional.len());
    let given = &mut optional[at];
    given.present = !given.present;
    let name = format!("presence of {}", given.name);
    call.spoiled.push(name);
}

/// One element, or all: an index that names no class, a weight that is no number.
fn element(random: &mut Random, call: &mut Call) {
    let Some(given) = some(random, call) else { return };
    let elements: usize = given.shape.iter().product();
    if given.values.is_empty() || elements == 0 {
        return;
    }
    // Repeated values are written out, so that one element is one.
    given.values = given.values.iter().copied().cycle().take(elements).collect();
    let value = match given.dtype.is_index() {
        true => random.pick(&INTEGERS) as f64,
        false => random.pick(&NUMBERS),
    };
    let at = random.below(elements);
    match random.one_in(6) {
        true => given.values.fill(value),
        false => given.values[at] = value,
    }
    let name = format!("an element of {}", given.name);
    call.spoiled.push(name);
}
