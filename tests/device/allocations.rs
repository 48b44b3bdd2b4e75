//! What the calls allocate: nothing in the steady state, and never in proportion to the logits.
//!
//! A counting allocator hears every thread, those of other tests too: the test runs once more in a
//! process of its own, where it is the only one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use warploss::{
    CrossEntropy, CrossEntropyOut, Device, LogSoftmax, LogSumExp, Nll, TensorMut, TensorRef,
};
use warploss::{ElementwiseGradOut, Huber, JsDivLogits, Mse, Reduction};
use warploss::{LogprobEntropy, LogprobEntropyOut, LogprobEntropyUpstream};

/// The system's allocator, counting.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations made by `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = CALLS.load(Relaxed);
    work();
    CALLS.load(Relaxed) - before
}

/// Bytes that `work` held at most beyond what was held before.
pub(crate) fn peak(work: impl FnOnce()) -> usize {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed).saturating_sub(before)
}

/// Buffers of every call that writes into the caller's memory.
struct Buffers {
    rows: usize,
    classes: usize,
    logits: Vec<f32>,
    grad: Vec<f32>,
    target: Vec<i64>,
    weight: Vec<f32>,
    class_grad: Vec<f32>,
    per_row: Vec<f32>,
    lse: Vec<f32>,
    loss: Vec<f32>,
    results: [Vec<f32>; 2],
    rank: Vec<i64>,
}

impl Buffers {
    fn new(rows: usize, classes: usize) -> Buffers {
        let logits = (0..rows * classes).map(|i| (i % 97) as f32 * 0.1).collect();
        Buffers {
            rows,
            classes,
            logits,
            grad: vec![0.0; rows * classes],
            target: (0..rows).map(|i| (i % classes) as i64).collect(),
            weight: vec![1.5; classes],
            class_grad: vec![0.0; classes],
            per_row: vec![0.5; rows],
            lse: vec![0.0; rows],
            loss: vec![0.0; 1],
            results: [vec![0.0; rows], vec![0.0; rows]],
            rank: vec![0; rows],
        }
    }

    fn fused(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let weight = TensorRef::new(&self.weight, &shape[1..]).expect("a view");
        let logits = TensorMut::new(&mut self.logits, &shape).expect("a view");
        let target = TensorRef::new(&self.target, &shape[..1]).expect("a view");
        let out = CrossEntropyOut {
            lse: Some(TensorMut::new(&mut self.lse, &shape[..1]).expect("a view")),
            ..CrossEntropyOut::loss(TensorMut::new(&mut self.loss, &[]).expect("a view"))
        };
        CrossEntropy::default()
            .weight(weight)
            .label_smoothing(0.1)
            .lse_square_scale(1e-4)
            .softcap(Some(30.0))
            .forward_backward_in_place(device, logits, target, 1.0, out)
            .expect("a legal call");
    }

    fn fused_plain(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let logits = TensorMut::new(&mut self.logits, &shape).expect("a view");
        let target = TensorRef::new(&self.target, &shape[..1]).expect("a view");
        let out = CrossEntropyOut::loss(TensorMut::new(&mut self.loss, &[]).expect("a view"));
        CrossEntropy::default()
            .forward_backward_in_place(device, logits, target, 1.0, out)
            .expect("a legal call");
    }

    fn forward_and_backward(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let target = TensorRef::new(&self.target, &shape[..1]).expect("a view");
        let loss = CrossEntropy::default();
        let out = CrossEntropyOut {
            lse: Some(TensorMut::new(&mut self.lse, &shape[..1]).expect("a view")),
            ..CrossEntropyOut::loss(TensorMut::new(&mut self.loss, &[]).expect("a view"))
        };
        let logits = TensorRef::new(&self.logits, &shape).expect("a view");
        loss.forward_into(device, logits, target, out).expect("a legal call");
        let lse = TensorRef::new(&self.lse, &shape[..1]).expect("a view");
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        loss.backward_into(device, logits, (target, lse), 1.0, grad).expect("a legal call");
        let logits = TensorMut::new(&mut self.logits, &shape).expect("a view");
        loss.backward_in_place(device, logits, target, lse, 1.0).expect("a legal call");
    }

    fn logprob_entropy(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let target = TensorRef::new(&self.target, &shape[..1]).expect("a view");
        let per_row = TensorRef::new(&self.per_row, &shape[..1]).expect("a view");
        let upstream = LogprobEntropyUpstream {
            grad_logprob: per_row.into(),
            ..LogprobEntropyUpstream::default()
        };
        let [logprob, entropy] = &mut self.results;
        let out = LogprobEntropyOut {
            lse: Some(TensorMut::new(&mut self.lse, &shape[..1]).expect("a view")),
            rank: Some(TensorMut::new(&mut self.rank, &shape[..1]).expect("a view")),
            ..LogprobEntropyOut::new(
                TensorMut::new(logprob, &shape[..1]).expect("a view"),
                TensorMut::new(entropy, &shape[..1]).expect("a view"),
            )
        };
        let loss = LogprobEntropy::default();
        let logits = TensorRef::new(&self.logits, &shape).expect("a view");
        loss.forward_into(device, logits, target, out).expect("a legal call");
        let saved = (target, TensorRef::new(&self.lse, &shape[..1]).expect("a view"));
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        loss.backward_into(device, logits, saved, upstream, grad).expect("a legal call");
        let upstream = LogprobEntropyUpstream { grad_entropy: per_row.into(), ..upstream };
        let out = LogprobEntropyOut::new(
            TensorMut::new(logprob, &shape[..1]).expect("a view"),
            TensorMut::new(entropy, &shape[..1]).expect("a view"),
        );
        let logits = TensorMut::new(&mut self.logits, &shape).expect("a view");
        loss.forward_backward_in_place(device, logits, target, upstream, out)
            .expect("a legal call");
    }

    fn log_softmax(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        for dim in [0, 1] {
            let input = TensorRef::new(&self.logits, &shape).expect("a view");
            let output = TensorMut::new(&mut self.grad, &shape).expect("a view");
            LogSoftmax::dim(dim).forward_into(device, input, output).expect("a legal call");
            let output = TensorMut::new(&mut self.grad, &shape).expect("a view");
            LogSoftmax::dim(dim).backward_into(device, input, input, output).expect("a legal call");
        }
    }

    fn logsumexp(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let loss = LogSumExp::dims(&[1]).expect("a dimension");
        let input = TensorRef::new(&self.logits, &shape).expect("a view");
        let output = TensorMut::new(&mut self.lse, &shape[..1]).expect("a view");
        loss.forward_into(device, input, output).expect("a legal call");
        let output = TensorRef::new(&self.lse, &shape[..1]).expect("a view");
        let g = TensorRef::new(&self.per_row, &shape[..1]).expect("a view");
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        loss.backward_into(device, input, output, g, grad).expect("a legal call");
    }
}

impl Buffers {
    fn nll(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let target = TensorRef::new(&self.target, &shape[..1]).expect("a view");
        let weight = TensorRef::new(&self.weight, &shape[1..]).expect("a view");
        let nll = Nll::default().weight(weight);
        let input = TensorRef::new(&self.logits, &shape).expect("a view");
        let loss = TensorMut::new(&mut self.loss, &[]).expect("a view");
        nll.forward_into(device, input, target, loss).expect("a legal call");
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        nll.backward_into(device, target, 1.0, grad).expect("a legal call");
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        let loss = TensorMut::new(&mut self.loss, &[]).expect("a view");
        nll.forward_backward_in_place(device, grad, target, 1.0, loss).expect("a legal call");
    }

    fn soft(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let weight = TensorRef::new(&self.weight, &shape[1..]).expect("a view");
        let loss = CrossEntropy::default().weight(weight).label_smoothing(0.1);
        for teacher in [None, Some(0.5)] {
            let loss = loss.clone().teacher_scale(teacher);
            let target = TensorRef::new(&self.logits, &shape).expect("a view");
            let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
            let out = CrossEntropyOut::loss(TensorMut::new(&mut self.loss, &[]).expect("a view"));
            loss.forward_backward_in_place(device, grad, target, 1.0, out).expect("a legal call");
        }
    }

    fn js_div_logits(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let labels = TensorRef::new(&self.target, &shape[..1]).expect("a view");
        let target = TensorRef::new(&self.logits, &shape).expect("a view");
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        let loss = TensorMut::new(&mut self.loss, &[]).expect("a view");
        JsDivLogits::default()
            .labels(labels)
            .forward_backward_in_place(device, grad, target, 1.0, loss)
            .expect("a legal call");
    }

    /// One loss stands for all of the elementwise ones, which differ in a formula alone: with a
    /// weight, with a target that broadcasts, and with its gradient summed back.
    fn elementwise(&mut self, device: &Device) {
        let shape = [self.rows, self.classes];
        let input = TensorRef::new(&self.logits, &shape).expect("a view");
        let grad = TensorMut::new(&mut self.grad, &shape).expect("a view");
        let loss = TensorMut::new(&mut self.loss, &[]).expect("a view");
        Mse::default()
            .weight(input)
            .forward_backward_in_place(device, grad, input, 1.0, loss)
            .expect("a legal call");
        let target = TensorRef::new(&self.weight, &shape[1..]).expect("a view");
        let loss = TensorMut::new(&mut self.loss, &[]).expect("a view");
        let huber = Huber::default().reduction(Reduction::Sum);
        huber.forward_into(device, input, target, loss).expect("a legal call");
        let mut summed = std::mem::take(&mut self.class_grad);
        let grads = ElementwiseGradOut {
            grad_target: Some(TensorMut::new(&mut summed, &shape[1..]).expect("a view")),
            ..Default::default()
        };
        huber.backward_into(device, input, target, 1.0, grads).expect("a legal call");
        self.class_grad = summed;
    }
}

/// A call that must not allocate.
type Call = (&'static str, fn(&mut Buffers, &Device));
const CALLS_INTO_BUFFERS: &[Call] = &[
    ("fused cross entropy", Buffers::fused_plain),
    ("fused cross entropy with every option", Buffers::fused),
    ("cross entropy, forward and backward", Buffers::forward_and_backward),
    ("log-probability and entropy", Buffers::logprob_entropy),
    ("nll", Buffers::nll),
    ("cross entropy against probabilities and a teacher", Buffers::soft),
    ("Jensen-Shannon divergence from logits", Buffers::js_div_logits),
    ("elementwise losses", Buffers::elementwise),
    ("log-softmax", Buffers::log_softmax),
    ("logsumexp", Buffers::logsumexp),
];

/// Few long rows, shared within a row; many short ones; and more rows than one thread counts.
const SHAPES: &[(usize, usize)] = &[(2, 70_000), (300, 100), (40_000, 3)];

/// Times that a call is made before it is watched, and while it is.
const WARM: usize = 8;
const WATCHED: usize = 64;

/// Set for the process in which the test is alone.
const ALONE: &str = "WARPLOSS_TEST_ALONE";

#[test]
fn the_steady_state_allocates_nothing_and_peaks_stay_of_the_order_of_rows() {
    let test = "the_steady_state_allocates_nothing_and_peaks_stay_of_the_order_of_rows";
    alone(module_path!(), test, count);
}

/// Runs a test, of this name in its module, in a process of its own.
pub(crate) fn alone(module: &str, test: &str, work: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return work();
    }
    let module = module.split_once("::").map_or("", |(_, module)| module);
    let test = format!("{module}::{test}");
    let program = std::env::current_exe().expect("this program");
    let alone = std::process::Command::new(program)
        .args([&test[..], "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("a process");
    let [said, failed] =
        [alone.stdout, alone.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(alone.status.success() && said.contains("1 passed"), "{said}{failed}");
}

fn count() {
    let mut failures = Vec::new();

    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let device = Device::cpu();
    let own_threads = Device::cpu_with_threads(2).expect("threads");
    for &(rows, classes) in SHAPES {
        for (name, call) in CALLS_INTO_BUFFERS {
            let mut buffers = Buffers::new(rows, classes);
            let inside = pool.install(|| {
                (0..WARM).for_each(|_| call(&mut buffers, &device));
                // Once in a while rayon's memory reclamation takes blocks of its own: not every time.
                let count =
                    |_| allocations(|| (0..WATCHED).for_each(|_| call(&mut buffers, &device)));
                (0..3).map(count).min().unwrap_or(0)
            });
            if inside > WATCHED / 16 {
                failures.push(format!(
                    "{name}, {rows} × {classes}: {inside} allocations in {WATCHED} calls"
                ));
            }
            // From outside a pool, rayon's queue takes a small block about every 63 jobs.
            (0..WARM).for_each(|_| call(&mut buffers, &own_threads));
            let outside =
                allocations(|| (0..WATCHED).for_each(|_| call(&mut buffers, &own_threads)));
            if outside > WATCHED / 5 {
                failures.push(format!("{name}, {rows} × {classes}: {outside} allocations in {WATCHED} calls from outside"));
            }
        }
    }

    // A fresh device each, so that what its threads set up once is counted too.
    for (rows, classes) in [(4, 1_000_000), (64, 50_257), (3000, 1000)] {
        let mut buffers = Buffers::new(rows, classes);
        for (name, call) in [CALLS_INTO_BUFFERS[0], CALLS_INTO_BUFFERS[1]] {
            let device = Device::cpu_with_threads(2).expect("threads");
            let bytes = peak(|| call(&mut buffers, &device));
            println!("{name}, {rows} × {classes}: {bytes} bytes beyond the logits");
            let limit = 64 * 1024 + 64 * rows;
            if bytes > limit {
                failures.push(format!(
                    "{name}, {rows} × {classes}: {bytes} bytes beyond the logits, limit {limit}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
