//! Who knows whom: arrows between files, upward ones, circles, and names taken from the root.

use crate::circles;
use crate::fault::Fault;
use crate::floors::Floors;
use crate::includes;
use crate::resolve::Target;
use crate::tree::{Kind, Mention, Name, Tree};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// From one file to another, and what is named there, by line.
pub type Arrows = BTreeMap<(String, String), Vec<(usize, String)>>;

/// Everything that is out of order in `src` and among the kernels.
pub fn faults(root: &Path, tree: &Tree, floors: &Floors) -> Vec<Fault> {
    let mut arrows = arrows(tree);
    let (included, nowhere) = includes::read(root);
    arrows.extend(included);
    let mut faults = tree.faults.clone();
    faults.extend(nowhere);
    faults.extend(upward(&arrows, floors));
    faults.extend(circles::faults(&arrows));
    faults.extend(root_names(tree));
    faults.extend(nowhere_to(tree));
    faults
}

/// Arrows that the table forbids.
pub fn upward(arrows: &Arrows, floors: &Floors) -> Vec<Fault> {
    let mut faults = Vec::new();
    for ((from, to), names) in arrows {
        let Some(why) = floors.forbid(from, to) else { continue };
        let line = names.first().map_or(0, |(line, _)| *line);
        let message = format!(
            "knows {to} ({}), but {why}; move what is named below, or hand it in from above",
            listed(names)
        );
        faults.push(Fault::new("arrow", from, line, &format!("-> {to}"), message));
    }
    faults
}

/// Names, each with its line.
pub fn listed(names: &[(usize, String)]) -> String {
    let mut text = String::new();
    for (i, (line, name)) in names.iter().enumerate().take(4) {
        let comma = if i == 0 { "" } else { ", " };
        text.push_str(&format!("{comma}{name} in line {line}"));
    }
    if names.len() > 4 {
        text.push_str(&format!(", {} more", names.len() - 4));
    }
    text
}

/// All arrows between files that are not for tests alone.
pub fn arrows(tree: &Tree) -> Arrows {
    let mut arrows = Arrows::new();
    // Modules that are gone through by a name of theirs.
    let mut through: HashSet<(usize, &str)> = HashSet::new();
    for mention in tree.paths.iter().filter(|m| m.kind == Kind::Code && m.path.len() > 1) {
        through.insert((mention.module, &mention.path[0]));
    }
    for mention in &tree.paths {
        for to in leads(tree, mention, &through) {
            let (a, b) = (tree.modules[mention.module].file, tree.modules[to].file);
            let (from, to) = (&tree.files[a], &tree.files[b]);
            if a == b || from.test || to.test {
                continue;
            }
            let names = arrows.entry((from.path.clone(), to.path.clone())).or_default();
            let name = mention.path[mention.path.len().saturating_sub(2)..].join("::");
            let name = if mention.kind == Kind::Code { name } else { named(&mention.path) };
            if !names.iter().any(|(_, n)| *n == name) {
                names.push((mention.line, name));
            }
        }
    }
    for names in arrows.values_mut() {
        names.sort();
    }
    arrows
}

/// The name that a `use` brings.
fn named(path: &[String]) -> String {
    path.last().cloned().unwrap_or_default()
}

/// The modules that a mention makes an arrow to.
fn leads(tree: &Tree, mention: &Mention, through: &HashSet<(usize, &str)>) -> Vec<usize> {
    let Mention { module, path, kind, .. } = mention;
    let first = &path[0];
    if path.len() == 1 && *kind == Kind::Code {
        return alone(tree, *module, first);
    }
    let targets = tree.resolve(*module, path);
    let modules = targets.iter().filter_map(|target| match (kind, target) {
        // Showing what is inside is no arrow.
        (Kind::Show, target) if tree.inside(target.module(), *module) => None,
        // A module that is brought in to name what it shows: those names are the arrows.
        (Kind::Use, Target::Module(_)) => {
            let name = path.last().map_or("", String::as_str);
            let named = (*module, name);
            (!through.contains(&named)).then_some(target.module())
        }
        // `super` and a module's name, as a path to somewhere else.
        (Kind::Code, Target::Module(_)) => None,
        _ => Some(target.module()),
    });
    modules.collect()
}

/// A name alone. What `use` brings was counted there, but for what it shows to others; the rest are
/// names of globs, and macros that were defined further up.
fn alone(tree: &Tree, module: usize, name: &str) -> Vec<usize> {
    let scope = &tree.modules[module].scope;
    match scope.get(name) {
        Some(names) => {
            let shown = names.iter().any(|name| matches!(name, Name::Import { public: true, .. }));
            let path = [name.to_owned()];
            let targets = if shown { tree.resolve(module, &path) } else { Vec::new() };
            targets
                .iter()
                .filter(|target| matches!(target, Target::Item(_)))
                .map(|target| target.module())
                .collect()
        }
        None if tree.modules[module].globs.is_empty() => Vec::new(),
        None => {
            let targets = tree.resolve(module, &[name.to_owned()]);
            targets.iter().map(|target| target.module()).collect()
        }
    }
}

/// Paths of this crate that are not understood: an arrow might hide there.
fn nowhere_to(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for Mention { module, path, line, .. } in &tree.paths {
        let file = &tree.files[tree.modules[*module].file];
        let ours = ["crate", "self", "super"].contains(&path[0].as_str()) && path.len() > 1;
        if ours && !file.test && tree.resolve(*module, path).is_empty() {
            let path = path.join("::");
            let message = format!(
                "`{path}` leads to nothing that xtask finds: say it in a form that it knows"
            );
            faults.push(Fault::new("read", &file.path, *line, &path, message));
        }
    }
    faults
}

/// Names that are taken from the crate's root, where their owner can be named.
fn root_names(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for Mention { module, path, line, .. } in &tree.paths {
        let root = tree.root(*module);
        let file = &tree.files[tree.modules[*module].file];
        if root == *module || file.test {
            continue;
        }
        let front =
            path.iter().take_while(|s| ["crate", "self", "super"].contains(&&s[..])).count();
        let named = path.get(front);
        let (Some(name), true) = (named, front > 0) else { continue };
        if tree.resolve(*module, &path[..front]) != [Target::Module(root)] {
            continue;
        }
        let names = tree.modules[root].scope.get(name).into_iter().flatten();
        if !names.clone().any(|name| matches!(name, Name::Import { .. })) {
            continue;
        }
        let owners = tree.resolve(root, std::slice::from_ref(name));
        let owner = match owners.first() {
            Some(Target::Item(owner)) => tree.path(*owner),
            Some(Target::Module(owner)) => tree.path(*owner),
            None => "the crate that it is of".into(),
        };
        let message = format!("takes `{name}` from the root; name its owner, {owner}");
        faults.push(Fault::new("root", &file.path, *line, name, message));
    }
    faults
}
