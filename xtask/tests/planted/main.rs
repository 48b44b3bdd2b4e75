//! Every fault is found where it was planted, and none where there is none.

mod house;
mod tables;

use house::Planted;

/// Two rooms, faces, an inner module, a glob, a macro, a test: all in order.
fn sound() -> Planted {
    Planted::new("ground\nleft right\ntop\nlib main\n")
        .file("src/lib.rs", "pub mod ground;\nmod left;\nmod right;\npub mod top;\npub use ground::Stone;\n")
        .file("src/main.rs", "fn main() {\n    plot::top::run();\n}\n")
        .file(
            "src/ground/mod.rs",
            "mod inner;\nmod stone;\npub use stone::Stone;\npub(crate) use inner::twice;\n",
        )
        .file("src/ground/stone.rs", "pub struct Stone;\nimpl Stone {\n    pub const MANY: usize = 3;\n}\n")
        .file("src/ground/inner.rs", "use super::Stone;\npub fn twice(_: Stone) {}\n")
        .file("src/left.rs", "use crate::ground::{self, Stone};\npub fn f() -> Stone {\n    ground::twice(Stone);\n    Stone\n}\n")
        .file(
            "src/right.rs",
            "pub fn g() {}\n#[cfg(test)]\nmod tests {\n    use crate::top::run;\n    use crate::left::f;\n}\n",
        )
        .file(
            "src/top.rs",
            "use crate::left::*;\nuse crate::right;\npub fn run() {\n    f();\n    right::g();\n    println!(\"{}\", crate::ground::Stone::MANY);\n}\n",
        )
}

#[test]
fn a_sound_tree_has_no_fault() {
    assert_eq!(sound().order(), Vec::<String>::new());
    assert_eq!(sound().tidy(), Vec::<String>::new());
}

const TOP: &str = "pub fn run() {}\npub struct T;\nmacro_rules! make {\n    ($name:ident) => {\n        \
                   pub struct $name;\n    };\n}\nmake!(Made);\n";

#[test]
fn every_form_of_an_upward_arrow_is_found_in_its_line() {
    for (what, text, line) in [
        ("use", "use crate::top::run;\npub fn g() {}\n", 1),
        (
            "a tree, renamed",
            "use crate::{\n    ground::Stone,\n    top::{run as r},\n};\npub fn g() {}\n",
            3,
        ),
        ("all names", "pub fn g() {\n    use crate::top::*;\n}\n", 2),
        ("a path in code", "pub fn g() {\n    crate::top::run();\n}\n", 2),
        ("super", "pub fn g() {\n    super::top::run();\n}\n", 2),
        ("a module, and its name", "use crate::top;\npub fn g() {\n    top::run();\n}\n", 3),
        ("a module that nobody names", "use crate::top;\npub fn g() {}\n", 1),
        (
            "what a macro is given",
            "pub fn g() {\n    println!(\"{:?}\", crate::top::run());\n}\n",
            2,
        ),
        (
            "what a macro makes",
            "macro_rules! m {\n    () => {\n        $crate::top::run()\n    };\n}\npub fn g() {}\n",
            3,
        ),
        (
            "a use in a macro",
            "macro_rules! m {\n    () => {\n        use crate::{top::run};\n    };\n}\npub fn g() {}\n",
            3,
        ),
        ("a type", "pub fn g(_: Option<crate::top::T>) {}\n", 1),
        ("a pattern", "pub fn g() {\n    let crate::top::T = todo!();\n}\n", 2),
        (
            "an inner module",
            "pub fn g() {}\nmod deep {\n    pub fn h() {\n        super::super::top::run();\n    }\n}\n",
            4,
        ),
        ("a face of another's", "pub use crate::top::run;\npub fn g() {}\n", 1),
        ("what a macro defines", "pub fn g() {\n    crate::top::Made::new();\n}\n", 2),
        ("a file by its path", "pub fn g() {}\n#[path = \"elsewhere.rs\"]\nmod deep;\n", 0),
    ] {
        let text = text.to_owned();
        let tree = sound().file("src/right.rs", &text).file("src/top.rs", TOP);
        if line == 0 {
            let tree = tree.file("src/elsewhere.rs", "pub use crate::top::run;\n");
            let rooms = tree.floors("ground\nleft right elsewhere\ntop\nlib main\n");
            rooms.finds("src/elsewhere.rs:1: knows src/top.rs (run in line 1)", what);
        } else {
            tree.finds(&format!("src/right.rs:{line}: knows src/top.rs ("), what);
        }
    }
}

#[test]
fn rooms_of_one_floor_do_not_know_each_other() {
    let tree = sound().file("src/right.rs", "pub fn g() {\n    crate::left::f();\n}\n");
    tree.finds(
        "src/right.rs:2: knows src/left.rs (left::f in line 2), but `right` and `left`",
        "one floor",
    );
}

#[test]
fn a_face_hides_no_arrow() {
    // The ground shows what is defined on top: whoever takes it from the ground knows the top.
    let tree = sound()
        .file("src/ground/mod.rs", "mod inner;\nmod stone;\npub use stone::Stone;\npub(crate) use inner::twice;\npub use crate::top::run;\n")
        .file("src/left.rs", "use crate::ground::run;\npub fn f() {\n    run()\n}\n");
    tree.finds("src/ground/mod.rs:5: knows src/top.rs (run in line 5)", "the face");
    tree.finds("src/left.rs:1: knows src/top.rs (run in line 1)", "who looks at it");
}

#[test]
fn inside_a_room_floors_hold_as_well() {
    let floors = "ground\nleft right\ntop\nlib main\n\nground/\nstone\ninner\n";
    let tree = sound().floors(floors);
    assert_eq!(tree.order(), Vec::<String>::new());
    let tree = tree.file(
        "src/ground/stone.rs",
        "use super::twice;\npub struct Stone;\nimpl Stone {\n    pub const MANY: usize = 3;\n}\n",
    );
    tree.finds("src/ground/stone.rs:1: knows src/ground/inner.rs (twice in line 1), but `src/ground/inner` stands above", "inside");
    let tree = tree.file("src/ground/mod.rs", "mod inner;\nmod stone;\npub use stone::Stone;\npub(crate) use inner::twice;\npub struct Own;\n");
    let tree = tree.file(
        "src/ground/stone.rs",
        "use super::Own;\npub struct Stone;\nimpl Stone {\n    pub const MANY: usize = 3;\n}\n",
    );
    tree.finds(
        "src/ground/stone.rs:1: knows src/ground/mod.rs (Own in line 1)",
        "the room's own module",
    );
}

#[test]
fn a_circle_is_shown_with_what_ties_it() {
    let tree = sound().file(
        "src/ground/stone.rs",
        "use super::twice;\npub struct Stone;\nimpl Stone {\n    pub const MANY: usize = 3;\n}\n",
    );
    tree.finds("src/ground/stone.rs:1: is in a circle, in a knot of 2 files", "one end");
    tree.finds("src/ground/inner.rs:1: is in a circle", "the other end");
    tree.finds(
        "    src/ground/inner.rs knows src/ground/stone.rs: Stone in line 1",
        "what ties it",
    );
}

#[test]
fn a_name_is_taken_from_its_owner() {
    let tree = sound().file("src/right.rs", "use crate::Stone;\npub fn g() {}\n");
    tree.finds(
        "src/right.rs:1: takes `Stone` from the root; name its owner, crate::ground::stone",
        "root",
    );
    let tree = sound().file("src/right.rs", "pub fn g(_: super::Stone) {}\n");
    tree.finds("src/right.rs:1: takes `Stone` from the root", "by super");
}

#[test]
fn kernels_include_what_is_below() {
    let floors = "kernels\nground\nleft right\ntop\nlib main\n\nkernels/\ncore\nloss\n";
    let tree = sound()
        .floors(floors)
        .file("kernels/core/a.cuh", "#pragma once\n#include \"core/b.cuh\"\n")
        .file("kernels/core/b.cuh", "#pragma once\n")
        .file("kernels/loss/c.cu", "#include \"core/a.cuh\"\n#include <cuda.h>\n");
    assert_eq!(tree.order(), Vec::<String>::new());
    assert_eq!(tree.tidy(), Vec::<String>::new());
    let up = tree.file("kernels/core/b.cuh", "#pragma once\n#include \"loss/c.cu\"\n");
    up.finds("kernels/core/b.cuh:2: knows kernels/loss/c.cu (loss/c.cu in line 2), but", "upward");
    up.finds("kernels/core/b.cuh:2: is in a circle, in a knot of 3 files", "a circle");
    let nowhere = tree.file("kernels/core/b.cuh", "#include \"d.cuh\"\n");
    nowhere.finds("kernels/core/b.cuh:1: includes \"d.cuh\", which no file", "nowhere");
}

#[test]
fn what_cannot_be_read_is_a_fault() {
    let unknown = sound().file("src/right.rs", "pub fn g() {\n    crate::left::gone();\n}\n");
    unknown
        .finds("src/right.rs:2: `crate::left::gone` leads to nothing that xtask finds", "no such");
    sound()
        .file("src/right.rs", "pub fn g( {}\n")
        .finds("src/right.rs:1: cannot be read: ", "syntax");
    sound()
        .file("src/top.rs", "pub fn run() {}\nmod gone;\n")
        .finds("src/top/gone.rs:1: cannot be read", "no file");
}

#[test]
fn what_is_untidy_is_found() {
    let long = "//\n".repeat(451);
    sound()
        .file("src/top.rs", &format!("pub fn run() {{}}\n{long}"))
        .finds("src/top.rs:451: 452 lines", "long");
    sound()
        .file("scripts/s", &format!("#!/bin/sh\n{long}"))
        .finds("scripts/s:451: 452 lines", "a script");
    sound().file("src/alone.rs", "").finds("src/alone.rs:1: no `mod` declares it", "an orphan");
    sound()
        .file("src/alone.rs", "")
        .finds("src/alone.rs:1: belongs to no room of the house", "no room");
    let empty = sound().floors("ground\ncellar\nleft right\ntop\nlib main\n");
    empty.finds("xtask/floors.txt:2: no file belongs to cellar", "an empty room");
    let other = sound();
    other
        .file("ARCHITECTURE.md", "nothing\n")
        .finds("ARCHITECTURE.md:1: no place for the table of floors", "the table");
}

#[test]
fn what_is_absent_from_kernels_on_purpose_is_found() {
    let kernels = |file: &str, line: &str| {
        let tree = sound().floors("kernels\nground\nleft right\ntop\nlib main\n");
        tree.file(&format!("kernels/{file}"), &format!("// atomicAdd, asm: in words\n{line}\n"))
    };
    let sound = kernels(
        "intrinsics.cuh",
        "WL_FN wl_u32 add(wl_u32* p, wl_u32 v) { return atomicAdd(p, v); }",
    );
    assert_eq!(sound.tidy(), Vec::<String>::new());
    for line in [
        "WL_FN void add(float* p, float v) { atomicAdd(p, v); }",
        "asm(\"red.global.add.f32 [%0], %1;\");",
    ] {
        kernels("intrinsics.cuh", line).finds("kernels/intrinsics.cuh:2: a float atomic", line);
    }
    kernels("l1.cu", "atomicAdd(counts, 1u);")
        .finds("kernels/l1.cu:2: PTX and CUDA's atomics are in", "elsewhere");
    kernels("l1.cu", "asm volatile(\"\");")
        .finds("kernels/l1.cu:2: PTX and CUDA's atomics are in", "elsewhere");
}

#[test]
fn a_comment_sends_nobody_to_a_file_that_does_not_exist() {
    let text = "// Launches: src/left.rs; src/gone.rs.\npub fn g() {}\n";
    sound().file("src/right.rs", text).finds(
        "src/right.rs:1: sends its reader to src/gone.rs, which does not exist",
        "a comment",
    );
    // In code a path is the compiler's affair.
    let text = "pub const PATH: &str = \"src/gone.rs\";\npub fn g() {}\n";
    assert_eq!(sound().file("src/right.rs", text).tidy(), Vec::<String>::new());
    let text = "See `kernels/gone.cu`, and kernels/loss/NAME.cu of any.\n";
    sound().file("docs/losses.md", text).finds(
        "docs/losses.md:1: sends its reader to kernels/gone.cu, which does not exist",
        "a document",
    );
}

#[test]
fn a_safety_note_names_a_condition() {
    for note in [
        "the caller's contract.",
        "as above.",
        "see above.",
        "as for the forward pass.",
        "as in `write`.",
        "readable by the caller's contract.",
        "the caller's contract,\n    // for all of them.",
        "the caller's contract is the callee's.",
    ] {
        let text = format!("pub fn g() {{\n    // SAFETY: {note}\n}}\n");
        sound().file("src/right.rs", &text).finds("src/right.rs:2: SAFETY: ", note);
    }
    for note in [
        "the caller's contract; a row belongs to one chunk.",
        "`x` holds `len` elements, as `Sum::new` was promised.",
        "as above, and\n    // the row is borrowed exclusively.",
    ] {
        let text = format!("pub fn g() {{\n    // SAFETY: {note}\n}}\n");
        assert_eq!(sound().file("src/right.rs", &text).tidy(), Vec::<String>::new(), "{note}");
    }
}

#[test]
fn what_is_known_is_no_fault_until_it_is_gone() {
    let fault = sound()
        .file("src/right.rs", "use crate::top::run;\npub fn g() {}\n")
        .file("src/top.rs", "pub fn run() {}\n");
    let known = fault.file(
        "xtask/known.txt",
        "# known\narrow src/right.rs -> src/top.rs\n2 circle src/nowhere.rs\n",
    );
    let why = known.house().keep_order().unwrap_err();
    assert!(why.contains("`circle src/nowhere.rs` is gone"), "{why}");
    // What is untidy is the other test's.
    assert_eq!(known.house().keep_tidy(), Ok(()));

    let list = known.shrunk().unwrap();
    assert!(
        list.contains("arrow src/right.rs -> src/top.rs\n") && !list.contains("nowhere"),
        "{list}"
    );
    // A file that moves takes its line along; one more fault is refused.
    let moved = fault.file("xtask/known.txt", "arrow src/moved.rs -> src/top.rs\n");
    assert!(moved.shrunk().unwrap().ends_with("arrow src/right.rs -> src/top.rs\n"));
    let grown = fault.file("xtask/known.txt", "");
    let why = grown.shrunk().unwrap_err();
    assert!(why.contains("1 faults, and 0 were known"), "{why}");
    assert!(
        why.contains("as a line of xtask/known.txt: arrow src/right.rs -> src/top.rs"),
        "{why}"
    );
}

#[test]
fn rooms_may_live_elsewhere_for_a_while() {
    let tree = sound().floors("ground\nleft right\nhigh\nlib main\n");
    tree.finds("src/top.rs:1: belongs to no room", "not said");
    let said = tree.file("xtask/known.txt", "lives top high\n");
    assert_eq!(said.house().keep_order(), Ok(()));
    said.file("src/right.rs", "use crate::top::run;\npub fn g() {}\n").finds(
        "src/right.rs:1: knows src/top.rs (run in line 1), but `high` stands above",
        "as its room",
    );
}
