//! How the tensors of a call lie, and what they hold.

use warploss::check::elementwise::{Domain, ElementLoss};
use warploss::{Device, Element, Tensor, TensorMut, TensorRef};

/// A shape and its row stride.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout(pub(super) &'static [usize], pub(super) usize);

impl Layout {
    pub(super) fn dense(shape: &'static [usize]) -> Layout {
        Layout(shape, shape.iter().skip(1).product())
    }

    /// Elements of a buffer that holds it.
    pub(super) fn len(self) -> usize {
        match self.0 {
            [] => 1,
            [rows, rest @ ..] => match rows * rest.iter().product::<usize>() {
                0 => 0,
                _ => (rows - 1) * self.1 + rest.iter().product::<usize>(),
            },
        }
    }
}

/// Layouts of a call; the gradients lie a little wider than their tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) x: Layout,
    pub(super) y: Layout,
    pub(super) weight: Option<Layout>,
    pub(super) third: Option<Layout>,
    /// Elements between rows of the gradients beyond those of their tensors.
    pub(super) wider: [usize; 2],
}

impl Case {
    pub(super) const fn new(x: Layout, y: Layout) -> Case {
        Case { x, y, weight: None, third: None, wider: [0, 0] }
    }

    pub(super) fn equal(self) -> bool {
        self.x.0 == self.y.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    Forward,
    Backward([bool; 2]),
    Fused([bool; 2]),
    InPlace,
}

pub(super) const PASSES: [Pass; 6] = [
    Pass::Forward,
    Pass::Backward([true, true]),
    Pass::Backward([false, true]),
    Pass::Fused([true, false]),
    Pass::Fused([true, true]),
    Pass::InPlace,
];

pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    /// In [0, 1).
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    pub(super) fn pick(&mut self, of: &[f32]) -> f32 {
        of[(self.next() * of.len() as f32) as usize]
    }

    pub(super) fn many(&mut self, n: usize, mut make: impl FnMut(&mut Numbers) -> f32) -> Vec<f32> {
        (0..n).map(|_| make(self)).collect()
    }
}

/// x and y; `wild`: with values that are not finite, or large, or equal, or on the edge.
pub(super) fn data(loss: ElementLoss, case: &Case, wild: bool) -> [Vec<f32>; 2] {
    let mut numbers = Numbers(case.x.len() as u64 * 31 + case.y.len() as u64 + 7);
    let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e4, -1e4, 0.0, 1.0, -1.0, 0.7];
    // What is no probability is an error.
    let odd_x = match loss.of().input {
        Domain::Probabilities => [f32::NAN, 0.0, -0.0, 1.0, 1e-7, 1e-30, 0.999_999_9, 0.5, 0.7],
        _ => odd,
    };
    let x = numbers.many(case.x.len(), |n| {
        let plain = match loss.of().input {
            Domain::Logarithms => -12.0 * n.next(),
            Domain::Probabilities => n.next(),
            Domain::Any | Domain::Signs | Domain::Counts => (n.next() - 0.5) * 8.0,
        };
        if wild && n.next() < 0.3 { n.pick(&odd_x) } else { plain }
    });
    let y = numbers.many(case.y.len(), |n| {
        let plain = match loss.target() {
            Domain::Probabilities => n.next(),
            Domain::Logarithms => -9.0 * n.next(),
            Domain::Signs => n.pick(&[-1.0, 1.0]),
            Domain::Counts => (9.0 * n.next()).floor(),
            Domain::Any => (n.next() - 0.5) * 8.0,
        };
        if wild && n.next() < 0.3 { n.pick(&odd) } else { plain }
    });
    [x, y]
}

pub(super) fn up<T: Element + Copy>(device: &Device, v: &[f32], of: fn(f32) -> T) -> Tensor {
    let v: Vec<T> = v.iter().map(|&v| of(v)).collect();
    device.upload(TensorRef::new(&v, &[v.len()]).unwrap()).unwrap()
}

pub(super) fn view(tensor: &Tensor, layout: Layout) -> TensorRef<'_> {
    tensor.view_as(layout.0, layout.1.max(1)).unwrap()
}

pub(super) fn view_mut(tensor: &mut Tensor, layout: Layout) -> TensorMut<'_> {
    tensor.view_as_mut(layout.0, layout.1.max(1)).unwrap()
}

/// A weight as its layout says.
pub(super) fn seen(weight: &Option<(Tensor, Layout)>) -> Option<TensorRef<'_>> {
    weight.as_ref().map(|(weight, layout)| view(weight, *layout))
}
