//! DPO over hidden states: a policy learns which of two answers is preferred, without logits in memory.
//!
//! With the log-probability of an answer, which is the sum of its tokens', by the policy and by the reference that
//! it started from, the loss of a pair is
//!
//! ```text
//! margin = (logp(chosen) − ref(chosen)) − (logp(rejected) − ref(rejected))
//! L = −log sigmoid(β·margin)
//! ```
//!
//! A token's log-probability has the gradient ∓β·sigmoid(−β·margin) of its answer: `Pairs::loss`, which one call of
//! `LinearLogprobEntropy` takes back to the classifier (and, in a model, to the hidden states). Answers have
//! different lengths; what pads them is ignored, and its hidden states are not read.

use warploss::{
    Device, LinearGradOut, LinearInput, LinearLogprobEntropy, LogprobEntropyUpstream, Result,
    TensorMut, TensorRef,
};

const CLASSES: usize = 64;
const FEATURES: usize = 24;
const PAIRS: usize = 32;
/// Tokens of an answer, at most.
const TOKENS: usize = 12;
const ROWS: usize = 2 * PAIRS * TOKENS;
const PADDING: i64 = -100;
const BETA: f64 = 0.1;
const STEPS: usize = 60;
const LEARNING_RATE: f32 = 2.0;

fn main() -> Result<()> {
    let device = Device::best();
    let op = LinearLogprobEntropy::default();
    let mut random = Random(1);
    let reference: Vec<f32> = (0..CLASSES * FEATURES).map(|_| 0.1 * random.normal()).collect();
    let pairs = Pairs::new(&mut random);
    // The reference does not change: its log-probabilities are made once.
    let of_reference = pairs.answers(&op, &device, &reference)?;

    let mut weight = reference;
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let answers = pairs.answers(&op, &device, &weight)?;
        let (loss, grad_logprob, right) = Pairs::loss(&answers, &of_reference);
        let upstream = LogprobEntropyUpstream {
            grad_logprob: TensorRef::new(&grad_logprob, &[ROWS])?.into(),
            ..LogprobEntropyUpstream::default()
        };
        let mut gradient = vec![0.0f32; weight.len()];
        let gradients = LinearGradOut {
            linear_weight: Some(TensorMut::new(&mut gradient, &[CLASSES, FEATURES])?),
            ..LinearGradOut::default()
        };
        op.backward_into(&device, &pairs.input(&weight)?, upstream, gradients)?;
        if step == 1 {
            check(&gradient, &weight, |weight| {
                let answers = pairs.answers(&op, &device, weight)?;
                Ok(Pairs::loss(&answers, &of_reference).0)
            })?;
        }
        weight.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= LEARNING_RATE * g);
        losses.push(loss);
        if step % 10 == 0 || step + 1 == STEPS {
            println!("step {step:2}  loss {loss:.4}  {right} of {PAIRS} preferences");
        }
    }
    let (first, last) = (losses[0], losses[STEPS - 1]);
    // At first the policy is the reference: ln 2.
    assert!((first - 2f64.ln()).abs() < 1e-6, "{first}");
    assert!(last < 0.2, "the loss did not fall: {first} to {last}");
    Ok(())
}

/// Pairs of answers: the chosen ones first, each with its tokens and their hidden states, then the rejected.
struct Pairs {
    hidden: Vec<f32>,
    tokens: Vec<i64>,
}

impl Pairs {
    /// Of a random model's hidden states; chosen answers have small tokens.
    fn new(random: &mut Random) -> Pairs {
        let mut pairs = Pairs { hidden: Vec::new(), tokens: Vec::new() };
        for answer in 0..2 * PAIRS {
            let length = TOKENS / 2 + random.below(TOKENS / 2 + 1);
            for at in 0..TOKENS {
                let small = random.below(CLASSES / 2) as i64;
                let token = if answer < PAIRS { small } else { CLASSES as i64 - 1 - small };
                let kept = at < length;
                pairs.tokens.push(if kept { token } else { PADDING });
                // One that is always on, for a bias; padding holds what nobody is to see.
                pairs.hidden.push(if kept { 1.0 } else { f32::NAN });
                pairs.hidden.extend((1..FEATURES).map(|_| random.normal()));
            }
        }
        pairs
    }

    fn input<'a>(&'a self, weight: &'a [f32]) -> Result<LinearInput<'a>> {
        let hidden = TensorRef::new(&self.hidden, &[ROWS, FEATURES])?;
        let weight = TensorRef::new(weight, &[CLASSES, FEATURES])?;
        Ok(LinearInput::new(hidden, weight, TensorRef::new(&self.tokens, &[ROWS])?))
    }

    /// The log-probability of each answer.
    fn answers(
        &self,
        op: &LinearLogprobEntropy,
        device: &Device,
        weight: &[f32],
    ) -> Result<Vec<f64>> {
        let tokens = op.forward(device, &self.input(weight)?)?.logprob;
        let tokens = tokens.as_slice::<f32>().unwrap_or(&[]);
        let sum = |tokens: &[f32]| tokens.iter().map(|&logp| f64::from(logp)).sum();
        Ok(tokens.chunks(TOKENS).map(sum).collect())
    }

    /// The mean over pairs, its derivative by each token's log-probability, and how many pairs are right.
    fn loss(answers: &[f64], of_reference: &[f64]) -> (f64, Vec<f32>, usize) {
        let away = |answer: usize| answers[answer] - of_reference[answer];
        let (mut loss, mut right) = (0.0, 0);
        let mut gradient = vec![0.0; ROWS];
        for pair in 0..PAIRS {
            let margin = away(pair) - away(PAIRS + pair);
            right += usize::from(margin > 0.0);
            loss += (-BETA * margin).exp().ln_1p() / PAIRS as f64;
            let slope = BETA / (1.0 + (BETA * margin).exp()) / PAIRS as f64;
            for (answer, slope) in [(pair, -slope), (PAIRS + pair, slope)] {
                gradient[answer * TOKENS..][..TOKENS].fill(slope as f32);
            }
        }
        (loss, gradient, right)
    }
}

/// The slope of the loss along its gradient is the gradient's length.
fn check(gradient: &[f32], weight: &[f32], loss: impl Fn(&[f32]) -> Result<f64>) -> Result<()> {
    let length = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let at = |step: f64| {
        let moved = gradient.iter().zip(weight);
        let moved: Vec<f32> =
            moved.map(|(&g, &w)| (f64::from(w) + step * f64::from(g) / length) as f32).collect();
        loss(&moved)
    };
    let slope = (at(1e-2)? - at(-1e-2)?) / 2e-2;
    println!("slope by differences {slope:.6}, by the gradient {length:.6}");
    assert!((slope - length).abs() < 2e-3 * length, "the gradient is not the loss's");
    Ok(())
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

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// About normal: the sum of twelve uniform numbers, centred.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
}
