//! What every test of every loss goes through.

use crate::data;
use std::sync::OnceLock;
use warploss::check::compare::{self, Worst};
use warploss::{DType, Device, Result, TensorRef};

/// The devices that every case of a test runs on; a new one is a line here.
///
/// One card is another in the next test, by the test's name; `WARPLOSS_TEST_CARD=0` to 4 makes it the
/// same in all.
pub(crate) fn devices() -> &'static [(&'static str, Device)] {
    static DEVICES: [OnceLock<Vec<(&'static str, Device)>>; CARDS] =
        [const { OnceLock::new() }; CARDS];
    let card = card();
    DEVICES[card].get_or_init(|| {
        let threads = |n| Device::cpu_with_threads(n).expect("a pool of threads");
        let mut devices = vec![
            ("cpu", Device::cpu()),
            ("cpu, 1 thread", threads(1)),
            ("cpu, 3 threads", threads(3)),
        ];
        devices.extend(emulated(card));
        devices
    })
}

/// The least budget that would do, as the error of a smaller one names it.
pub(crate) fn least_of(error: &warploss::Error) -> usize {
    let text = error.to_string();
    let number = text.split("at least ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// The device on which cases run once more with all their data there.
pub(crate) const RESIDENT: &str = "emulated tiny card";

/// Cards that take turns.
const CARDS: usize = 5;

/// Which of them this test has.
fn card() -> usize {
    let given = std::env::var("WARPLOSS_TEST_CARD").ok().and_then(|card| card.parse().ok());
    let of_name =
        |name: &str| name.bytes().fold(0, |sum, byte| sum * 31 % 1009 + usize::from(byte));
    let name = std::thread::current().name().map_or(0, of_name);
    given.unwrap_or(name) % CARDS
}

/// CUDA cards whose limits lead to different schedules, on the host: clusters of 16, 8, 2 and none.
#[cfg(feature = "emulator")]
fn emulated(of_test: usize) -> Vec<(&'static str, Device)> {
    use warploss::emulator::Description;
    let card = |description, seed| Device::emulated(description, seed).expect("an emulated card");
    let (name, description) = match of_test {
        0 => ("emulated H100", Description::h100()),
        1 => ("emulated slice of an H100", Description::h100_slice()),
        2 => ("emulated RTX 4090", Description::rtx_4090()),
        3 => ("emulated RTX 5090", Description::rtx_5090()),
        _ => ("emulated B200, clusters of 2", Description { cluster: 2, ..Description::b200() }),
    };
    vec![(name, card(description, None)), (RESIDENT, card(Description::tiny(), Some(7)))]
}

#[cfg(not(feature = "emulator"))]
fn emulated(_: usize) -> Vec<(&'static str, Device)> {
    Vec::new()
}

/// One call's inputs and options, and all the ways to make the call.
pub(crate) trait Case {
    /// What repeats the case.
    fn describe(&self) -> String;

    /// The results by the reference.
    fn expected(&self) -> Vec<Expected>;

    /// Every form of the call, by name, with its results. A form makes sure itself that it
    /// touched no padding. Data comes from [`data::Data`] alone, which may lie on the device.
    fn forms(&self, device: &Device) -> Vec<(&'static str, Result<Vec<Got>>)>;

    /// For each gradient, by its name, the tensor that it belongs to.
    fn variables(&self) -> Vec<(&'static str, Vec<f64>)>;

    /// Σ upstream gradient · result in f64, were `values` the tensor whose gradient is named: its
    /// slope is that gradient.
    fn objective(&self, gradient: &str, values: &[f64]) -> f64;
}

/// How a result is compared.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    /// As a loss, with the sizes of its terms.
    Loss(Vec<f64>),
    /// As a gradient.
    Gradient,
    /// As a gradient that is a sum of terms, with their sizes.
    SummedGradient(Vec<f64>),
}

#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) name: &'static str,
    pub(crate) rule: Rule,
    pub(crate) values: Vec<f64>,
}

impl Expected {
    pub(crate) fn loss(name: &'static str, values: Vec<f64>, sizes: Vec<f64>) -> Expected {
        Expected { name, rule: Rule::Loss(sizes), values }
    }

    /// A result of one term each, like a log-sum-exp.
    pub(crate) fn term(name: &'static str, values: Vec<f64>) -> Expected {
        let sizes = compare::sizes(&values);
        Expected::loss(name, values, sizes)
    }

    pub(crate) fn gradient(name: &'static str, values: Vec<f64>) -> Expected {
        Expected { name, rule: Rule::Gradient, values }
    }

    /// A gradient that is a sum of terms, with Σ|terms|.
    pub(crate) fn summed_gradient(
        name: &'static str,
        values: Vec<f64>,
        sizes: Vec<f64>,
    ) -> Expected {
        Expected { name, rule: Rule::SummedGradient(sizes), values }
    }

    pub(crate) fn compare(&self, dtype: DType, got: &[f64]) -> Worst {
        match &self.rule {
            Rule::Loss(sizes) => compare::losses(dtype, got, &self.values, sizes),
            Rule::Gradient => compare::gradients(dtype, got, &self.values),
            Rule::SummedGradient(sizes) => {
                compare::summed_gradients(dtype, got, &self.values, sizes)
            }
        }
    }
}

/// A result as it came, widened exactly: equal bits here are equal bits there.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) name: &'static str,
    pub(crate) dtype: DType,
    pub(crate) values: Vec<f64>,
}

impl Got {
    pub(crate) fn new(name: &'static str, tensor: TensorRef<'_>) -> Got {
        Got { name, dtype: tensor.dtype(), values: tensor.to_f64().expect("host memory") }
    }
}

/// The case agrees with the reference, in every form, on every device.
pub(crate) fn check(case: &dyn Case) {
    check_against(case, &case.expected());
}

/// The case agrees with `expected`, in every form, on every device.
pub(crate) fn check_against(case: &dyn Case, expected: &[Expected]) {
    for (device_name, device) in devices() {
        check_on(device_name, device, case, expected);
        if *device_name == RESIDENT {
            let there = format!("data on the {device_name}");
            data::on_device(device, || check_on(&there, device, case, expected));
        }
    }
}

/// The case agrees with `expected`, in every form, on one device.
pub(crate) fn check_on(device_name: &str, device: &Device, case: &dyn Case, expected: &[Expected]) {
    for (form, results) in case.forms(device) {
        let at = || format!("{device_name}, {form}, {}", case.describe());
        let results = results.unwrap_or_else(|e| panic!("{e}\n  on {}", at()));
        assert!(!results.is_empty(), "no results\n  on {}", at());
        for got in results {
            let expected = expected.iter().find(|e| e.name == got.name);
            let expected = expected.unwrap_or_else(|| panic!("nobody expects {}", got.name));
            let worst = expected.compare(got.dtype, &got.values);
            assert!(worst.agrees(), "{}: {worst}\n  on {}", got.name, at());
        }
    }
}

/// Every form's results on `device`, bit by bit.
pub(crate) fn bits(case: &dyn Case, device: &Device) -> Vec<(String, Vec<u64>)> {
    let mut all = Vec::new();
    for (form, results) in case.forms(device) {
        for got in results.expect("a legal call") {
            let bits = got.values.iter().map(|v| v.to_bits()).collect();
            all.push((format!("{form}: {}", got.name), bits));
        }
    }
    all
}
