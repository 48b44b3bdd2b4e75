//! The table of floors: which room stands on which.

use std::path::Path;

/// Where the table is.
pub const FLOORS: &str = "xtask/floors.txt";

/// Floors of the house, and those inside of rooms.
#[derive(Debug, Default)]
pub struct Floors {
    blocks: Vec<Block>,
}

/// Floors of one folder, the ground first.
#[derive(Debug)]
struct Block {
    /// From the root of the project, without a slash at its end; empty for the house.
    folder: String,
    line: usize,
    floors: Vec<Vec<Room>>,
}

#[derive(Debug)]
struct Room {
    name: String,
    line: usize,
    /// Older places of what belongs there.
    elsewhere: Vec<String>,
}

/// A room as a file sees it: its floor, and its place on that floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    floor: usize,
    room: usize,
}

impl Floors {
    /// Reads the table of a project.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(root: &Path) -> Result<Floors, String> {
        let path = root.join(FLOORS);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{FLOORS}: {e}"))?;
        Floors::parse(&text)
    }

    /// Reads a table: a line a floor, the ground first; blocks for folders, headed by their name.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Floors, String> {
        let mut blocks = vec![Block { folder: String::new(), line: 1, floors: Vec::new() }];
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(folder) = line.strip_suffix('/') {
                let folder = source(folder);
                blocks.push(Block { folder, line: i + 1, floors: Vec::new() });
                continue;
            }
            let room = |name: &str| Room { name: name.into(), line: i + 1, elsewhere: Vec::new() };
            let rooms: Vec<Room> = line.split_whitespace().map(room).collect();
            if let Some(block) = blocks.last_mut() {
                block.floors.push(rooms);
            }
        }
        let empty = blocks.iter().find(|block| block.floors.is_empty());
        match empty {
            Some(block) => Err(format!("{FLOORS}:{}: no floor in {:?}", block.line, block.folder)),
            None => Ok(Floors { blocks }),
        }
    }

    /// A place of before, whose files count for a room of the house (`lives` in the known faults).
    pub fn lives(&mut self, place: &str, room: &str) {
        let rooms = self.blocks[0].floors.iter_mut().flatten();
        for room in rooms.filter(|r| r.name == room) {
            room.elsewhere.push(place.into());
        }
    }

    /// The table, floors from the top to the ground, as ARCHITECTURE.md shows it.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            if !block.folder.is_empty() {
                let folder = block.folder.strip_prefix("src/").unwrap_or(&block.folder);
                text.push_str(&format!("\n{folder}/\n"));
            }
            for floor in block.floors.iter().rev() {
                let names: Vec<&str> = floor.iter().map(|room| room.name.as_str()).collect();
                let indent = if block.folder.is_empty() { "" } else { "  " };
                text.push_str(&format!("{indent}{}\n", names.join(" ")));
            }
        }
        text
    }

    /// Why the first file must not know the second; `None` where it may.
    pub fn forbid(&self, from: &str, to: &str) -> Option<String> {
        for block in &self.blocks {
            if !block.holds(from) || !block.holds(to) {
                continue;
            }
            let (Some(a), Some(b)) = (block.place(from), block.place(to)) else { continue };
            if b.floor > a.floor {
                return Some(format!(
                    "`{}` stands above `{}`: arrows only go down",
                    block.name(b),
                    block.name(a)
                ));
            }
            if b.floor == a.floor && a.room != b.room {
                return Some(format!(
                    "`{}` and `{}` stand on one floor and do not know each other",
                    block.name(a),
                    block.name(b)
                ));
            }
        }
        None
    }

    /// The folders in which a file has no room.
    pub fn homeless(&self, file: &str) -> Vec<String> {
        let blocks = self.blocks.iter().filter(|block| block.holds(file));
        let without = blocks.filter(|block| block.place(file).is_none());
        without.map(|b| if b.folder.is_empty() { "the house" } else { &b.folder }.into()).collect()
    }

    /// Rooms, by line and name, that none of the files belongs to.
    pub fn empty(&self, files: &[String]) -> Vec<(usize, String)> {
        let mut empty = Vec::new();
        for block in &self.blocks {
            for room in block.floors.iter().flatten() {
                if !files.iter().any(|f| block.holds(f) && room.holds(&block.folder, f)) {
                    empty.push((room.line, join(&block.folder, &room.name)));
                }
            }
        }
        empty
    }
}

impl Block {
    /// Whether the file is in the folder, or is the module that the folder's are of.
    fn holds(&self, file: &str) -> bool {
        self.folder.is_empty() || within(file, &self.folder)
    }

    fn place(&self, file: &str) -> Option<Place> {
        for (floor, rooms) in self.floors.iter().enumerate() {
            for (room, r) in rooms.iter().enumerate() {
                if r.holds(&self.folder, file) {
                    return Some(Place { floor, room });
                }
            }
        }
        // The folder's own module stands on top of what it holds.
        let own = [format!("{}/mod.rs", self.folder), format!("{}.rs", self.folder)];
        own.iter().any(|own| own == file).then_some(Place { floor: self.floors.len(), room: 0 })
    }

    fn name(&self, place: Place) -> String {
        let room = self.floors.get(place.floor).and_then(|rooms| rooms.get(place.room));
        join(&self.folder, room.map_or("mod", |room| &room.name))
    }
}

impl Room {
    fn holds(&self, folder: &str, file: &str) -> bool {
        let own = if folder.is_empty() { source(&self.name) } else { join(folder, &self.name) };
        let elsewhere = self.elsewhere.iter().map(|place| source(place));
        std::iter::once(own).chain(elsewhere).any(|place| within(file, &place))
    }
}

/// Whether the file is the place (with a suffix or without), or in it.
fn within(file: &str, place: &str) -> bool {
    let rest = file.strip_prefix(place);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with('.'))
}

/// A place of the house, from the root of the project: all but the kernels are in `src`.
fn source(name: &str) -> String {
    let kernels = name == "kernels" || name.starts_with("kernels/");
    if kernels { name.into() } else { format!("src/{name}") }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.into() } else { format!("{folder}/{name}") }
}
