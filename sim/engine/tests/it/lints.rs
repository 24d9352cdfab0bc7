//! clippy.toml forbids what would make a world depend on more than its seed: a real clippy finds each of
//! these in a small crate. The libraries are stand-ins of a line each, since only their paths matter.

use std::path::{Path, PathBuf};
use std::process::Command;

const LIBRARIES: [(&str, &str); 4] = [
    ("tokio", "#[macro_export] macro_rules! select { ($($branch:tt)*) => { () }; }"),
    ("uuid", "pub struct Uuid; impl Uuid { pub fn now_v7() {} pub fn new_v4() {} }"),
    ("chrono", "pub struct Utc; impl Utc { pub fn now() {} }"),
    ("rand", "pub fn random() {}"),
];

/// Each is forbidden, and named so in clippy's words.
const FORBIDDEN: [(&str, &str); 9] = [
    ("type _A = std::collections::HashMap<u8, u8>;", "`std::collections::HashMap`"),
    ("type _B = std::collections::HashSet<u8>;", "`std::collections::HashSet`"),
    ("fn _d() { let _ = std::time::Instant::now(); }", "`std::time::Instant::now`"),
    ("fn _e() { let _ = std::time::SystemTime::now(); }", "`std::time::SystemTime::now`"),
    ("fn _f() { chrono::Utc::now(); }", "`chrono::Utc::now`"),
    ("fn _g() { drop(std::thread::spawn(|| ())); }", "`std::thread::spawn`"),
    ("fn _h() { let () = tokio::select! { _ = a => {} }; }", "`tokio::select`"),
    ("fn _i() { uuid::Uuid::now_v7(); }", "`uuid::Uuid::now_v7`"),
    ("fn _j() { rand::random(); }", "`rand::random`"),
];

fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|cause| panic!("{command:?}: {cause}"));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(folder: &Path, name: &str, source: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    std::fs::write(&file, source).expect("the build's own folder can be written");
    file
}

#[test]
fn clippy_finds_every_source_of_nondeterminism_it_is_told_of() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut clippy = Command::new("clippy-driver");
    clippy.env("CLIPPY_CONF_DIR", root).current_dir(folder);
    clippy.args(["--edition=2024", "--crate-type=lib", "--emit=metadata"]);
    for kind in ["types", "methods", "macros"] {
        clippy.arg(format!("-Wclippy::disallowed_{kind}"));
    }
    for (name, source) in LIBRARIES {
        let file = write(folder, name, source);
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "--crate-type=rlib", "--emit=metadata"]).arg(file);
        assert_eq!(ran(rustc.current_dir(folder)), "", "the stand-in for {name}");
        clippy.arg(format!("--extern={name}=lib{name}.rmeta"));
    }
    let source: String = FORBIDDEN.iter().map(|(line, _)| format!("{line}\n")).collect();
    let said = ran(clippy.arg(write(folder, "forbidden", &source)));
    for (number, (line, named)) in FORBIDDEN.iter().enumerate() {
        assert!(said.contains(named), "{line} is not found:\n{said}");
        let at = format!("forbidden.rs:{}:", number + 1);
        assert!(said.contains(&at), "{line} is not found:\n{said}");
    }
    assert!(!said.contains("error"), "{said}");
}
