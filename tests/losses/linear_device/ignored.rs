//! Rows that are ignored: those of several chunks that count go first, and the others take no product.

use super::*;

const SIZES: [usize; 3] = [43, 12, 509];
/// So that a chunk has a few rows.
const BUDGET: usize = 72_000;

/// Rows of which these are ignored, whose hidden states and factors are then NaN.
fn data<T: Number>(ignored: impl Fn(usize) -> bool) -> Data<T> {
    let mut data = Data::<T>::new(SIZES, false);
    let [n, d, _] = SIZES;
    for row in (0..n).filter(|&row| ignored(row)) {
        data.target[row] = -100;
        data.x[row * d..][..d].fill(T::of(f64::NAN));
        (data.tau[row], data.u[row]) = (f32::NAN, -1.0);
    }
    data
}

/// All that a call writes, as it comes: what rows have, and gradients.
struct Written<'d> {
    device: &'d Device,
    numbers: [Tensor; 5],
    classes: [Tensor; 3],
    gradients: [Tensor; 3],
}

impl<'d> Written<'d> {
    /// Of numbers that no call leaves.
    fn new<T: Number>(device: &'d Device) -> Written<'d> {
        let [n, d, v] = SIZES;
        let number = |shape: &[usize]| {
            let elements: usize = shape.iter().product();
            up(device, &vec![77f32; elements], shape)
        };
        let class = |shape: &[usize]| {
            let elements: usize = shape.iter().product();
            up(device, &vec![77i64; elements], shape)
        };
        let gradient =
            |shape: &[usize]| up(device, &vec![T::of(0.25); shape.iter().product()], shape);
        Written {
            device,
            numbers: [number(&[n]), number(&[n]), number(&[n]), number(&[n]), number(&[n, 5])],
            classes: [class(&[n]), class(&[n]), class(&[n, 5])],
            gradients: [gradient(&[n, d]), gradient(&[v, d]), gradient(&[v])],
        }
    }

    fn call(
        &mut self,
        loss: &LinearCrossEntropy<'_>,
        resident: &Resident,
        (given, accumulate): (&[Tensor; 3], bool),
    ) -> warploss::Result<()> {
        let [losses, lse, logprob, entropy, top] = &mut self.numbers;
        let [rank, argmax, classes] = &mut self.classes;
        let [x, w, b] = &mut self.gradients;
        let out = CrossEntropyOut {
            lse: Some(lse.view_mut()),
            rank: Some(rank.view_mut()),
            argmax: Some(argmax.view_mut()),
            logprob: Some(logprob.view_mut()),
            entropy: Some(entropy.view_mut()),
            top_k: Some(TopKOut { classes: classes.view_mut(), logprob: top.view_mut() }),
            ..CrossEntropyOut::loss(losses.view_mut())
        };
        let gradients = LinearGradOut {
            input: Some(x.view_mut()),
            linear_weight: Some(w.view_mut()),
            linear_bias: Some(b.view_mut()),
            accumulate,
            accumulate_input: accumulate,
            ..LinearGradOut::default()
        };
        let upstream = CrossEntropyUpstream {
            grad_output: GradOutput::Tensor(given[0].view()),
            grad_logprob: GradOutput::Tensor(given[1].view()),
            grad_entropy: GradOutput::Tensor(given[2].view()),
        };
        loss.forward_backward_into(self.device, &resident.input(true), upstream, gradients, out)
    }

    fn numbers(&self) -> Vec<Vec<f64>> {
        self.numbers.iter().map(host::<f32>).collect()
    }

    fn classes(&self) -> Vec<Vec<i64>> {
        let classes = |t: &Tensor| t.to_host().unwrap().as_slice::<i64>().unwrap().to_vec();
        self.classes.iter().map(classes).collect()
    }

    fn gradients<T: Number>(&self) -> Vec<Vec<f64>> {
        self.gradients.iter().map(host::<T>).collect()
    }
}

fn given(device: &Device) -> [Tensor; 3] {
    [20, 21, 22].map(|seed| {
        let numbers: Vec<f32> = numbers(seed, SIZES[0]).map(|x| x as f32).collect();
        up(device, &numbers, &[SIZES[0]])
    })
}

type Ignored = fn(usize) -> bool;
const SOME: [Ignored; 6] =
    [|_| false, |row| row % 2 == 0, |row| row < 30, |row| row >= 7, |row| row != 42, |_| true];

fn loss(budget: usize) -> LinearCrossEntropy<'static> {
    let options = CrossEntropy::default().reduction(Reduction::None).lse_square_scale(1e-3);
    LinearCrossEntropy::from(options).path(LinearPath::Chunked).max_workspace_bytes(budget)
}

#[test]
fn packed_rows_give_what_rows_in_their_order_do() {
    fn agree<T: Number>(budget: usize) {
        let device = card();
        let given = given(&device);
        for (ignored, accumulate) in SOME.into_iter().zip([false, true].into_iter().cycle()) {
            let data = data::<T>(ignored);
            let resident = Resident::new(&device, &data, false);
            let chunk = loss(budget).plan(&device, &resident.input(true), true).unwrap().chunk_rows;
            assert!((2..22).contains(&chunk), "{chunk}");
            let run = |skip: bool| {
                let mut written = Written::new::<T>(&device);
                let loss = loss(budget).skip_ignored(skip);
                written.call(&loss, &resident, (&given, accumulate)).unwrap();
                device.check().unwrap();
                written
            };
            let (packed, plain) = (run(true), run(false));
            // What a row has does not know where it was.
            assert_eq!(packed.numbers(), plain.numbers());
            assert_eq!(packed.classes(), plain.classes());
            let (packed, plain) = (packed.gradients::<T>(), plain.gradients::<T>());
            assert_eq!(packed[0], plain[0], "grad_input");
            // Sums in f32 of the same terms in another order, rounded once.
            near("grad_linear_weight", &packed[1], &plain[1], T::OFF);
            near("grad_linear_bias", &packed[2], &plain[2], T::OFF);
            for row in (0..SIZES[0]).filter(|&row| ignored(row)) {
                let left = if accumulate { 0.25 } else { 0.0 };
                assert!(packed[0][row * SIZES[1]..][..SIZES[1]].iter().all(|&g| g == left));
            }
        }
    }
    agree::<f32>(BUDGET);
    // With room for sums in f32.
    agree::<bf16>(120_000);
    agree::<f16>(120_000);
}

#[test]
fn what_is_past_the_rows_that_count_takes_no_launch() {
    let device = card();
    let given = given(&device);
    let chunk = {
        let data = data::<bf16>(SOME[0]);
        let resident = Resident::new(&device, &data, false);
        loss(BUDGET).plan(&device, &resident.input(true), true).unwrap().chunk_rows
    };
    assert!((2..12).contains(&chunk), "{chunk}");
    let mut of_chunks = Vec::new();
    for ignored in SOME {
        let data = data::<bf16>(ignored);
        let resident = Resident::new(&device, &data, false);
        let run = |skip: bool| {
            let mut written = Written::new::<bf16>(&device);
            let before = device.driver_calls().unwrap();
            written.call(&loss(BUDGET).skip_ignored(skip), &resident, (&given, false)).unwrap();
            let after = device.driver_calls().unwrap();
            let products = after.terms - before.terms;
            (after.launches - before.launches, after.waits - before.waits, products)
        };
        let (packed, plain) = (run(true), run(false));
        assert_eq!((packed.1, plain.1), (1, 0), "waits");
        let count = (0..SIZES[0]).filter(|&row| !ignored(row)).count();
        assert_eq!(packed.2 * SIZES[0] as u64, plain.2 * count as u64, "terms of products");
        of_chunks.push((count.div_ceil(chunk) as u64, packed.0));
    }
    // Of two calls with a chunk more or less; what ends a call may be a launch more where rows are left.
    let [(three, more), (two, fewer)] = [of_chunks[1], of_chunks[2]];
    assert_eq!((three, two), (3, 2), "{of_chunks:?}");
    let each = more - fewer;
    assert!(each >= 8, "{of_chunks:?}");
    for &(chunks, launches) in &of_chunks {
        assert!((launches + 2 * each).abs_diff(fewer + chunks * each) <= 1, "{of_chunks:?}");
    }
}

#[test]
fn a_graph_that_cannot_ask_gives_the_same_bits() {
    let device = card();
    let given = given(&device);
    for ignored in SOME {
        let data = data::<bf16>(ignored);
        let resident = Resident::new(&device, &data, false);
        // Both before the call, whose memory is then there for the graph's.
        let [mut asked, mut captured] = [(); 2].map(|()| Written::new::<bf16>(&device));
        asked.call(&loss(BUDGET), &resident, (&given, true)).unwrap();
        let graph = device.capture(|| captured.call(&loss(BUDGET), &resident, (&given, true)));
        graph.unwrap().replay().unwrap();
        assert_eq!(asked.numbers(), captured.numbers());
        assert_eq!(asked.classes(), captured.classes());
        assert_eq!(asked.gradients::<bf16>(), captured.gradients::<bf16>());
    }
}

#[test]
fn tiles_have_products_of_the_rows_that_count() {
    let device = card();
    for ignored in SOME {
        let data = data::<bf16>(ignored);
        let resident = Resident::new(&device, &data, false);
        let run = |skip: bool| {
            let loss = LinearCrossEntropy::default().path(LinearPath::Tiled).skip_ignored(skip);
            let before = device.driver_calls().unwrap();
            let got = loss.forward_backward(&device, &resident.input(true), 0.5).unwrap();
            let after = device.driver_calls().unwrap();
            let bias = got.linear_bias.as_ref().unwrap();
            let got = [&got.input, &got.linear_weight, bias].map(host::<bf16>);
            (after.terms - before.terms, after.waits - before.waits, got)
        };
        let (some, all) = (run(true), run(false));
        let count = (0..SIZES[0]).filter(|&row| !ignored(row)).count().max(1);
        assert_eq!(some.0 * SIZES[0] as u64, all.0 * count as u64, "terms of products");
        assert_eq!((some.1, all.1), (1, 0), "waits");
        for (some, all) in some.2.iter().zip(&all.2) {
            near("gradients", some, all, bf16::OFF);
        }
    }
}
