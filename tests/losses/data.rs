//! Typed buffers as a trainer would own them, and what to fill them with.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use warploss::{DType, Device, Tensor, TensorMut, TensorRef, bf16, f16};

/// A tensor in a buffer of its own; between rows, and where nothing was written yet, lies poison.
#[derive(Clone, PartialEq)]
pub(crate) struct Data {
    buffer: Buffer,
    shape: Vec<usize>,
    row_stride: usize,
    resident: Resident,
}

/// The buffer's copy on a device, once something asked for it there. A clone has none.
#[derive(Default)]
struct Resident(OnceCell<Tensor>);

impl Clone for Resident {
    fn clone(&self) -> Self {
        Resident::default()
    }
}

impl PartialEq for Resident {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

thread_local! {
    /// Where this thread's data is seen: on the host, or on a device.
    static PLACE: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Runs `work` with all data on `device`: views are of copies there, padding and all, and what is
/// read comes from there. One device for all: a copy is made once.
pub(crate) fn on_device<R>(device: &Device, work: impl FnOnce() -> R) -> R {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            PLACE.set(None);
        }
    }
    PLACE.set(Some(device.clone()));
    let _back = Back;
    work()
}

#[derive(Clone, PartialEq)]
enum Buffer {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

macro_rules! each {
    ($buffer:expr, $vec:ident => $body:expr) => {
        match $buffer {
            Buffer::F32($vec) => $body,
            Buffer::F16($vec) => $body,
            Buffer::BF16($vec) => $body,
            Buffer::I64($vec) => $body,
            Buffer::I32($vec) => $body,
            Buffer::U32($vec) => $body,
            Buffer::U8($vec) => $body,
        }
    };
}

// NaNs that no arithmetic makes, so that a write of any other NaN shows.
const POISON_F32: f32 = f32::from_bits(0x7fc0_dead);
const POISON_F16: f16 = f16::from_bits(0x7e5a);
const POISON_BF16: bf16 = bf16::from_bits(0x7fda);

/// The dtypes of data.
pub(crate) const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

impl Data {
    /// Floats rounded to `dtype`.
    pub(crate) fn floats(dtype: DType, shape: &[usize], values: &[f64]) -> Data {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let buffer = match dtype {
            DType::F32 => Buffer::F32(values.iter().map(|&v| v as f32).collect()),
            DType::F16 => Buffer::F16(values.iter().map(|&v| f16::from_f64(v)).collect()),
            DType::BF16 => Buffer::BF16(values.iter().map(|&v| bf16::from_f64(v)).collect()),
            other => panic!("{other} is no float"),
        };
        Data::contiguous(buffer, shape)
    }

    /// Class indices; each must fit `dtype`.
    pub(crate) fn indices(dtype: DType, shape: &[usize], values: &[i64]) -> Data {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        fn all<T: TryFrom<i64>>(values: &[i64]) -> Vec<T> {
            let fit = |&v| T::try_from(v).unwrap_or_else(|_| panic!("{v} does not fit"));
            values.iter().map(fit).collect()
        }
        let buffer = match dtype {
            DType::I64 => Buffer::I64(all(values)),
            DType::I32 => Buffer::I32(all(values)),
            DType::U32 => Buffer::U32(all(values)),
            DType::U8 => Buffer::U8(all(values)),
            other => panic!("{other} is no index"),
        };
        Data::contiguous(buffer, shape)
    }

    /// Floats not yet written: what an output is before a call.
    pub(crate) fn poison(dtype: DType, shape: &[usize]) -> Data {
        let nans = vec![f64::NAN; shape.iter().product()];
        let mut data = Data::floats(dtype, shape, &nans);
        match &mut data.buffer {
            Buffer::F32(v) => v.fill(POISON_F32),
            Buffer::F16(v) => v.fill(POISON_F16),
            Buffer::BF16(v) => v.fill(POISON_BF16),
            _ => unreachable!("floats makes floats"),
        }
        data
    }

    fn contiguous(buffer: Buffer, shape: &[usize]) -> Data {
        let row_stride = shape.iter().skip(1).product();
        Data { buffer, shape: shape.to_vec(), row_stride, resident: Resident::default() }
    }

    /// The same floats in rows that are `padding` elements longer; the padding is poison.
    pub(crate) fn padded(self, padding: usize) -> Data {
        fn spread<T: Copy>(old: Vec<T>, row: usize, stride: usize, poison: T) -> Vec<T> {
            let rows = old.len().checked_div(row).unwrap_or(0);
            let at = |i: usize| {
                if i % stride < row { old[i / stride * row + i % stride] } else { poison }
            };
            (0..rows * stride).map(at).collect()
        }
        let (row, stride) = (self.row_stride, self.row_stride + padding);
        if self.shape.is_empty() {
            return self;
        }
        let buffer = match self.buffer {
            Buffer::F32(v) => Buffer::F32(spread(v, row, stride, POISON_F32)),
            Buffer::F16(v) => Buffer::F16(spread(v, row, stride, POISON_F16)),
            Buffer::BF16(v) => Buffer::BF16(spread(v, row, stride, POISON_BF16)),
            other => other,
        };
        Data { buffer, shape: self.shape, row_stride: stride, resident: Resident::default() }
    }

    pub(crate) fn dtype(&self) -> DType {
        self.flat().dtype()
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The whole buffer on the host.
    fn flat(&self) -> TensorRef<'_> {
        each!(&self.buffer, v => TensorRef::new(v, &[v.len()])).expect("a buffer")
    }

    /// Where it is to be seen on a device: the copy there.
    fn there(&self) -> Option<&Tensor> {
        PLACE.with_borrow(|place| {
            let device = place.as_ref()?;
            Some(self.resident.0.get_or_init(|| device.upload(self.flat()).expect("an upload")))
        })
    }

    pub(crate) fn view(&self) -> TensorRef<'_> {
        let view = match self.there() {
            Some(tensor) => tensor.view_as(&self.shape, self.row_stride),
            None => {
                each!(&self.buffer, v => TensorRef::with_row_stride(v, &self.shape, self.row_stride))
            }
        };
        view.expect("a buffer that fits its shape")
    }

    pub(crate) fn view_mut(&mut self) -> TensorMut<'_> {
        let there = self.there().is_some();
        let view = match self.resident.0.get_mut() {
            Some(tensor) if there => tensor.view_as_mut(&self.shape, self.row_stride),
            _ => {
                each!(&mut self.buffer, v => TensorMut::with_row_stride(v, &self.shape, self.row_stride))
            }
        };
        view.expect("a buffer that fits its shape")
    }

    /// The elements as an owned tensor, without padding.
    pub(crate) fn tensor(&self) -> Tensor {
        let row: usize = self.shape.iter().skip(1).product();
        let n = self.shape.iter().product();
        let at = |i: usize| i / row * self.row_stride + i % row;
        let host = each!(&self.buffer, v => {
            Tensor::from_vec((0..n).map(|i| v[at(i)]).collect(), &self.shape)
        });
        let host = host.expect("as many elements as the shape has");
        PLACE.with_borrow(|place| match place {
            Some(device) => device.upload(host.view()).expect("an upload"),
            None => host,
        })
    }

    /// The elements, widened, without padding.
    pub(crate) fn values(&self) -> Vec<f64> {
        self.view().to_f64().expect("host memory")
    }

    /// Every bit of the buffer, padding included.
    pub(crate) fn bits(&self) -> Vec<u64> {
        fn all<T: warploss::Element, R>(t: &Tensor, of: impl Fn(&[T]) -> R) -> Option<R> {
            t.as_slice::<T>().map(of)
        }
        if let Some(tensor) = self.there() {
            let host = tensor.to_host().expect("a copy");
            return all::<f32, _>(&host, |v| v.iter().map(|x| x.to_bits().into()).collect())
                .or_else(|| {
                    all::<f16, _>(&host, |v| v.iter().map(|x| x.to_bits().into()).collect())
                })
                .or_else(|| {
                    all::<bf16, _>(&host, |v| v.iter().map(|x| x.to_bits().into()).collect())
                })
                .expect("only floats are written");
        }
        match &self.buffer {
            Buffer::F32(v) => v.iter().map(|x| x.to_bits().into()).collect(),
            Buffer::F16(v) => v.iter().map(|x| x.to_bits().into()).collect(),
            Buffer::BF16(v) => v.iter().map(|x| x.to_bits().into()).collect(),
            Buffer::I64(v) => v.iter().map(|&x| x as u64).collect(),
            Buffer::I32(v) => v.iter().map(|&x| x as u64).collect(),
            Buffer::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Buffer::U8(v) => v.iter().map(|&x| x.into()).collect(),
        }
    }

    /// Panics where something lies between rows that was not there before.
    pub(crate) fn assert_padding_is_poison(&self, what: &str) {
        let poison = match self.dtype() {
            DType::F32 => u64::from(POISON_F32.to_bits()),
            DType::F16 => u64::from(POISON_F16.to_bits()),
            _ => u64::from(POISON_BF16.to_bits()),
        };
        let row: usize = self.shape.iter().skip(1).product();
        for (i, bits) in self.bits().into_iter().enumerate() {
            let padding = self.row_stride > row && i % self.row_stride >= row;
            assert!(!padding || bits == poison, "{what}: padding written at {i} of the buffer");
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values();
        let (shape, stride) = (&self.shape, self.row_stride);
        write!(f, "{} {shape:?} row stride {stride} ", self.dtype())?;
        write!(
            f,
            "{:?}{}",
            &values[..values.len().min(12)],
            if values.len() > 12 { "…" } else { "" }
        )
    }
}

/// SplitMix64: the same numbers everywhere, from a seed that a failure prints.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    /// About normal: a sum of uniforms, variance 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    pub(crate) fn normals(&mut self, n: usize, scale: f64) -> Vec<f64> {
        (0..n).map(|_| scale * self.normal()).collect()
    }
}

/// What logits look like. Tame ones prove little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Logits {
    /// Normal, standard deviation 3.
    Normal,
    /// The same, far from 0: an offset that must not cost digits.
    Offset(f64),
    /// Nearly one-hot: differences of 30 and more.
    Confident,
    /// Few distinct values, so that the maximum occurs many times.
    Ties,
    /// ±1e30 among normal ones: infinite in f16.
    Huge,
    /// Near the largest f32, of both signs: differences overflow.
    Extremes,
    /// A third of them −∞.
    Masked,
    /// The first half of every line in memory order −∞: whole leading blocks.
    MaskedFront,
    /// A few rows' worth of −∞, +∞ and NaN.
    Broken,
}

impl Logits {
    pub(crate) const ALL: [Logits; 10] = [
        Logits::Normal,
        Logits::Offset(1e4),
        Logits::Offset(-1e4),
        Logits::Confident,
        Logits::Ties,
        Logits::Huge,
        Logits::Extremes,
        Logits::Masked,
        Logits::MaskedFront,
        Logits::Broken,
    ];

    /// `rows` lines of `classes` values, row after row.
    pub(crate) fn values(self, rng: &mut Rng, rows: usize, classes: usize) -> Vec<f64> {
        let mut values = Vec::with_capacity(rows * classes);
        for _ in 0..rows {
            for class in 0..classes {
                values.push(self.value(rng, class, classes));
            }
        }
        values
    }

    fn value(self, rng: &mut Rng, class: usize, classes: usize) -> f64 {
        let normal = 3.0 * rng.normal();
        let dice = rng.unit();
        match self {
            Logits::Normal => normal,
            Logits::Offset(offset) => normal + offset,
            Logits::Confident if dice < 0.1 => normal + 40.0,
            Logits::Confident => normal,
            Logits::Ties => (dice * 3.0).floor(),
            Logits::Huge if dice < 0.2 => 1e30_f64.copysign(normal),
            Logits::Huge => normal,
            Logits::Extremes => 3e38_f64.copysign(normal),
            Logits::Masked if dice < 0.33 => f64::NEG_INFINITY,
            Logits::Masked => normal,
            Logits::MaskedFront if class < classes / 2 => f64::NEG_INFINITY,
            Logits::MaskedFront => normal,
            // Rare enough that some lines stay whole.
            Logits::Broken if dice < 0.5 / classes as f64 => match rng.below(3) {
                0 => f64::NEG_INFINITY,
                1 => f64::INFINITY,
                _ => f64::NAN,
            },
            Logits::Broken => normal,
        }
    }
}
