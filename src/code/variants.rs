//! The one table of kernels: what is compiled and what a launch looks up are both made of it.
//!
//! Used by the build script too, so it knows nothing of the rest of the crate
//! but the table of functors over elements.

// Paths of their own, as the build script has this file elsewhere in its tree.
#[path = "variants/batch.rs"]
mod batch;
#[path = "variants/data.rs"]
mod data;
#[path = "variants/elementwise.rs"]
mod elementwise;
#[path = "variants/entry.rs"]
mod entry;
#[path = "variants/loss.rs"]
mod loss;
#[path = "variants/module.rs"]
mod module;

pub(crate) use batch::{BATCH_THREADS, Batch};
pub(crate) use data::Data;
#[allow(unused_imports)] // Plans ask for it, the build script does not.
pub(crate) use data::PACK_BYTES;
pub(crate) use elementwise::{ELEMENT_THREADS, ElementEntry};
pub(crate) use entry::Entry;
pub(crate) use loss::Loss;
pub(crate) use module::Module;

use crate::spec::elementwise::functors::Functor;

/// One kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Variant {
    Row(Loss, Entry, Data),
    Element(Functor, ElementEntry, Data),
    Batch(Batch),
}

impl Variant {
    /// The table.
    pub(crate) fn all() -> Vec<Variant> {
        let mut all: Vec<Variant> = Batch::ALL.iter().map(|&b| Variant::Batch(b)).collect();
        for &loss in Loss::ALL {
            for entry in Entry::ALL.into_iter().filter(|&e| loss.has(e)) {
                let kinds = Data::ALL.into_iter().filter(|&data| loss.takes(data));
                all.extend(kinds.map(|data| Variant::Row(loss, entry, data)));
            }
        }
        for &functor in Functor::ALL {
            for entry in ElementEntry::ALL {
                all.extend(Data::ALL.map(|data| Variant::Element(functor, entry, data)));
            }
        }
        all
    }

    pub(crate) fn module(self) -> Module {
        match self {
            Variant::Row(loss, ..) => loss.module(),
            Variant::Element(functor, ..) => Module::OfElements(functor.file()),
            Variant::Batch(batch) => batch.module(),
        }
    }

    /// Whether the architecture has what the kernel needs.
    #[allow(dead_code)] // The build script's.
    pub(crate) fn runs_on(self, arch: u32) -> bool {
        arch >= 90 || !matches!(self, Variant::Row(_, Entry::Cluster, _))
    }

    /// The kernel's name in a compiled module.
    pub(crate) fn symbol(self) -> String {
        match self {
            Variant::Row(loss, entry, data) => {
                format!("{}_{}_{}", loss.symbol(), entry.symbol(), data.name())
            }
            Variant::Element(functor, entry, data) => elementwise::symbol(functor, entry, data),
            Variant::Batch(batch) => batch.body().into(),
        }
    }

    /// Most threads of a block, and blocks that a multiprocessor shall hold at the least.
    pub(crate) fn bounds(self) -> (u32, u32) {
        match self {
            Variant::Row(loss, entry, data) => {
                let (threads, blocks) = entry.bounds();
                // The options' terms need more registers than so many blocks leave, and so do
                // rows in registers beside targets, or a gradient beside a tensor of a larger type.
                let large = loss.wide()
                    || match entry {
                        Entry::FewForward | Entry::WarpForward => loss == Loss::SoftCrossEntropy,
                        Entry::FewGradient | Entry::WarpGradient => {
                            matches!(
                                loss,
                                Loss::SoftCrossEntropy
                                    | Loss::LogprobEntropy
                                    | Loss::CrossEntropyBiased
                            ) || loss.beside(data) > 1
                        }
                        // Four packs and what lies beside them are on their way at once.
                        Entry::Stream => loss == Loss::CrossEntropyBiased,
                        Entry::NeighboursForward | Entry::NeighboursGradient => {
                            loss.beside(data) > 0
                        }
                        _ => false,
                    };
                // A list of classes is as large as all else of a row together.
                let listing = loss == Loss::CrossEntropyTop
                    && matches!(entry, Entry::FewGradient | Entry::WarpGradient);
                (threads, blocks >> (u32::from(large) + u32::from(listing)))
            }
            Variant::Element(_, entry, _) => (ELEMENT_THREADS, entry.blocks()),
            // Tiles wait for memory alone, and more of them at once hide it.
            Variant::Batch(Batch::PermuteTiled) => (BATCH_THREADS, 4),
            // Options need more registers than two blocks leave.
            Variant::Batch(Batch::TileFullHiddenF16 | Batch::TileFullHiddenBf16) => {
                (BATCH_THREADS, 1)
            }
            // While one block waits for its tile, another multiplies.
            Variant::Batch(batch) if batch.module() == Module::LinearSoftmax => (BATCH_THREADS, 2),
            Variant::Batch(_) => (BATCH_THREADS, 1),
        }
    }

    /// The line that makes the kernel of its module's templates.
    pub(crate) fn instance(self) -> String {
        let (threads, blocks) = self.bounds();
        let body = match self {
            Variant::Row(loss, entry, data) => entry.body(&loss.functor(data)),
            Variant::Element(functor, entry, data) => elementwise::body(functor, entry, data),
            Variant::Batch(batch) => format!("{}_body", batch.body()),
        };
        let args = self.module().arguments();
        format!("WL_KERNEL({}, {args}, {threads}, {blocks}) {{ {body}(args); }}", self.symbol())
    }

    /// A translation unit of some kernels of one module.
    pub(crate) fn source(module: Module, variants: &[Variant]) -> String {
        let mut text = format!("#include \"{}\"\n", module.file());
        for variant in variants.iter().filter(|v| v.module() == module) {
            text.push_str(&variant.instance());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_names_of_their_own_and_a_module_has_them_all() {
        let all = Variant::all();
        let mut names: Vec<_> = all.iter().map(|v| v.symbol()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let mut files: Vec<_> = Module::all().iter().map(|m| m.name()).collect();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), Module::all().len());
        let units: String = Module::all().iter().map(|&m| Variant::source(m, &all)).collect();
        assert!(names.iter().all(|name| units.contains(&format!("WL_KERNEL({name},"))));
    }
}
