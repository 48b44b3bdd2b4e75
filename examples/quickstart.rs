//! The README's example: a loss and its gradient.

use warploss::{CrossEntropy, Device, Tensor, TensorRef};

fn main() -> warploss::Result<()> {
    let logits = Tensor::from_vec(vec![2.0f32, 1.0, 0.1, 0.5, 2.5, 0.0], &[2, 3])?;
    let target = TensorRef::new(&[0i64, 1], &[2])?;
    let loss = CrossEntropy::default().label_smoothing(0.1);
    // Consumes the logits: their memory comes back as the gradient.
    let result = loss.forward_backward(&Device::best(), logits, target, 1.0)?;
    println!("loss {}", result.output.loss.item()?);
    println!("gradient {:?}", result.grad_logits.as_slice::<f32>());
    Ok(())
}
