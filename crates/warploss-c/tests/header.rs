//! The header is what the source says: `WARPLOSS_WRITE_HEADER=1 cargo test --test header` writes it anew.

#[test]
fn the_header_is_that_of_the_source() {
    let root = env!("CARGO_MANIFEST_DIR");
    let config = cbindgen::Config::from_file(format!("{root}/cbindgen.toml")).expect("settings");
    let made = cbindgen::Builder::new().with_crate(root).with_config(config).generate();
    let mut text = Vec::new();
    made.expect("a header").write(&mut text);
    let text = String::from_utf8(text).expect("text");
    let path = format!("{root}/include/warploss.h");
    if std::env::var_os("WARPLOSS_WRITE_HEADER").is_some() {
        std::fs::write(&path, &text).expect("a file");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "include/warploss.h is not what src/ says: {}", module_path!());
}
