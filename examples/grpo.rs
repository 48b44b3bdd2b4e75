//! GRPO over hidden states: a policy learns by reward alone, without logits or a critic in memory.
//!
//! A policy draws groups of completions; what a completion is worth is how much better it did than its group. The
//! objective of a token has the clipped ratio to the policy that drew it, a penalty for leaving the reference
//! policy (the estimator k3) and a bonus for entropy:
//!
//! ```text
//! r = exp(logp − old)        k3 = exp(ref − logp) − (ref − logp) − 1
//! L = −min(r·A, clip(r, 1 ± ε)·A) + β·k3 − c·H
//! ```
//!
//! `LinearLogprobEntropy` gives logp and H; what L makes of them is the ten lines of `Objective`, whose derivatives
//! go back in one call. The policy here is one matrix over fixed embeddings of the token before; a model's last
//! layer is the same call, with a gradient for its hidden states.

use warploss::{
    Device, LinearGradOut, LinearInput, LinearLogprobEntropy, LogprobEntropyUpstream, Result,
    TensorMut, TensorRef,
};

const CLASSES: usize = 32;
const FEATURES: usize = 32;
const PROMPTS: usize = 8;
/// Completions of a prompt.
const GROUP: usize = 16;
const TOKENS: usize = 8;
const ROWS: usize = PROMPTS * GROUP * TOKENS;
const ROUNDS: usize = 40;
/// Steps on the same completions.
const UPDATES: usize = 4;
const LEARNING_RATE: f32 = 1.0;

fn main() -> Result<()> {
    let device = Device::best();
    let op = LinearLogprobEntropy::default();
    let mut random = Random(1);
    let embedding = (0..CLASSES * FEATURES).map(|_| random.normal()).collect::<Vec<_>>();
    let mut weight = vec![0.0f32; CLASSES * FEATURES];
    let reference = weight.clone();

    let (mut first, mut last, mut fell) = (f32::NAN, f32::NAN, 0);
    for round in 0..ROUNDS {
        let drawn = Rollout::new(&embedding, &weight, &mut random);
        let reward = drawn.rewards.iter().sum::<f32>() / drawn.rewards.len() as f32;
        // The policy that drew, and the one that is not to be left too far behind.
        let old = drawn.logprobs(&op, &device, &weight)?.0;
        let of_reference = drawn.logprobs(&op, &device, &reference)?.0;
        let objective = Objective { old, of_reference, advantage: drawn.advantages() };

        let mut losses = Vec::new();
        for update in 0..UPDATES {
            let (logp, entropy) = drawn.logprobs(&op, &device, &weight)?;
            let (loss, grad_logprob) = objective.of(&logp, &entropy);
            let upstream = LogprobEntropyUpstream {
                grad_logprob: TensorRef::new(&grad_logprob, &[ROWS])?.into(),
                grad_entropy: (-Objective::ENTROPY / ROWS as f32).into(),
            };
            let mut gradient = vec![0.0f32; weight.len()];
            let gradients = LinearGradOut {
                linear_weight: Some(TensorMut::new(&mut gradient, &[CLASSES, FEATURES])?),
                ..LinearGradOut::default()
            };
            op.backward_into(&device, &drawn.input(&weight)?, upstream, gradients)?;
            if (round, update) == (0, 1) {
                check(&gradient, &weight, |weight| {
                    let (logp, entropy) = drawn.logprobs(&op, &device, weight)?;
                    Ok(objective.of(&logp, &entropy).0)
                })?;
            }
            weight.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= LEARNING_RATE * g);
            losses.push(loss);
        }
        let (before, after) = (losses[0], losses[UPDATES - 1]);
        fell += usize::from(after < before);
        if round == 0 {
            first = reward;
        }
        last = reward;
        if round % 10 == 0 || round + 1 == ROUNDS {
            println!("round {round:2}  reward {reward:.3}  loss {before:+.4} to {after:+.4}");
        }
    }
    assert!(first < 0.6 && last > 0.85, "the reward did not rise: {first} to {last}");
    assert!(
        fell * 10 >= ROUNDS * 9,
        "steps on the same completions lower their loss: {fell} of {ROUNDS}"
    );
    Ok(())
}

/// What is known of each token when the policy has drawn it.
struct Objective {
    old: Vec<f32>,
    of_reference: Vec<f32>,
    advantage: Vec<f32>,
}

impl Objective {
    const CLIP: f32 = 0.2;
    const KL: f32 = 0.02;
    const ENTROPY: f32 = 0.001;

    /// The mean over tokens, and its derivative by each log-probability. That by each entropy is a number.
    fn of(&self, logp: &[f32], entropy: &[f32]) -> (f64, Vec<f32>) {
        let mut loss = 0.0;
        let mut gradient = Vec::new();
        for (i, (&logp, &entropy)) in logp.iter().zip(entropy).enumerate() {
            let (advantage, away) = (self.advantage[i], self.of_reference[i] - logp);
            let ratio = (logp - self.old[i]).exp();
            let clipped = ratio.clamp(1.0 - Self::CLIP, 1.0 + Self::CLIP);
            let gain = (ratio * advantage).min(clipped * advantage);
            let k3 = away.exp_m1() - away;
            loss += f64::from(-gain + Self::KL * k3 - Self::ENTROPY * entropy);
            // Beyond the clip nothing more is to be gained.
            let moves = ratio * advantage <= clipped * advantage;
            let of_gain = if moves { ratio * advantage } else { 0.0 };
            gradient.push((-of_gain - Self::KL * away.exp_m1()) / ROWS as f32);
        }
        (loss / ROWS as f64, gradient)
    }
}

/// Completions that a policy has drawn.
struct Rollout {
    /// The embedding of each token's predecessor.
    hidden: Vec<f32>,
    tokens: Vec<i64>,
    /// What each token was drawn at: completions differ in it.
    temperature: Vec<f32>,
    /// One a completion: the share of tokens that are odd after even, or even after odd.
    rewards: Vec<f32>,
}

impl Rollout {
    fn new(embedding: &[f32], weight: &[f32], random: &mut Random) -> Rollout {
        let (mut hidden, mut tokens, mut temperature) = (Vec::new(), Vec::new(), Vec::new());
        let mut rewards = Vec::new();
        for completion in 0..PROMPTS * GROUP {
            let tau = [0.8, 1.0, 1.2][completion % 3];
            let mut before = completion / GROUP;
            let mut right = 0;
            for _ in 0..TOKENS {
                let x = &embedding[before * FEATURES..][..FEATURES];
                let token = draw(x, weight, tau, random);
                right += usize::from((token + before) % 2 == 1);
                hidden.extend_from_slice(x);
                tokens.push(token as i64);
                temperature.push(tau);
                before = token;
            }
            rewards.push(right as f32 / TOKENS as f32);
        }
        Rollout { hidden, tokens, temperature, rewards }
    }

    /// How much better each token's completion did than its group, in the group's deviations.
    fn advantages(&self) -> Vec<f32> {
        let of_group = |rewards: &[f32]| {
            let mean = rewards.iter().sum::<f32>() / GROUP as f32;
            let square = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f32>() / GROUP as f32;
            let each = rewards.iter().map(|r| (r - mean) / (square.sqrt() + 1e-4));
            each.flat_map(|a| [a; TOKENS]).collect::<Vec<_>>()
        };
        self.rewards.chunks(GROUP).flat_map(of_group).collect()
    }

    fn input<'a>(&'a self, weight: &'a [f32]) -> Result<LinearInput<'a>> {
        let hidden = TensorRef::new(&self.hidden, &[ROWS, FEATURES])?;
        let weight = TensorRef::new(weight, &[CLASSES, FEATURES])?;
        let input = LinearInput::new(hidden, weight, TensorRef::new(&self.tokens, &[ROWS])?);
        Ok(input.temperature(TensorRef::new(&self.temperature, &[ROWS])?))
    }

    /// Log-probability and entropy of each token.
    fn logprobs(
        &self,
        op: &LinearLogprobEntropy,
        device: &Device,
        weight: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let out = op.forward(device, &self.input(weight)?)?;
        let own = |tensor: &warploss::Tensor| tensor.as_slice().unwrap_or(&[]).to_vec();
        Ok((own(&out.logprob), own(&out.entropy)))
    }
}

/// A token of the policy after `x`.
fn draw(x: &[f32], weight: &[f32], tau: f32, random: &mut Random) -> usize {
    let logit = |w: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() / tau;
    let z = weight.chunks(FEATURES).map(logit).collect::<Vec<_>>();
    let max = z.iter().fold(f32::NEG_INFINITY, |m, &z| m.max(z));
    let p = z.iter().map(|z| (z - max).exp()).collect::<Vec<_>>();
    let mut left = random.uniform() * p.iter().sum::<f32>();
    let drawn = p.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    drawn.unwrap_or(CLASSES - 1)
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
    let slope = (at(1e-3)? - at(-1e-3)?) / 2e-3;
    println!("slope by differences {slope:.6}, by the gradient {length:.6}");
    assert!((slope - length).abs() < 2e-3 * length, "the gradient is not the loss's");
    Ok(())
}

/// Numbers that are the same on every run (splitmix64).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal: the sum of twelve uniform numbers, centred.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}
