//! Cross entropy of a vocabulary in shards: its public calls; what they compute:
//! `spec/row_state.rs` and `spec/cross_entropy.rs`.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::tensor::{Tensor, TensorMut, TensorRef};
use crate::base::validate;
use crate::device::Device;
use crate::spec::cross_entropy::{
    CheckedShard, CrossEntropy, CrossEntropyOut, CrossEntropyOutput, ShardCall,
};
use crate::spec::grad_output::GradOutput;
use crate::spec::row_state::{Merge, RowState, Vocabulary, shape};

impl RowState {
    /// States of neighbouring shards, in the order of their columns, as one: their numbers side by
    /// side. Parts may be merged in any grouping.
    ///
    /// # Errors
    /// Parts that are not neighbours in this order, or not of the same rows and options; out of memory.
    pub fn merge(device: &Device, parts: &[&RowState]) -> Result<RowState> {
        let (vocabulary, record) = RowState::joined(parts)?;
        let rows = parts[0].rows;
        let shape = shape(rows, &record);
        let values = device.zeros("state", DType::F32, shape, &parts[0].values())?;
        let mut state = RowState { values, rows, vocabulary, record };
        state.put_together(device, parts)?;
        Ok(state)
    }

    /// As [`RowState::merge`], over a state of the same rows, columns and options that an earlier call
    /// has made; allocates no tensor.
    ///
    /// # Errors
    /// As `merge`, and a state of others; nothing is written then.
    pub fn merge_into(device: &Device, parts: &[&RowState], state: &mut RowState) -> Result<()> {
        let (vocabulary, record) = RowState::joined(parts)?;
        state.check_is((vocabulary, record), parts[0].rows)?;
        state.put_together(device, parts)
    }

    /// Of parts that are together what this is.
    fn put_together(&mut self, device: &Device, parts: &[&RowState]) -> Result<()> {
        let places: Vec<_> =
            parts.iter().copied().chain([&*self]).map(|part| part.values().place()).collect();
        let parts = parts.iter().map(|part| (part.values.view(), part.record.blocks)).collect();
        let merge = Merge { rows: self.rows.iter().product(), record: self.record, parts };
        device.backend("parts", &places)?.merge_states(&merge, self.values.view_mut())
    }
}

impl CrossEntropy<'_> {
    /// What a shard's logits say of every row: the first step where no device has them all.
    ///
    /// `logits` are `[N, len, d1, …]` with the columns of `vocabulary`; target and
    /// [`CrossEntropy::weight`] are those of [`CrossEntropy::forward`] over the whole vocabulary, the
    /// same on every shard. Then [`RowState::merge`], [`CrossEntropy::finish`] for the loss, and
    /// [`CrossEntropy::backward_shard`] for the gradient of each shard. Results do not depend on the
    /// number of shards, to the bit.
    ///
    /// ```
    /// use warploss::{CrossEntropy, Device, RowState, TensorRef, Vocabulary};
    /// let device = Device::cpu();
    /// let logits: Vec<f32> = (0..6000).map(|i| (i % 7) as f32).collect();
    /// let target = [5000i64];
    /// let target = TensorRef::new(&target, &[1])?;
    /// let loss = CrossEntropy::default();
    /// let mut states = Vec::new();
    /// for shard in Vocabulary::shards(6000, 2) {
    ///     let logits = TensorRef::new(&logits[shard.first..][..shard.len], &[1, shard.len])?;
    ///     states.push(loss.partial(&device, logits, target, shard)?);
    /// }
    /// let state = RowState::merge(&device, &states.iter().collect::<Vec<_>>())?;
    /// let whole = loss.forward(&device, TensorRef::new(&logits, &[1, 6000])?, target)?;
    /// assert_eq!(loss.finish(&device, &state, target)?, whole);
    /// # Ok::<(), warploss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`], and a vocabulary whose borders are not those of blocks.
    pub fn partial(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        vocabulary: Vocabulary,
    ) -> Result<RowState> {
        let checked = self.check_shard(&logits, &target, vocabulary)?;
        let (rows, record) = (checked.whole.rows, checked.record);
        let values = device.zeros("state", DType::F32, shape(rows, &record), &logits)?;
        let mut state = RowState { values, rows, vocabulary, record };
        self.partial_into(device, logits, target, &mut state)?;
        Ok(state)
    }

    /// As [`CrossEntropy::partial`], over a state of the same rows, columns and options that an earlier
    /// call has made; allocates nothing.
    ///
    /// # Errors
    /// As `partial`; nothing is written then.
    pub fn partial_into(
        &self,
        device: &Device,
        logits: TensorRef<'_>,
        target: TensorRef<'_>,
        state: &mut RowState,
    ) -> Result<()> {
        let checked = self.check_shard(&logits, &target, state.vocabulary)?;
        checked.check_rows(state)?;
        let backend = device.backend("logits", &[logits.place(), state.values().place()])?;
        let state = state.values.view_mut();
        backend.cross_entropy_shard(&checked, ShardCall::Partial { logits, state })
    }

    /// Loss, log-sum-exp and z-loss from the merged state of the whole vocabulary: the values of
    /// [`CrossEntropy::forward`], on the CPU (of more than 256 classes) its bits.
    ///
    /// # Errors
    /// A state of other rows or options, or not of all classes; what breaks the rules of `forward`.
    pub fn finish(
        &self,
        device: &Device,
        state: &RowState,
        target: TensorRef<'_>,
    ) -> Result<CrossEntropyOutput> {
        let checked = self.check_state(state, &target)?;
        let mut output = checked.allocate(device, &state.values())?;
        self.finish_into(device, state, target, output.out())?;
        Ok(output)
    }

    /// As [`CrossEntropy::finish`], into the caller's buffers; allocates nothing. A state does not say
    /// how classes rank.
    ///
    /// # Errors
    /// As `finish`; nothing is written then.
    pub fn finish_into(
        &self,
        device: &Device,
        state: &RowState,
        target: TensorRef<'_>,
        out: CrossEntropyOut<'_>,
    ) -> Result<()> {
        let checked = self.check_state(state, &target)?;
        checked.check_out(&out)?;
        let state = state.values();
        let backend = device.backend("state", &[state.place()])?;
        backend.cross_entropy_shard(&checked, ShardCall::Finish { state, out })
    }

    /// Gradient with respect to a shard's logits, from the merged state of the whole vocabulary.
    ///
    /// # Errors
    /// As [`CrossEntropy::partial`] and [`CrossEntropy::finish`], and the shape of `grad_output`.
    pub fn backward_shard<'g>(
        &self,
        device: &Device,
        (logits, vocabulary): (TensorRef<'_>, Vocabulary),
        target: TensorRef<'_>,
        state: &RowState,
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<Tensor> {
        let mut grad = device.zeros("grad_logits", logits.dtype(), logits.shape(), &logits)?;
        let (shard, saved) = ((logits, vocabulary), (target, state));
        self.backward_shard_into(device, shard, saved, grad_output, grad.view_mut())?;
        Ok(grad)
    }

    /// As [`CrossEntropy::backward_shard`], into `grad_logits` (the logits' shape and dtype, its own row
    /// stride); allocates nothing. `saved` is the target and the state.
    ///
    /// # Errors
    /// As `backward_shard`; nothing is written then.
    pub fn backward_shard_into<'g>(
        &self,
        device: &Device,
        (logits, vocabulary): (TensorRef<'_>, Vocabulary),
        (target, state): (TensorRef<'_>, &RowState),
        grad_output: impl Into<GradOutput<'g>>,
        grad_logits: TensorMut<'_>,
    ) -> Result<()> {
        let checked = self.check_shard(&logits, &target, vocabulary)?;
        let grad_output = grad_output.into();
        checked.check_backward(state, &grad_output)?;
        let grad = grad_logits.as_ref();
        validate::like("grad_logits", &grad, &logits, "the logits'")?;
        let state = state.values();
        let places = [logits.place(), grad.place(), state.place()];
        let backend = device.backend("logits", &places)?;
        let call = ShardCall::Backward { logits, state, grad_output, grad_logits };
        backend.cross_entropy_shard(&checked, call)
    }

    /// As [`CrossEntropy::backward_shard_into`], **overwriting the logits** with their gradient.
    ///
    /// # Errors
    /// As `backward_shard`; nothing is written then.
    pub fn backward_shard_in_place<'g>(
        &self,
        device: &Device,
        (logits, vocabulary): (TensorMut<'_>, Vocabulary),
        (target, state): (TensorRef<'_>, &RowState),
        grad_output: impl Into<GradOutput<'g>>,
    ) -> Result<()> {
        let checked = self.check_shard(&logits.as_ref(), &target, vocabulary)?;
        let grad_output = grad_output.into();
        checked.check_backward(state, &grad_output)?;
        let state = state.values();
        let backend = device.backend("logits", &[logits.as_ref().place(), state.place()])?;
        let call = ShardCall::BackwardInPlace { logits, state, grad_output };
        backend.cross_entropy_shard(&checked, call)
    }
}

impl CheckedShard<'_> {
    fn allocate(&self, device: &Device, beside: &TensorRef<'_>) -> Result<CrossEntropyOutput> {
        let f32_zeros = |name, shape| device.zeros(name, DType::F32, shape, beside);
        Ok(CrossEntropyOutput {
            loss: f32_zeros("loss", self.whole.loss_shape())?,
            lse: f32_zeros("lse", self.whole.rows)?,
            z_loss: f32_zeros("z_loss", self.whole.loss_shape())?,
        })
    }
}
