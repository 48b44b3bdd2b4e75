//! A small project in a folder of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use xtask::house::House;

/// Files that are written, and read again as a project.
#[derive(Clone)]
pub(crate) struct Planted {
    files: Vec<(String, String)>,
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Planted {
    pub(crate) fn new(floors: &str) -> Planted {
        Planted { files: Vec::new() }
            .floors(floors)
            .file("Cargo.toml", "[package]\nname = \"plot\"\n")
    }

    /// The same with another table of floors, and ARCHITECTURE.md as it shows it.
    pub(crate) fn floors(&self, floors: &str) -> Planted {
        let table = xtask::floors::Floors::parse(floors).unwrap();
        let begin = "<!-- floors: `cargo run -p xtask -- table` writes what follows -->";
        let text = format!("# Map\n{begin}\n<!-- floors end -->\n");
        let shown = xtask::tidy::show(&text, &table).unwrap();
        self.file("xtask/floors.txt", floors).file("ARCHITECTURE.md", &shown)
    }

    /// The same with a file more, or another text in it.
    pub(crate) fn file(&self, path: &str, text: &str) -> Planted {
        let mut files = self.files.clone();
        files.retain(|(other, _)| other != path);
        files.push((path.into(), text.into()));
        Planted { files }
    }

    fn plant(&self) -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xtask-{}-{number}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        for (path, text) in &self.files {
            let path = folder.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    /// Read, with its list of known faults.
    pub(crate) fn house(&self) -> Read {
        let folder = self.plant();
        Read { house: House::read(&folder.0).unwrap(), _folder: folder }
    }

    pub(crate) fn order(&self) -> Vec<String> {
        self.house().house.order().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn tidy(&self) -> Vec<String> {
        self.house().house.tidy().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn tables(&self) -> Vec<String> {
        xtask::table::faults(&self.house().house).iter().map(ToString::to_string).collect()
    }

    /// The same with what is made of it.
    pub(crate) fn made(&self) -> Planted {
        let made = xtask::table::made(&self.house().house).unwrap();
        made.iter().fold(self.clone(), |tree, (path, text)| tree.file(path, text))
    }

    /// What a file says.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.iter().find(|(other, _)| other == path).map_or("", |(_, text)| text)
    }

    /// The list of known faults, brought up to date.
    pub(crate) fn shrunk(&self) -> Result<String, String> {
        let read = self.house();
        let house = &read.house;
        let faults = [house.order(), house.tidy()].concat();
        house.known.shrink(&house.root, &faults).map(|known| known.print())
    }

    /// Asserts that a fault is found whose text begins so, in one of its lines.
    pub(crate) fn finds(&self, text: &str, what: &str) {
        let all = [self.order(), self.tidy(), self.tables()].concat();
        let found = all.iter().flat_map(|fault| fault.lines()).any(|line| line.starts_with(text));
        assert!(found, "{what}: {text:?} is not among {all:#?}");
    }
}

/// A planted project as it was read.
pub(crate) struct Read {
    house: House,
    _folder: Folder,
}

impl Read {
    pub(crate) fn keep_order(&self) -> Result<(), String> {
        self.house.keep_order()
    }

    pub(crate) fn keep_tidy(&self) -> Result<(), String> {
        self.house.keep_tidy()
    }
}
