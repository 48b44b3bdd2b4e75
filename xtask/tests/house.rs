//! The project itself.

use xtask::house::House;

fn house() -> House {
    House::read(&House::root()).unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn order_is_kept() {
    house().keep_order().unwrap_or_else(|why| panic!("\n{why}"));
}

#[test]
fn it_is_tidy() {
    house().keep_tidy().unwrap_or_else(|why| panic!("\n{why}"));
}

#[test]
fn what_is_written_twice_says_the_same() {
    house().keep_tables().unwrap_or_else(|why| panic!("\n{why}"));
}
