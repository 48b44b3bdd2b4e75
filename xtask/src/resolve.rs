//! Where paths lead: to the file that defines a name, however it is shown elsewhere.

use crate::tree::{Name, Tree};

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A module.
    Module(usize),
    /// What a module defines.
    Item(usize),
}

impl Target {
    /// The module that it is, or is in.
    pub fn module(self) -> usize {
        match self {
            Target::Module(module) | Target::Item(module) => module,
        }
    }
}

/// Imports of imports that are followed.
const DEPTH: usize = 24;

impl Tree {
    /// All that a path leads to from a module: a name may be a module and a function at once, and
    /// two things by `cfg`. Nothing, where it leaves the crate.
    pub fn resolve(&self, module: usize, path: &[String]) -> Vec<Target> {
        self.follow(module, path, DEPTH)
    }

    fn follow(&self, module: usize, path: &[String], depth: usize) -> Vec<Target> {
        if depth == 0 {
            return Vec::new();
        }
        let Some((mut found, mut rest)) = self.start(module, path, depth) else {
            return Vec::new();
        };
        while let Some((name, others)) = rest.split_first() {
            let inner: Vec<usize> = found
                .iter()
                .filter_map(|target| match target {
                    Target::Module(module) => Some(*module),
                    Target::Item(_) => None,
                })
                .collect();
            if inner.is_empty() {
                // A type's own: a method, a variant.
                return found;
            }
            found = inner.iter().flat_map(|&m| self.lookup(m, name, depth - 1)).collect();
            rest = others;
        }
        // Of a module and a function of one name, code means the function.
        if found.iter().any(|target| matches!(target, Target::Item(_))) {
            found.retain(|target| matches!(target, Target::Item(_)));
        }
        found.dedup();
        found
    }

    /// What a path's first segments are, and the rest of it.
    fn start<'p>(
        &self,
        module: usize,
        path: &'p [String],
        depth: usize,
    ) -> Option<(Vec<Target>, &'p [String])> {
        let (first, rest) = path.split_first()?;
        if first == "crate" {
            return Some((vec![Target::Module(self.root(module))], rest));
        }
        if first == "self" || first == "super" {
            let mut rest = rest;
            let mut at = if first == "self" { module } else { self.modules[module].parent? };
            while rest.first().is_some_and(|next| next == "super") {
                at = self.modules[at].parent?;
                rest = &rest[1..];
            }
            return Some((vec![Target::Module(at)], rest));
        }
        let mut found = self.lookup(module, first, depth.saturating_sub(1));
        if found.is_empty()
            && let Some((library, name)) = &self.library
            && first == name
        {
            found.push(Target::Module(*library));
        }
        Some((found, rest))
    }

    /// What a name stands for in a module.
    pub fn lookup(&self, module: usize, name: &str, depth: usize) -> Vec<Target> {
        if depth == 0 {
            return Vec::new();
        }
        let scope = &self.modules[module];
        let mut found = Vec::new();
        for what in scope.scope.get(name).into_iter().flatten() {
            match what {
                Name::Module(child) => found.push(Target::Module(*child)),
                Name::Item => found.push(Target::Item(module)),
                // `use half::half`: another crate's.
                Name::Import { path, .. } if path.len() > 1 && path[0] == name => {
                    let inner = scope.scope.get(name).into_iter().flatten();
                    if inner.clone().any(|name| matches!(name, Name::Module(_))) {
                        found.extend(self.import(module, path, depth - 1));
                    }
                }
                Name::Import { path, .. } => found.extend(self.import(module, path, depth - 1)),
            }
        }
        if found.is_empty() {
            for glob in &scope.globs {
                for target in self.follow(module, glob, depth - 1) {
                    if let Target::Module(other) = target
                        && other != module
                    {
                        found.extend(self.lookup(other, name, depth - 1));
                    }
                }
            }
        }
        if found.is_empty() && (scope.words.contains(name) || scope.includes) {
            found.push(Target::Item(module));
        }
        found
    }

    /// What a `use` brings: everything of the name, not functions alone.
    fn import(&self, module: usize, path: &[String], depth: usize) -> Vec<Target> {
        let Some((last, front)) = path.split_last() else { return Vec::new() };
        if front.is_empty() {
            return self.follow(module, path, depth);
        }
        let mut found = Vec::new();
        for target in self.modules_of(module, front, depth) {
            match target {
                Target::Module(inner) => found.extend(self.lookup(inner, last, depth)),
                Target::Item(_) => found.push(target),
            }
        }
        if found.is_empty() {
            found = self.follow(module, path, depth);
        }
        found
    }

    /// What the front of a path leads to: modules, where there are any.
    fn modules_of(&self, module: usize, front: &[String], depth: usize) -> Vec<Target> {
        let name = [front, &["self".into()]].concat();
        let Some((mut found, mut rest)) = self.start(module, &name, depth) else {
            return Vec::new();
        };
        while let Some((name, others)) = rest.split_first() {
            if name == "self" {
                break;
            }
            let inner: Vec<Target> = found
                .iter()
                .flat_map(|target| match target {
                    Target::Module(inner) => self.lookup(*inner, name, depth),
                    Target::Item(_) => vec![*target],
                })
                .collect();
            found = inner;
            rest = others;
        }
        found
    }

    /// The module whose macro a name is, where it is seen because it was defined before: the nearest
    /// one above that defines it.
    pub fn above(&self, module: usize, name: &str) -> Option<usize> {
        let mut at = self.modules[module].parent;
        while let Some(module) = at {
            let scope = &self.modules[module].scope;
            if scope.get(name).is_some_and(|names| names.contains(&Name::Item)) {
                return Some(module);
            }
            at = self.modules[module].parent;
        }
        None
    }
}
