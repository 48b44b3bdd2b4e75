//! A project, read once: what the commands and the tests ask of it.

use crate::fault::Fault;
use crate::floors::Floors;
use crate::known::Known;
use crate::tree::Tree;
use crate::{order, table, tidy};
use std::path::{Path, PathBuf};

/// Rules of `order`.
pub const ORDER: [&str; 5] = ["read", "include", "arrow", "circle", "root"];
/// Rules of `tidy`.
pub const TIDY: [&str; 6] = ["long", "room", "orphan", "empty", "absent", "safety"];

/// A project.
#[derive(Debug)]
pub struct House {
    /// Its root.
    pub root: PathBuf,
    /// Its modules.
    pub tree: Tree,
    /// Its table of floors.
    pub floors: Floors,
    /// Its known faults.
    pub known: Known,
}

impl House {
    /// Reads a project.
    ///
    /// # Errors
    /// What is wrong with the table of floors or the list of known faults.
    pub fn read(root: &Path) -> Result<House, String> {
        let known = Known::read(root)?;
        let mut floors = Floors::read(root)?;
        known.settle(&mut floors);
        Ok(House { root: root.into(), tree: Tree::read(root), floors, known })
    }

    /// The project that this crate is a part of.
    pub fn root() -> PathBuf {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        own.parent().unwrap_or(own).into()
    }

    /// What is out of order.
    pub fn order(&self) -> Vec<Fault> {
        order::faults(&self.root, &self.tree, &self.floors)
    }

    /// What is untidy.
    pub fn tidy(&self) -> Vec<Fault> {
        tidy::faults(&self.root, &self.tree, &self.floors)
    }

    /// Whether the order is kept, but for what is known.
    ///
    /// # Errors
    /// A line a fault.
    pub fn keep_order(&self) -> Result<(), String> {
        self.known.compare(&self.order(), &ORDER)
    }

    /// Whether it is tidy, but for what is known.
    ///
    /// # Errors
    /// A line a fault.
    pub fn keep_tidy(&self) -> Result<(), String> {
        self.known.compare(&self.tidy(), &TIDY)
    }

    /// Whether what is written twice says the same.
    ///
    /// # Errors
    /// A line a fault.
    pub fn keep_tables(&self) -> Result<(), String> {
        let faults: Vec<String> = table::faults(self).iter().map(ToString::to_string).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }
}
