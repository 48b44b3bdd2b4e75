//! What is made, and whether it is noticed where it is old.

use crate::house::Planted;

/// A kernel's arguments, in two files, with all that a field may be.
fn arguments(fields: &str) -> Planted {
    let args = format!(
        "mod sizes;\nuse sizes::{{MOST, Out}};\n/// How much.\n/// And where.\n#[repr(C)]\npub struct Args {{\n{fields}}}\n\
         #[repr(C)]\npub struct Part {{\n    pub a: u32,\n    pub b: f32,\n}}\npub struct Own(u8);\n"
    );
    Planted::new("kernels\nargs\nlib\n")
        .file("src/lib.rs", "mod args;\n")
        .file("src/args/mod.rs", &args)
        .file("src/args/sizes.rs", "pub const MOST: usize = FOUR;\nconst FOUR: usize = 4;\n/// `float*`: written.\npub type Out = u64;\npub type Bare = u64;\n#[repr(C)]\npub struct More([i64; MOST + 1]);\n")
        .file("kernels/args.cuh", "#pragma once\n#include \"args_generated.cuh\"\n#include \"intrinsics.cuh\"\n")
        .file("kernels/intrinsics.cuh", "#pragma once\n")
        .file("kernels/args_generated.cuh", "")
}

const FIELDS: &str = "    /// Per row.\n    pub to: Out,\n    pub part: Part,\n    pub n: i64,\n    \
                      pub sizes: [[f32; MOST]; 2],\n    pub more: More,\n    pub seed: u64,\n    pub number: f64,\n";

#[test]
fn structs_are_as_rust_has_them() {
    let tree = arguments(FIELDS);
    tree.finds(
        "kernels/args_generated.cuh:1: not what is made of its source; run cargo run",
        "nothing",
    );
    let made = tree.made();
    assert_eq!(made.tables(), Vec::<String>::new());
    assert_eq!([made.order(), made.tidy()].concat(), Vec::<String>::new());
    let text = made.text("kernels/args_generated.cuh");
    for part in [
        "#pragma once\n#include \"intrinsics.cuh\"\n",
        "#define WL_MOST 4\n",
        // What a struct holds comes first.
        "struct Part {\n  wl_u32 a;\n  float b;\n};\nstatic_assert(sizeof(Part) == 8, \"Part\");\n\
         WL_OFFSET(Part, a, 0); WL_OFFSET(Part, b, 4);\n\n// How much. And where.\nstruct Args {\n  \
         float* to;                 // Per row.\n  Part part;\n  wl_i64 n;\n  float sizes[2][WL_MOST];\n  \
         wl_i64 more[WL_MOST + 1];\n  wl_u64 seed;\n  double number;\n};\n\
         static_assert(sizeof(Args) == 112, \"Args\");\n\
         WL_OFFSET(Args, to, 0); WL_OFFSET(Args, part, 8); WL_OFFSET(Args, n, 16); WL_OFFSET(Args, sizes, 24);\n\
         WL_OFFSET(Args, more, 56); WL_OFFSET(Args, seed, 96); WL_OFFSET(Args, number, 104);\n",
    ] {
        assert!(text.contains(part), "{part}\n is not in\n{text}");
    }
    let swapped = FIELDS.replace("pub n: i64", "pub rows: i64");
    let old = arguments(&swapped).file("kernels/args_generated.cuh", text);
    old.finds("kernels/args_generated.cuh:", "a field of another name");
    assert_eq!(old.tables().len(), 1);
}

#[test]
fn what_a_kernel_cannot_be_handed_is_named() {
    for (fields, found) in [
        ("    pub a: u32,\n    pub b: f64,\n", "src/args/mod.rs:8: Args has padding before `b`"),
        ("    pub a: f64,\n    pub b: u32,\n", "src/args/mod.rs:6: Args has padding at its end"),
        ("    pub a: sizes::Out,\n", "src/args/mod.rs:7: a kernel is handed numbers, addresses"),
        ("    pub a: usize,\n", "src/args/mod.rs:7: `usize` says no type of C"),
        ("    pub a: Bare,\n", "src/args/mod.rs:7: `Bare` says no type of C"),
        ("    pub a: Own,\n", "src/args/mod.rs:7: `Own` says no type of C"),
        ("    pub a: [f32; MOST * 2],\n", "src/args/mod.rs:7: a length is a number"),
    ] {
        arguments(fields).finds(found, fields);
    }
}

#[test]
fn the_shown_table_is_the_table() {
    let tree =
        Planted::new("ground\nlib\n").file("src/lib.rs", "mod ground;\n").file("src/ground.rs", "");
    assert_eq!(tree.tables(), Vec::<String>::new());
    assert!(tree.text("ARCHITECTURE.md").contains("\n```text\nlib\nground\n```\n"));
    let other = tree.file("xtask/floors.txt", "ground\nlib\n\nground/\nstone\n");
    other.finds("ARCHITECTURE.md:", "another table");
    assert!(other.made().text("ARCHITECTURE.md").contains("lib\nground\n\nground/\n  stone\n```"));
}
