//! The crate as its `mod` declarations make it: modules, what their scopes hold, and every path.

use crate::fault::Fault;
use crate::read;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// All modules of a package, and all paths in them.
#[derive(Debug, Default)]
pub struct Tree {
    /// The files that were read.
    pub files: Vec<File>,
    /// Modules, a parent before its children.
    pub modules: Vec<Module>,
    /// Paths, as they stand there.
    pub paths: Vec<Mention>,
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// The library's root module and its name.
    pub library: Option<(usize, String)>,
}

/// A file of the tree.
#[derive(Debug)]
pub struct File {
    /// From the root of the project.
    pub path: String,
    /// Whether it is for tests alone.
    pub test: bool,
    /// Its text.
    pub text: String,
    /// Its outermost module.
    pub module: usize,
}

/// A module: a file, or a block in one.
#[derive(Debug)]
pub struct Module {
    /// Its name; `crate` for a root.
    pub name: String,
    /// The module that it is of.
    pub parent: Option<usize>,
    /// The file that it is in.
    pub file: usize,
    /// What its names stand for.
    pub scope: HashMap<String, Vec<Name>>,
    /// Modules or types all of whose names are in scope.
    pub globs: Vec<Vec<String>>,
    /// Words that macros are given or made of at the level of items: what these may define.
    pub words: HashSet<String>,
    /// Whether it includes a file that a build makes, with who knows what names.
    pub includes: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A module.
    Module(usize),
    /// What is defined there.
    Item,
    /// What a `use` brings.
    Import {
        /// The path that is used.
        path: Vec<String>,
        /// Whether others may use it from here.
        public: bool,
    },
}

/// How a path is mentioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In a `use` of the module's own.
    Use,
    /// In a `use` that shows it to others.
    Show,
    /// All names of a module, in a `use`.
    Glob,
    /// In code.
    Code,
}

/// A path somewhere.
#[derive(Debug, Clone)]
pub struct Mention {
    /// The module that it is in.
    pub module: usize,
    /// Its segments.
    pub path: Vec<String>,
    /// Its line.
    pub line: usize,
    /// How it is mentioned.
    pub kind: Kind,
}

impl Tree {
    /// Reads the package whose root it is, by `src/lib.rs` and `src/main.rs`.
    pub fn read(root: &Path) -> Tree {
        let mut tree = Tree::default();
        let name = package_name(root);
        for start in ["src/lib.rs", "src/main.rs"] {
            if !root.join(start).exists() {
                continue;
            }
            let module = tree.module("crate", None, tree.files.len());
            if start == "src/lib.rs" {
                tree.library = Some((module, name.clone()));
            }
            read::file(&mut tree, root, start, module, "src", false);
        }
        tree
    }

    /// Adds a module.
    pub fn module(&mut self, name: &str, parent: Option<usize>, file: usize) -> usize {
        self.modules.push(Module {
            name: name.into(),
            parent,
            file,
            scope: HashMap::new(),
            globs: Vec::new(),
            words: HashSet::new(),
            includes: false,
        });
        self.modules.len() - 1
    }

    /// The module that the whole crate is of.
    pub fn root(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }

    /// A module's path, from `crate` on.
    pub fn path(&self, module: usize) -> String {
        let name = &self.modules[module].name;
        match self.modules[module].parent {
            Some(parent) => format!("{}::{name}", self.path(parent)),
            None => name.clone(),
        }
    }

    /// Whether one module is another, or in it.
    pub fn inside(&self, mut module: usize, of: usize) -> bool {
        loop {
            if module == of {
                return true;
            }
            match self.modules[module].parent {
                Some(parent) => module = parent,
                None => return false,
            }
        }
    }
}

/// The package's name, as paths say it.
fn package_name(root: &Path) -> String {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = "));
    name.unwrap_or_default().trim_matches('"').replace('-', "_")
}
