//! Plans of the cards that there are, and of some that there are not.

use super::*;
use std::convert::Infallible;

fn a100() -> Card {
    Card {
        name: "A100".into(),
        arch: 80,
        multiprocessors: 108,
        shared_per_block: 163 * 1024,
        shared_per_multiprocessor: 164 * 1024,
        l2: 40 << 20,
        cluster: 1,
    }
}

/// What a card says that nobody can ask.
fn modelled(card: &Card) -> impl FnMut(Entry, super::Block) -> Result<u32, Infallible> {
    |_, block| Ok(card.places(block))
}

fn planned(rows: Rows, pass: Pass, card: &Card) -> Option<Plan> {
    Plan::new(rows, pass, card, &mut modelled(card)).unwrap()
}

fn plan(rows: usize, classes: usize, data: Data, pass: Pass, card: &Card) -> Plan {
    planned(Rows { rows, classes, data, aligned: false, streams: 1, twice: false }, pass, card)
        .unwrap()
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

/// Rows that no cluster holds are visited twice in one launch where L2 keeps what comes between the visits, but not
/// where all of them fit it, nor a few of them do not.
#[test]
fn rows_are_visited_twice_where_l2_has_them_still() {
    let rtx_4090 = Card {
        arch: 89,
        multiprocessors: 128,
        shared_per_block: 99 * 1024,
        shared_per_multiprocessor: 100 * 1024,
        l2: 72 << 20,
        ..a100()
    };
    let b200 = Card { arch: 100, multiprocessors: 148, l2: 126 << 20, ..Card::h100() };
    let twice = |parts, lead| Schedule::Twice { parts, lead };
    for (rows, classes, data, card, expected) in [
        (8192, 128_256, Data::BF16, &a100(), twice(4, 4 + 108)),
        (8192, 128_256, Data::F32, &rtx_4090, twice(8, 8 + 128)),
        (8192, 262_144, Data::F32, &rtx_4090, twice(17, 17 + 128)),
        (64, 4_000_000, Data::F32, &b200, twice(245, 245 + 148)),
        (64, 4_000_000, Data::F32, &Card::h100(), Schedule::Split(8)),
        (64, 4_000_000, Data::F32, &rtx_4090, Schedule::Split(8)),
        (100, 128_256, Data::BF16, &a100(), Schedule::Split(4)),
        (8192, 128_256, Data::BF16, &Card::h100(), Schedule::Cluster(8)),
    ] {
        let shape = Rows { rows, classes, data, aligned: false, streams: 1, twice: true };
        let got = planned(shape, Pass::Gradient, card).unwrap();
        assert_eq!(got.schedule, expected, "{rows} × {classes} {data:?} {}: {got}", card.name);
        if let Schedule::Twice { parts, .. } = got.schedule {
            assert_eq!(got.blocks, 2 * parts * rows as u32, "{got}");
            assert_eq!(got.over(1).blocks, 2 * parts, "{got}");
        }
        let once = planned(Rows { twice: false, ..shape }, Pass::Gradient, card).unwrap();
        assert!(!matches!(once.schedule, Schedule::Twice { .. }), "{once}");
    }
}

/// A pack that no row has makes no thread, no block and no larger cluster.
#[test]
fn rows_that_begin_with_a_pack_have_no_slack() {
    let plan = |classes, data, pass, aligned| {
        let rows = Rows { rows: 8192, classes, data, aligned, streams: 1, twice: false };
        planned(rows, pass, &Card::h100()).unwrap()
    };
    let gradient = |classes, aligned| plan(classes, Data::BF16, Pass::Gradient, aligned);
    let (with, without) = (gradient(262_144, false), gradient(262_144, true));
    // 288 threads would have three places and not four.
    assert_eq!((with.slice, with.threads), (2049, 256));
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
    // Of 512 threads, with 64 and 40 registers.
    for held in [2, 3] {
        let places = SPLIT_WAVES as u32 * held * card.multiprocessors;
        for rows in [1, 3, 50, 64, 87] {
            let shape = Rows {
                rows,
                classes: 4_000_000,
                data: Data::F32,
                aligned: false,
                streams: 1,
                twice: false,
            };
            let says = |_, block: super::Block| Ok::<_, Infallible>(held * 512 / block.threads);
            let plan = Plan::new(shape, Pass::Gradient, &card, &mut { says }).unwrap().unwrap();
            assert!(matches!(plan.schedule, Schedule::Split(_)), "{plan}");
            assert!(plan.blocks <= places && (plan.blocks + rows as u32) > places, "{plan}");
        }
    }
}

/// As many threads as a multiprocessor can hold, of three quarters of those that have work and more; and what a
/// device says of one kernel is not what it says of another.
#[test]
fn blocks_are_as_large_as_places_make_them() {
    let shape = Rows {
        rows: 8192,
        classes: 262_144,
        data: Data::F32,
        aligned: true,
        streams: 1,
        twice: false,
    };
    let by_registers = |of_kernel: fn(Entry) -> u32| {
        let says = move |entry, block: super::Block| {
            Ok::<_, Infallible>(65536 / of_kernel(entry) / block.threads)
        };
        [Pass::Forward, Pass::Gradient].map(|pass| {
            Plan::new(shape, pass, &Card::h100(), &mut { says }).unwrap().unwrap().threads
        })
    };
    assert_eq!(by_registers(|_| 64), [512, 512]);
    // 910 threads of 72 registers: twice 448, and only once 512.
    assert_eq!(by_registers(|_| 72), [448, 448]);
    assert_eq!(by_registers(|entry| if entry == Entry::Stream { 72 } else { 64 }), [448, 512]);
    let broken = Plan::new(shape, Pass::Forward, &Card::h100(), &mut |_, _| Err("no device"));
    assert_eq!(broken, Err("no device"));
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
                            Schedule::Twice { .. } | Schedule::SideBySide(_) => {
                                unreachable!("not asked for")
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
    use Forced::{Block, Cluster, Split, Twice};
    let asked = [Block, Cluster(2), Cluster(4), Cluster(8), Cluster(16), Split, Twice];
    for card in [Card::h100(), a100()] {
        for classes in [100, 5000, 50_257, 262_144, 4_000_000] {
            for (data, pass) in
                Data::ALL.into_iter().zip([Pass::Forward, Pass::Gradient].into_iter().cycle())
            {
                let rows = Rows { rows: 8, classes, data, aligned: false, streams: 1, twice: true };
                for forced in asked {
                    let plan = Plan::forced(rows, pass, &card, forced, &mut modelled(&card))
                        .unwrap()
                        .unwrap();
                    let packs = (classes + 2 * data.lanes() - 2) / data.lanes();
                    assert!(plan.slice as usize * plan.parts() as usize >= packs, "{plan}");
                    assert!(plan.shared as usize + STATIC_SHARED <= card.shared_per_block);
                    assert!(plan.cluster() <= card.cluster, "{plan}");
                    let as_asked = match (plan.schedule, forced) {
                        (Schedule::Stream | Schedule::Block, Block) => true,
                        (Schedule::Cluster(n), Cluster(asked)) => n == asked,
                        (Schedule::Split(_), Split) => true,
                        (Schedule::Twice { parts, lead }, Twice) => lead >= parts,
                        _ => false,
                    };
                    let as_ever = planned(rows, pass, &card) == Some(plan);
                    assert!(as_asked || as_ever, "{forced:?}: {plan}");
                }
            }
        }
    }
    let rows =
        Rows { rows: 8, classes: 50_257, data: Data::F32, aligned: false, streams: 1, twice: true };
    let card = Card::h100();
    let plan = |forced| {
        let plan = Plan::forced(rows, Pass::Gradient, &card, forced, &mut modelled(&card));
        plan.unwrap().unwrap()
    };
    assert_eq!(plan(Block).schedule, Schedule::Block);
    assert_eq!(plan(Cluster(2)).schedule, Schedule::Cluster(2));
    assert_eq!(plan(Split).schedule, Schedule::Split(13));
    assert_eq!(plan(Twice).schedule, Schedule::Twice { parts: 4, lead: 4 + 198 });
}

/// A device that runs smaller clusters than its architecture may is planned for as a card that
/// has no larger ones, whatever the shape.
#[test]
fn plans_follow_the_clusters_that_run() {
    for card in [Card::h100(), Card { multiprocessors: 14, ..Card::h100() }] {
        for most in [1, 2, 4, 8, 16] {
            for (rows, classes) in [(1, 60_000), (7, 20_001), (300, 50_257), (8192, 262_144)] {
                for (data, streams) in [(Data::F32, 1), (Data::BF16, 2), (Data::BF16, 1)] {
                    let rows = Rows { rows, classes, data, aligned: false, streams, twice: false };
                    for pass in [Pass::Forward, Pass::Gradient] {
                        let runs = |plan: &Plan| Ok(plan.cluster() <= most);
                        let places = &mut modelled(&card);
                        let got = Plan::running(rows, pass, &card, runs, places).unwrap();
                        let known = Card { cluster: most, ..card.clone() };
                        assert_eq!(got, planned(rows, pass, &known), "{rows:?} {most}");
                    }
                }
            }
        }
    }
    let rows = Rows {
        rows: 300,
        classes: 262_144,
        data: Data::F32,
        aligned: false,
        streams: 1,
        twice: false,
    };
    let card = Card::h100();
    let never =
        Plan::running(rows, Pass::Gradient, &card, |_| Ok(false), &mut modelled(&card)).unwrap();
    assert!(matches!(never.unwrap().schedule, Schedule::Split(_)));
    let places = &mut |_, block| Ok(card.places(block));
    let broken = Plan::running(rows, Pass::Gradient, &card, |_| Err("no device"), places);
    assert_eq!(broken, Err("no device"));
}

#[test]
fn what_a_launch_cannot_count_has_no_plan() {
    let shape = |rows, classes| Rows {
        rows,
        classes,
        data: Data::F32,
        aligned: false,
        streams: 1,
        twice: false,
    };
    for (rows, classes) in [(1, usize::MAX), (1 << 40, 10), (1 << 31, 5000), (1, 1 << 40)] {
        assert_eq!(planned(shape(rows, classes), Pass::Forward, &Card::h100()), None);
    }
}

#[test]
fn rows_side_by_side_have_threads_that_fill_a_card_and_memory_that_fits() {
    let card = Card::h100();
    let of = |rows, classes, data, pass, streams| {
        let rows = Rows { rows, classes, data, aligned: true, streams, twice: false };
        Plan::side_by_side(rows, pass, &card)
    };
    let many = 8 * 512 * 512;
    let plan = of(many, 21, Data::BF16, Pass::Gradient, 1).unwrap();
    assert_eq!((plan.schedule, plan.threads, plan.shared), (Schedule::SideBySide(1), 128, 5376));
    assert_eq!(plan.blocks as usize, many / 128);
    // Long rows, and few, have more threads each; numbers alone take no memory.
    let plan = of(many, 150, Data::F32, Pass::Gradient, 1).unwrap();
    assert_eq!((plan.schedule, plan.threads, plan.shared), (Schedule::SideBySide(4), 128, 19200));
    let plan = of(4096, 150, Data::BF16, Pass::Forward, 1).unwrap();
    assert_eq!((plan.schedule, plan.threads, plan.shared), (Schedule::SideBySide(8), 256, 0));
    assert_eq!(
        of(4096, 10, Data::F32, Pass::Forward, 1).unwrap().schedule,
        Schedule::SideBySide(2)
    );
    for (classes, streams, fits) in [(1024, 1, true), (1025, 1, false), (1024, 2, false)] {
        let plan = of(many, classes, Data::F32, Pass::Gradient, streams);
        assert_eq!(plan.is_some(), fits, "{classes} {streams}");
    }
    // As many rows at a time as one likes.
    let plan = of(many, 21, Data::BF16, Pass::Gradient, 1).unwrap();
    assert_eq!(plan.over(129).blocks, 2);
}
