//! Faults that are known: a list that only gets shorter, and goes when it is empty.

use crate::fault::Fault;
use crate::floors::Floors;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the list is.
pub const KNOWN: &str = "xtask/known.txt";
const HEAD: &str = "\
# Faults that are known, by rule. The list only gets shorter: one that is gone fails the tests as one
# that is new does. `cargo run -p xtask -- known` takes out what is gone and follows files that moved.
# `lives PLACE ROOM`: the files of that place count for a room that they have not moved to yet.
";

/// The list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Known {
    counts: BTreeMap<String, usize>,
    lives: Vec<(String, String)>,
}

impl Known {
    /// Reads a project's list; empty where there is none.
    ///
    /// # Errors
    /// Names a line that says nothing.
    pub fn read(root: &Path) -> Result<Known, String> {
        let mut known = Known::default();
        let text = std::fs::read_to_string(root.join(KNOWN)).unwrap_or_default();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["lives", place, room] = words[..] {
                known.lives.push((place.into(), room.into()));
                continue;
            }
            let (count, key) = match words[0].parse::<usize>() {
                Ok(count) => (count, words[1..].join(" ")),
                Err(_) => (1, words.join(" ")),
            };
            if count == 0 || key.is_empty() {
                return Err(format!("{KNOWN}:{}: expected `[count] rule file …`", i + 1));
            }
            *known.counts.entry(key).or_default() += count;
        }
        Ok(known)
    }

    /// Tells the table of floors where rooms' files live as yet.
    pub fn settle(&self, floors: &mut Floors) {
        for (place, room) in &self.lives {
            floors.lives(place, room);
        }
    }

    /// What of the faults is new, and what of the list is gone, of some rules.
    ///
    /// # Errors
    /// All of it, a line each, and what to do.
    pub fn compare(&self, faults: &[Fault], rules: &[&str]) -> Result<(), String> {
        let mut text = String::new();
        let found = counts(faults);
        for fault in faults {
            if found[&fault.key] > self.counts.get(&fault.key).copied().unwrap_or(0) {
                text.push_str(&format!("{fault}\n"));
            }
        }
        let gone: Vec<&String> = self
            .counts
            .iter()
            .filter(|(key, _)| rules.contains(&rule(key)))
            .filter(|(key, count)| found.get(*key).copied().unwrap_or(0) < **count)
            .map(|(key, _)| key)
            .collect();
        for key in &gone {
            text.push_str(&format!("{KNOWN}: `{key}` is gone, or is fewer: "));
            text.push_str("run cargo run -p xtask -- known, and commit the list\n");
        }
        if text.is_empty() { Ok(()) } else { Err(text) }
    }

    /// The list that names just these faults, and places that are still there.
    ///
    /// # Errors
    /// What is new, where there is more than before: it is to be mended.
    pub fn shrink(&self, root: &Path, faults: &[Fault]) -> Result<Known, String> {
        let counts = counts(faults);
        if counts.values().sum::<usize>() > self.len() {
            let mut text = format!(
                "{} faults, and {} were known: mend the new ones\n",
                faults.len(),
                self.len()
            );
            for fault in faults
                .iter()
                .filter(|f| counts[&f.key] > self.counts.get(&f.key).copied().unwrap_or(0))
            {
                text.push_str(&format!("{fault}\n    as a line of {KNOWN}: {}\n", fault.key));
            }
            return Err(text);
        }
        let there = |place: &str| {
            ["", ".rs"].iter().any(|end| root.join(format!("src/{place}{end}")).exists())
        };
        let lives = self.lives.iter().filter(|(place, _)| there(place)).cloned().collect();
        Ok(Known { counts, lives })
    }

    /// The list as a file.
    pub fn print(&self) -> String {
        let mut text = HEAD.to_owned();
        for (place, room) in &self.lives {
            text.push_str(&format!("lives {place} {room}\n"));
        }
        for (key, count) in &self.counts {
            match count {
                1 => text.push_str(&format!("{key}\n")),
                count => text.push_str(&format!("{count} {key}\n")),
            }
        }
        text
    }

    /// How many faults it has.
    pub fn len(&self) -> usize {
        self.counts.values().sum()
    }

    /// Whether it has none, and can go.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.lives.is_empty()
    }
}

/// The rule that a key begins with.
fn rule(key: &str) -> &str {
    key.split(' ').next().unwrap_or_default()
}

fn counts(faults: &[Fault]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.key.clone()).or_default() += 1;
    }
    counts
}
