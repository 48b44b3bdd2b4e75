//! Three ways with rare classes: nothing, class weights, balanced batches with a closing phase.
//!
//! A softmax regression learns five classes, of which the first has 3000 samples and the last 20,
//! about as many steps each way, and is tested on 400 of each. Prints the recall of every class
//! (the share of its samples that are found), their mean, and the accuracy where classes are as
//! frequent as in training.

use warploss::balance::{
    BalancedSampler, ClassWeights, Phase, SamplerOptions, weights_from_counts,
};
use warploss::{CrossEntropy, CrossEntropyOut, Device, Result, TensorMut, TensorRef};

const COUNTS: [u64; CLASSES] = [3000, 800, 200, 60, 20];
const CLASSES: usize = 5;
const FEATURES: usize = 8;
const BATCH: usize = 64;
const LEARNING_RATE: f32 = 0.2;
/// The closing phase only nudges: the rare classes are not to be forgotten again.
const CLOSING_RATE: f32 = 0.01;

fn main() -> Result<()> {
    let device = Device::best();
    let mut random = Random(1);
    let centres = (0..CLASSES * FEATURES).map(|_| 0.8 * random.normal()).collect::<Vec<_>>();
    let train = Data::new(&COUNTS, &centres, &mut random);
    let test = Data::new(&[400; CLASSES], &centres, &mut random);
    let weights = weights_from_counts(&COUNTS, ClassWeights::inverse_frequency())?;

    let options = SamplerOptions::new(BATCH).seed(2).classes(CLASSES);
    let constant: fn(Phase) -> f32 = |_| LEARNING_RATE;
    let natural = (&options.clone().epochs(0).closing_epochs(32), constant);
    let closing: fn(Phase) -> f32 = |phase| match phase {
        Phase::Natural => CLOSING_RATE,
        _ => LEARNING_RATE,
    };
    let balanced = (&options.epochs(8).closing_epochs(2), closing);
    let plain = CrossEntropy::default();
    let weighted = CrossEntropy::default().weight(TensorRef::new(&weights, &[CLASSES])?);

    println!("recall of classes    0 (3000)  1 (800)  2 (200)  3 (60)  4 (20)   mean   accuracy");
    let mut means = [0.0; 3];
    for (i, (name, criterion, schedule)) in [
        ("plain", &plain, natural),
        ("class weights", &weighted, natural),
        ("balanced, closing", &plain, balanced),
    ]
    .into_iter()
    .enumerate()
    {
        let model = Model::train(&device, &train, criterion, schedule)?;
        let recall = model.recall(&test);
        let mean = recall.iter().sum::<f64>() / CLASSES as f64;
        let samples = COUNTS.iter().sum::<u64>() as f64;
        let found = recall.iter().zip(COUNTS).map(|(recall, n)| recall * n as f64);
        let accuracy = found.sum::<f64>() / samples;
        let [a, b, c, d, e] = recall;
        println!("{name:18} {a:10.2} {b:8.2} {c:8.2} {d:7.2} {e:7.2} {mean:7.3} {accuracy:9.3}");
        means[i] = mean;
    }
    let [plain, weighted, balanced] = means;
    assert!(weighted > plain + 0.05 && balanced > plain + 0.05, "rare classes were not helped");
    Ok(())
}

/// Rows of features, and the class of each.
struct Data {
    features: Vec<f32>,
    labels: Vec<u8>,
}

impl Data {
    /// Each class has a centre; a row is its class's centre with noise.
    fn new(counts: &[u64; CLASSES], centres: &[f32], random: &mut Random) -> Data {
        let mut data = Data { features: Vec::new(), labels: Vec::new() };
        for (class, (&count, centre)) in counts.iter().zip(centres.chunks(FEATURES)).enumerate() {
            for _ in 0..count {
                data.features.extend(centre.iter().map(|c| c + random.normal()));
                data.labels.push(class as u8);
            }
        }
        data
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.features[i * FEATURES..][..FEATURES]
    }
}

/// Logits = weights·features + bias; a class's bias stands behind its weights.
struct Model {
    weights: [[f32; FEATURES + 1]; CLASSES],
}

impl Model {
    fn train(
        device: &Device,
        data: &Data,
        criterion: &CrossEntropy<'_>,
        (options, rates): (&SamplerOptions, fn(Phase) -> f32),
    ) -> Result<Model> {
        let mut model = Model { weights: [[0.0; FEATURES + 1]; CLASSES] };
        let labels = TensorRef::new(&data.labels, &[data.labels.len()])?;
        let mut sampler = BalancedSampler::new(labels, options)?;
        let mut logits = vec![0.0; BATCH * CLASSES];
        let (mut batch, mut target, mut loss) = (Vec::new(), Vec::new(), [0.0]);
        loop {
            let rate = rates(sampler.phase());
            if !sampler.next_into(&mut batch) {
                return Ok(model);
            }
            target.clear();
            target.extend(batch.iter().map(|&i| data.labels[i]));
            for (z, &i) in logits.chunks_mut(CLASSES).zip(&batch) {
                z.copy_from_slice(&model.logits(data.row(i)));
            }
            criterion.forward_backward_in_place(
                device,
                TensorMut::new(&mut logits, &[batch.len(), CLASSES])?,
                TensorRef::new(&target, &[batch.len()])?,
                1.0,
                CrossEntropyOut::loss(TensorMut::new(&mut loss, &[])?),
            )?;
            for (gradient, &i) in logits.chunks(CLASSES).zip(&batch) {
                model.step(gradient, data.row(i), rate);
            }
        }
    }

    fn logits(&self, x: &[f32]) -> [f32; CLASSES] {
        self.weights.map(|w| w[FEATURES] + x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>())
    }

    fn step(&mut self, gradient: &[f32], x: &[f32], rate: f32) {
        for (g, w) in gradient.iter().zip(&mut self.weights) {
            w.iter_mut().zip(x.iter().chain(&[1.0])).for_each(|(w, x)| *w -= rate * g * x);
        }
    }

    /// The share of each class's rows whose largest logit is the class's.
    fn recall(&self, data: &Data) -> [f64; CLASSES] {
        let (mut found, mut of) = ([0.0; CLASSES], [0.0; CLASSES]);
        for (i, &class) in data.labels.iter().enumerate() {
            let logits = self.logits(data.row(i));
            let best = (0..CLASSES).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            of[usize::from(class)] += 1.0;
            found[usize::from(class)] += f64::from(best == Some(class.into()));
        }
        std::array::from_fn(|class| found[class] / of[class])
    }
}

/// Numbers that are the same on every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal: the sum of twelve uniform numbers, centred.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
}
