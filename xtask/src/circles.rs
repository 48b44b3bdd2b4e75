//! Circles of files: each knows the next, and the last the first.

use crate::fault::Fault;
use crate::order::{Arrows, listed};
use std::collections::{BTreeMap, VecDeque};

/// A fault for each file that is in a circle; the first of a knot shows its shortest circle.
pub fn faults(arrows: &Arrows) -> Vec<Fault> {
    let mut names: Vec<&str> = Vec::new();
    for (from, to) in arrows.keys() {
        names.extend([from.as_str(), to.as_str()]);
    }
    names.sort_unstable();
    names.dedup();
    let number: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let mut next = vec![Vec::new(); names.len()];
    for (from, to) in arrows.keys() {
        next[number[from.as_str()]].push(number[to.as_str()]);
    }
    let mut faults = Vec::new();
    for mut knot in knots(&next).into_iter().filter(|knot| knot.len() > 1) {
        knot.sort_unstable();
        for &file in &knot {
            let circle = shortest(&next, &knot, file);
            let mut text = String::new();
            let mut line = 0;
            for (i, &at) in circle.iter().enumerate() {
                let to = circle[(i + 1) % circle.len()];
                let tied = &arrows[&(names[at].to_owned(), names[to].to_owned())];
                if i == 0 {
                    line = tied.first().map_or(0, |(line, _)| *line);
                }
                text.push_str(&format!(
                    "\n    {} knows {}: {}",
                    names[at],
                    names[to],
                    listed(tied)
                ));
            }
            let message = format!(
                "is in a circle, in a knot of {} files; cut one of these arrows:{text}",
                knot.len()
            );
            faults.push(Fault::new("circle", names[file], line, "", message));
        }
    }
    faults
}

/// Tarjan's strongly connected components.
pub fn knots(next: &[Vec<usize>]) -> Vec<Vec<usize>> {
    struct Search<'a> {
        next: &'a [Vec<usize>],
        index: Vec<Option<usize>>,
        low: Vec<usize>,
        waiting: Vec<usize>,
        waits: Vec<bool>,
        count: usize,
        found: Vec<Vec<usize>>,
    }
    impl Search<'_> {
        fn visit(&mut self, v: usize) {
            self.index[v] = Some(self.count);
            self.low[v] = self.count;
            self.count += 1;
            self.waiting.push(v);
            self.waits[v] = true;
            let next = self.next;
            for &w in &next[v] {
                match self.index[w] {
                    None => {
                        self.visit(w);
                        self.low[v] = self.low[v].min(self.low[w]);
                    }
                    Some(index) if self.waits[w] => self.low[v] = self.low[v].min(index),
                    Some(_) => {}
                }
            }
            if self.index[v] == Some(self.low[v]) {
                let mut knot = Vec::new();
                while let Some(w) = self.waiting.pop() {
                    self.waits[w] = false;
                    knot.push(w);
                    if w == v {
                        break;
                    }
                }
                self.found.push(knot);
            }
        }
    }
    let n = next.len();
    let mut search = Search {
        next,
        index: vec![None; n],
        low: vec![0; n],
        waiting: Vec::new(),
        waits: vec![false; n],
        count: 0,
        found: Vec::new(),
    };
    for v in 0..n {
        if search.index[v].is_none() {
            search.visit(v);
        }
    }
    search.found
}

/// The shortest way from a file of a knot back to it.
fn shortest(next: &[Vec<usize>], knot: &[usize], start: usize) -> Vec<usize> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &to in next[at].iter().filter(|to| knot.contains(to)) {
            if to == start {
                let mut circle = vec![at];
                let mut at = at;
                while at != start {
                    at = from[&at];
                    circle.push(at);
                }
                circle.reverse();
                return circle;
            }
            from.entry(to).or_insert_with(|| {
                queue.push_back(to);
                at
            });
        }
    }
    vec![start]
}
