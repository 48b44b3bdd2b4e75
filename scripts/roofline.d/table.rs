//! Prints what `scripts/roofline` needs of the crate, as JSON: the kernels to compile, and the
//! plans for the shapes that matter. No dependencies: `rustc` alone makes it, from the crate's own
//! table and planner.

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/code/card.rs"]
mod card;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/code/plan.rs"]
mod plan;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/code/variants.rs"]
mod variants;

/// What the table of kernels knows of the crate.
#[allow(dead_code)]
#[path = "../../src/spec"]
mod spec {
    pub(crate) mod elementwise {
        pub(crate) mod functors;
    }
}

use card::Card;
use plan::{Pass, Plan, Rows};
use variants::{Data, Variant};

/// A card as its maker describes it.
fn card(name: &str, arch: u32, multiprocessors: u32, (shared_kib, l2_mib): (usize, usize), cluster: u32) -> Card {
    Card {
        name: name.into(),
        arch,
        multiprocessors,
        shared_per_block: (shared_kib - 1) << 10,
        shared_per_multiprocessor: shared_kib << 10,
        l2: l2_mib << 20,
        cluster,
    }
}

fn kernels() -> String {
    let line = |v: &Variant| {
        let (threads, blocks) = v.bounds();
        let (loss, entry, data, beside) = match v {
            Variant::Row(loss, entry, data) => {
                (format!("{loss:?}"), format!("{entry:?}"), data.name(), loss.beside(*data))
            }
            Variant::Element(loss, entry, data) => {
                (format!("{loss:?}"), format!("{entry:?}"), data.name(), 1)
            }
            Variant::Batch(batch) => ("Batch".into(), format!("{batch:?}"), "", 0),
        };
        format!(
            "{{\"symbol\": {:?}, \"module\": {:?}, \"loss\": {loss:?}, \"entry\": {entry:?}, \
             \"data\": {data:?}, \"beside\": {beside}, \"threads\": {threads}, \"blocks\": {blocks}, \"oldest\": {}, \
             \"text\": {:?}}}",
            v.symbol(),
            v.module().file(),
            if v.runs_on(80) { 80 } else { 90 },
            v.instance(),
        )
    };
    Variant::all().iter().map(line).collect::<Vec<_>>().join(",\n")
}

fn plans() -> String {
    let cards = [
        card("A100", 80, 108, (164, 40), 1),
        card("RTX 4090", 89, 128, (100, 72), 1),
        card("H100", 90, 132, (228, 50), 16),
        card("H200", 90, 132, (228, 50), 16),
        card("B200", 100, 148, (228, 126), 16),
    ];
    let shapes =
        [(8192, 32_000), (8192, 128_256), (8192, 262_144), (64, 4_000_000), (65_536, 512)];
    let mut lines = Vec::new();
    for card in &cards {
        for (rows, classes) in shapes {
            for data in [Data::BF16, Data::F32] {
                for pass in [Pass::Forward, Pass::Gradient] {
                    let shape = Rows { rows, classes, data, aligned: classes * data.size() % 16 == 0, streams: 1, twice: true };
                    let places = &mut |_, block| Ok::<_, std::convert::Infallible>(card.places(block));
                    let Ok(Some(plan)) = Plan::new(shape, pass, card, places) else { continue };
                    lines.push(format!(
                        "{{\"card\": {:?}, \"rows\": {rows}, \"classes\": {classes}, \
                         \"data\": {:?}, \"size\": {}, \"pass\": \"{pass:?}\", \
                         \"schedule\": \"{}\", \"entry\": \"{:?}\", \"threads\": {}, \
                         \"blocks\": {}, \"shared\": {}, \"cluster\": {}}}",
                        card.name,
                        data.name(),
                        data.size(),
                        plan.schedule,
                        plan.entry(pass),
                        plan.threads,
                        plan.blocks,
                        plan.shared,
                        plan.cluster(),
                    ));
                }
            }
        }
    }
    lines.join(",\n")
}

fn main() {
    println!("{{\"kernels\": [\n{}\n],\n\"plans\": [\n{}\n]}}", kernels(), plans());
}
