//! The negative control of `cargo xtask engine-object`: each check finds what it is there for, and names
//! the function that holds it; a crate without defects passes.

#![cfg(target_arch = "x86_64")]

use std::collections::BTreeMap;
use std::path::Path;

use xtask::Workspace;
use xtask::engine_object::build::{KernelCrate, Output, build};
use xtask::engine_object::checks::Object;
use xtask::engine_object::variants::{VARIANTS, Variant};

const BAD: KernelCrate = KernelCrate { name: "bad_object", source: "xtask/tests/bad-object/lib.rs", uses: &[] };
const GOOD: KernelCrate = KernelCrate { name: "good_object", source: "xtask/tests/good-object/lib.rs", uses: &[] };

fn variant(name: &str) -> &'static Variant {
    VARIANTS.iter().find(|variant| variant.name == name).expect("a variant of that name")
}

/// Builds one crate in a folder of the test's own and gives the violations of each check.
fn violations(test: &str, kernel_crate: KernelCrate, variant: &Variant) -> BTreeMap<&'static str, Vec<String>> {
    let workspace = Workspace::discover().expect("a workspace");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test).join(variant.name);
    let output = Output { object: folder.join("linked.o"), folder };
    build(&workspace, &[kernel_crate], variant, None, &output).expect("the crate builds");
    let object = Object::read(&workspace, &output.object).expect("the object can be read");
    object.check(variant).into_iter().map(|check| (check.name, check.violations)).collect()
}

/// Whether some violation holds all of these words.
fn mentions(violations: &[String], words: &[&str]) -> bool {
    violations.iter().any(|violation| words.iter().all(|word| violation.contains(word)))
}

#[test]
fn each_check_finds_its_defect_and_the_function_that_holds_it() {
    let found = violations("each", BAD, variant("ibt-rethunk-padded"));
    let expected: [(&str, &[&str]); 9] = [
        ("undefined symbols", &["panic_bounds_check", "bad_slice_index"]),
        ("undefined symbols", &["__addsf3", "bad_float"]),
        ("panic paths", &["core::panicking", "bad_slice_index"]),
        ("vector registers", &["bad_vector_register", "pxor", "%xmm0"]),
        ("indirect branches", &["bad_function_pointer", "*%"]),
        ("relocations", &["GOTPCREL", "dmaplane_glue_table", "bad_relocation"]),
        ("bare returns", &["bad_naked", "ret"]),
        ("branch target marks", &["bad_naked", "endbr64"]),
        ("padding", &["6 functions", "only 5"]),
    ];
    for (check, words) in expected {
        assert!(mentions(&found[check], words), "{check} {words:?}: {:?}", found[check]);
    }
    for check in found.keys() {
        assert!(expected.iter().any(|(name, _)| name == check), "{check} has no control");
    }
}

#[test]
fn a_check_finds_only_what_it_is_there_for() {
    let found = violations("only", BAD, variant("ibt-rethunk-padded"));
    for check in ["panic paths", "vector registers", "indirect branches", "bare returns"] {
        assert_eq!(found[check].len(), 1, "{check}: {:?}", found[check]);
    }
    assert_eq!(found["undefined symbols"].len(), 2, "{:?}", found["undefined symbols"]);
}

#[test]
fn a_return_thunk_is_foreign_where_the_kernel_has_none() {
    let found = violations("plain", BAD, variant("plain"));
    assert!(!mentions(&found["undefined symbols"], &["__x86_return_thunk"]));
    assert!(!found.contains_key("bare returns"));
}

#[test]
fn a_crate_without_defects_passes_in_every_variant() {
    for variant in VARIANTS {
        for (check, violations) in violations("good", GOOD, variant) {
            assert!(violations.is_empty(), "{} {check}: {violations:?}", variant.name);
        }
    }
}
