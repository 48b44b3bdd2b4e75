//! What the crate's sources call of cudarc, and cudarc of the driver, by reading both.

use crate::cuda::real::probe::FUNCTIONS;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// cudarc's sources, as cargo keeps them; `None` where it keeps them elsewhere.
fn cudarc() -> Option<PathBuf> {
    let lock = include_str!("../../../../Cargo.lock");
    let version = lock.split("name = \"cudarc\"\nversion = \"").nth(1)?.split('"').next()?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        #[allow(deprecated)]
        std::env::home_dir().map(|home| home.join(".cargo"))
    })?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let sources =
        registries.flatten().map(|e| e.path().join(format!("cudarc-{version}/src/driver")));
    let found = sources.into_iter().find(|path| path.is_dir());
    assert!(
        found.is_some() || std::env::var_os("CI").is_none(),
        "cudarc {version} is not in cargo's registry"
    );
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn name_at(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Bodies of a file's functions by `module::name`; those of one name are taken together.
fn functions(text: &str) -> BTreeMap<String, String> {
    let (mut module, mut at) = (String::new(), None);
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("//") {
            continue;
        }
        if let Some(name) = line.strip_prefix("pub mod ") {
            module = format!("{}::", name_at(name));
        } else if line == "}" {
            module.clear();
            at = None;
            continue;
        } else if let Some((before, name)) = trimmed.split_once("fn ")
            && before.split_whitespace().all(|word| word == "unsafe" || word.starts_with("pub"))
        {
            at = Some(format!("{module}{}", name_at(name)));
        }
        if let Some(at) = &at {
            let body = bodies.entry(at.clone()).or_default();
            body.push_str(line);
            body.push('\n');
        }
    }
    bodies
}

/// The words that follow `prefix` in a text.
fn after<'t>(text: &'t str, prefix: &str) -> impl Iterator<Item = &'t str> {
    text.split(prefix).skip(1).collect::<Vec<_>>().into_iter()
}

struct Cudarc {
    result: BTreeMap<String, String>,
    safe: BTreeMap<String, String>,
}

impl Cudarc {
    /// The driver's functions that a text calls by way of `sys` and `result`.
    fn direct(&self, text: &str) -> BTreeSet<String> {
        let of = |text: &str| {
            let names = after(text, "sys::").map(name_at).map(String::from);
            let driver = |n: &String| n.starts_with("cu") && n.as_bytes()[2].is_ascii_uppercase();
            names.filter(|n| n.len() > 2).filter(driver).collect::<BTreeSet<_>>()
        };
        let mut found = of(text);
        for rest in after(text, "result::") {
            let first = name_at(rest);
            let second = rest[first.len()..].strip_prefix("::").map(name_at);
            let name = second.map_or(first.into(), |second| format!("{first}::{second}"));
            found.extend(self.result.get(&name).map(|body| of(body)).unwrap_or_default());
        }
        found
    }

    /// Those that it may call by way of safe functions: any of a name that it calls, whatever it is of.
    fn all(&self, text: &str) -> BTreeSet<String> {
        let called = |text: &str| {
            let calls = text.split('(').map(|before| {
                let name = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
                name.unwrap_or_default().to_owned()
            });
            calls.collect::<Vec<_>>()
        };
        let mut found = self.direct(text);
        let mut todo = called(text);
        // Whatever is made is dropped.
        todo.push("drop".into());
        let mut seen = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if let Some(body) = self.safe.get(&name).filter(|_| seen.insert(name.clone())) {
                found.extend(self.direct(body));
                todo.extend(called(body));
            }
        }
        found
    }
}

/// The crate's sources that name cudarc.
fn ours() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let lines = read(&path);
                let code = lines.lines().filter(|line| !line.trim_start().starts_with("//"));
                files.push((path, code.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    files.retain(|(_, text)| text.contains("cudarc::"));
    files
}

#[test]
fn everything_that_is_called_of_the_driver_is_looked_for_first() {
    let Some(root) = cudarc() else {
        return eprintln!("no sources of cudarc: what it calls is NOT compared");
    };
    // Of graphs what a stream has: the rest is of types that nothing here makes.
    let graph = read(&root.join("safe/graph.rs"));
    let streams = graph.split("\nimpl ").filter(|part| part.starts_with("CudaStream"));
    let safe = streams.fold(read(&root.join("safe/core.rs")), |all, part| {
        all + part.split_once("\n}").map_or("", |(body, _)| body)
    });
    let cudarc =
        Cudarc { result: functions(&read(&root.join("result.rs"))), safe: functions(&safe) };
    // The reading works: these are known.
    assert!(cudarc.direct("result::event::elapsed(a, b)").contains("cuEventElapsedTime_v2"));
    assert!(cudarc.all("CudaContext::new(0)").contains("cuDevicePrimaryCtxRetain"));
    let files = ours();
    assert!(files.iter().any(|(path, _)| path.ends_with("real/driver.rs")));
    let mut called = BTreeSet::new();
    for (path, text) in files {
        for name in cudarc.all(&text).into_iter().filter(|name| !name.starts_with("cublas")) {
            assert!(FUNCTIONS.contains(&&name[..]), "{}: {name} is not looked for", path.display());
            called.insert(name);
        }
    }
    let idle: Vec<_> = FUNCTIONS.iter().filter(|name| !called.contains(**name)).collect();
    assert!(idle.is_empty(), "nothing calls {idle:?}");
}

#[test]
fn what_is_looked_for_is_in_every_driver_of_cuda_12() {
    let Some(root) = cudarc() else { return };
    let bindings = read(&root.join("sys/mod.rs"));
    let lines: Vec<_> = bindings.lines().collect();
    for name in FUNCTIONS {
        let head = format!("pub unsafe fn {name}(");
        let at = lines.iter().position(|line| line.starts_with(&head));
        let at = at.unwrap_or_else(|| panic!("cudarc has no {name}"));
        let cfg = lines[at - 1];
        assert!(!cfg.starts_with("#[cfg") || cfg.contains("\"cuda-12000\""), "{name}: {cfg}");
    }
}
