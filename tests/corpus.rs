//! The properties that are fuzzed, over the bytes that fuzzing has kept.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::path::Path;

#[test]
fn every_property_holds_over_its_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, property) in properties::PROPERTIES {
        let corpus = corpora.join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&corpus).expect("each property has a corpus") {
            let path = entry.expect("a directory that can be read").path();
            let data = std::fs::read(&path).expect("a file");
            let holds = std::panic::catch_unwind(|| property(&data));
            assert!(holds.is_ok(), "{} does not hold", path.display());
            count += 1;
        }
        assert!(count >= 5, "{count} files in {}", corpus.display());
    }
}
