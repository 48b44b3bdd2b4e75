//! Plans of the cards that there are, and of some that there are not.

use super::*;

fn a100() -> Card {
    Card {
        name: "A100".into(),
        arch: 80,
        multiprocessors: 108,
        shared_per_block: 163 * 1024,
        shared_per_multiprocessor: 164 * 1024,
        cluster: 1,
    }
}

fn plan(rows: usize, classes: usize, data: Data, pass: Pass, card: &Card) -> Plan {
    Plan::new(Rows { rows, classes, data, aligned: false, streams: 1 }, pass, card).unwrap()
}

#[test]
fn schedules_follow_the_shape() {
    use Data::{BF16, F32};
    use Pass::{Forward, Gradient};
    use Schedule::{Block, Cluster, Lanes, Split, Stream};
    let (h100, a100) = (Card::h100(), a100());
    for (rows, classes, data, pass, card, expected) in [
        (32, 10, F32, Gradient, &h100, Lanes(4)),
        (32, 0, F32, Forward, &h100, Lanes(4)),
        (32, 500, F32, Forward, &h100, Lanes(32)),
        (32, 1000, BF16, Gradient, &h100, Lanes(32)),
        (8192, 8000, F32, Gradient, &h100, Block),
        (8192, 32_000, BF16, Gradient, &h100, Cluster(2)),
        (8192, 128_256, BF16, Gradient, &h100, Cluster(8)),
        (8192, 128_256, F32, Gradient, &h100, Cluster(16)),
        (8192, 262_144, BF16, Gradient, &h100, Cluster(16)),
        (8192, 262_144, F32, Gradient, &h100, Cluster(16)),
        (64, 4_000_000, F32, Gradient, &h100, Split(8)),
        (8192, 262_144, F32, Forward, &h100, Stream),
        (1, 262_144, F32, Forward, &h100, Split(65)),
        (1, 262_144, F32, Gradient, &h100, Split(65)),
        (1, 60_000, F32, Gradient, &h100, Cluster(8)),
        (8192, 32_000, BF16, Gradient, &a100, Block),
        (8192, 128_256, BF16, Gradient, &a100, Split(1)),
    ] {
        let got = plan(rows, classes, data, pass, card);
        assert_eq!(got.schedule, expected, "{rows} × {classes} {data:?} {pass:?}: {got}");
    }
}

/// A pack that no row has makes no thread, no block and no larger cluster.
#[test]
fn rows_that_begin_with_a_pack_have_no_slack() {
    let plan = |classes, data, pass, aligned| {
        let rows = Rows { rows: 8192, classes, data, aligned, streams: 1 };
        Plan::new(rows, pass, &Card::h100()).unwrap()
    };
    let gradient = |classes, aligned| plan(classes, Data::BF16, Pass::Gradient, aligned);
    let (with, without) = (gradient(262_144, false), gradient(262_144, true));
    assert_eq!((with.slice, with.threads), (2049, 288));
    assert_eq!((without.slice, without.threads), (2048, 256));
    assert_eq!(gradient(131_072, false).schedule, Schedule::Cluster(16));
    assert_eq!(gradient(131_072, true).schedule, Schedule::Cluster(8));
    assert_eq!(plan(512, Data::F32, Pass::Forward, false).schedule, Schedule::Stream);
    assert_eq!(plan(512, Data::F32, Pass::Forward, true).schedule, Schedule::Lanes(32));
}

/// Parts of rows fill the places that there are, and no more.
#[test]
fn split_rows_are_whole_waves() {
    let card = Card::h100();
    let places = (SPLIT_BLOCKS as u32) * card.multiprocessors;
    for rows in [1, 3, 50, 64, 87] {
        let plan = plan(rows, 4_000_000, Data::F32, Pass::Gradient, &card);
        assert!(matches!(plan.schedule, Schedule::Split(_)), "{plan}");
        assert!(plan.blocks <= places && (plan.blocks + rows as u32) > places, "{plan}");
    }
}

/// Whatever the shape: blocks cover every pack, and nothing exceeds the card.
#[test]
fn every_plan_covers_its_rows_within_the_card() {
    let cards = [Card::h100(), a100(), Card { shared_per_block: 4096, ..Card::h100() }];
    for card in &cards {
        for rows in [1, 2, 63, 1000, 100_000] {
            for classes in [0, 1, 63, 64, 65, 2047, 4096, 50_257, 262_145, 40_000_000] {
                for data in Data::ALL {
                    for pass in [Pass::Forward, Pass::Gradient] {
                        let plan = plan(rows, classes, data, pass, card);
                        let packs = (classes + 2 * data.lanes() - 2) / data.lanes();
                        let blocks = plan.blocks as usize;
                        assert!(plan.slice as usize * plan.parts() as usize >= packs, "{plan}");
                        assert!(plan.threads.is_multiple_of(32) && plan.threads <= 512);
                        assert_eq!(plan.over(rows), plan);
                        assert!(plan.cluster() <= card.cluster, "{plan}");
                        match plan.schedule {
                            Schedule::Lanes(n) => {
                                let n = n as usize;
                                assert!(packs <= n * LANE_PACKS, "{plan}");
                                assert!(blocks * plan.threads as usize / n >= rows, "{plan}");
                            }
                            Schedule::Block | Schedule::Cluster(_) => {
                                let needs = plan.shared as usize + STATIC_SHARED;
                                assert!(needs <= card.shared_per_block, "{plan}");
                                assert!(plan.shared as usize >= plan.slice as usize * PACK_BYTES);
                                assert_eq!(blocks, rows * plan.parts() as usize);
                            }
                            Schedule::Stream | Schedule::Split(_) => {
                                assert_eq!(blocks, rows * plan.parts() as usize);
                                assert!(plan.parts() as usize <= MAX_PARTS);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where a schedule that is asked for can be, it is; and it fits the card as others do.
#[test]
fn forced_plans_are_what_was_asked_for_or_as_ever() {
    use Forced::{Block, Cluster, Split};
    let asked = [Block, Cluster(2), Cluster(4), Cluster(8), Cluster(16), Split];
    for card in [Card::h100(), a100()] {
        for classes in [100, 5000, 50_257, 262_144, 4_000_000] {
            for (data, pass) in
                Data::ALL.into_iter().zip([Pass::Forward, Pass::Gradient].into_iter().cycle())
            {
                let rows = Rows { rows: 8, classes, data, aligned: false, streams: 1 };
                for forced in asked {
                    let plan = Plan::forced(rows, pass, &card, forced).unwrap();
                    let packs = (classes + 2 * data.lanes() - 2) / data.lanes();
                    assert!(plan.slice as usize * plan.parts() as usize >= packs, "{plan}");
                    assert!(plan.shared as usize + STATIC_SHARED <= card.shared_per_block);
                    assert!(plan.cluster() <= card.cluster, "{plan}");
                    let as_asked = match (plan.schedule, forced) {
                        (Schedule::Stream | Schedule::Block, Block) => true,
                        (Schedule::Cluster(n), Cluster(asked)) => n == asked,
                        (Schedule::Split(_), Split) => true,
                        _ => false,
                    };
                    let as_ever = Plan::new(rows, pass, &card) == Some(plan);
                    assert!(as_asked || as_ever, "{forced:?}: {plan}");
                }
            }
        }
    }
    let rows = Rows { rows: 8, classes: 50_257, data: Data::F32, aligned: false, streams: 1 };
    let plan = |forced| Plan::forced(rows, Pass::Gradient, &Card::h100(), forced).unwrap();
    assert_eq!(plan(Block).schedule, Schedule::Block);
    assert_eq!(plan(Cluster(2)).schedule, Schedule::Cluster(2));
    assert_eq!(plan(Split).schedule, Schedule::Split(13));
}

/// A device that runs smaller clusters than its architecture may is planned for as a card that
/// has no larger ones, whatever the shape.
#[test]
fn plans_follow_the_clusters_that_run() {
    for card in [Card::h100(), Card { multiprocessors: 14, ..Card::h100() }] {
        for most in [1, 2, 4, 8, 16] {
            for (rows, classes) in [(1, 60_000), (7, 20_001), (300, 50_257), (8192, 262_144)] {
                for (data, streams) in [(Data::F32, 1), (Data::BF16, 2), (Data::BF16, 1)] {
                    let rows = Rows { rows, classes, data, aligned: false, streams };
                    for pass in [Pass::Forward, Pass::Gradient] {
                        let runs = |plan: &Plan| Ok::<_, ()>(plan.cluster() <= most);
                        let got = Plan::running(rows, pass, &card, runs).unwrap();
                        let known = Card { cluster: most, ..card.clone() };
                        assert_eq!(got, Plan::new(rows, pass, &known), "{rows:?} {most}");
                    }
                }
            }
        }
    }
    let rows = Rows { rows: 300, classes: 262_144, data: Data::F32, aligned: false, streams: 1 };
    let never = Plan::running(rows, Pass::Gradient, &Card::h100(), |_| Ok::<_, ()>(false));
    assert!(matches!(never.unwrap().unwrap().schedule, Schedule::Split(_)));
    let broken = Plan::running(rows, Pass::Gradient, &Card::h100(), |_| Err("no device"));
    assert_eq!(broken, Err("no device"));
}

#[test]
fn what_a_launch_cannot_count_has_no_plan() {
    let shape = |rows, classes| Rows { rows, classes, data: Data::F32, aligned: false, streams: 1 };
    for (rows, classes) in [(1, usize::MAX), (1 << 40, 10), (1 << 31, 5000), (1, 1 << 40)] {
        assert_eq!(Plan::new(shape(rows, classes), Pass::Forward, &Card::h100()), None);
    }
}
