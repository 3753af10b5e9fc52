//! Takes the console into the program: what stands in console/dist, gzipped, as a table that `src/api/console.rs` includes.
//!
//! A build without it is whole, and says on its page how the console is made. A file that no browser would be told the kind of
//! stops the build.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The page, which every visit gets with a nonce of its own.
const INDEX: &str = "index.html";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names no folder")?);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo names no folder for what is made")?);
    let mut told = io::stdout();
    writeln!(told, "cargo::rerun-if-changed=build.rs")?;
    let console = root.join("../console");
    let dist = console.join("dist");
    if console.is_dir() {
        // What isn't there can't be watched: cargo would build the crate anew every time.
        fs::create_dir_all(&dist)?;
        writeln!(told, "cargo::rerun-if-changed={}", dist.display())?;
    }
    fs::write(out.join("console.rs"), table(&dist, &out)?)?;
    Ok(())
}

/// The table of what the folder holds, as Rust.
fn table(dist: &Path, out: &Path) -> Result<String, Box<dyn Error>> {
    let mut names = Vec::new();
    if dist.join(INDEX).is_file() {
        for entry in fs::read_dir(dist)? {
            names.push(
                entry?.file_name().into_string().map_err(|name| format!("{} is no text", name.display()))?,
            );
        }
    }
    names.sort_unstable();
    // Copied, as the files are: a console that is made anew while the program is compiled must not mix its page with their names.
    let index = if names.iter().any(|name| name == INDEX) {
        let copied = out.join(INDEX);
        fs::copy(dist.join(INDEX), &copied)?;
        format!("Some(include_str!({copied:?}))")
    } else {
        "None".to_owned()
    };
    let mut table = format!("static INDEX: Option<&str> = {index};\nstatic FILES: &[File] = &[\n");
    for name in names.iter().filter(|name| *name != INDEX && !name.starts_with('.')) {
        let kind = content_type(name)
            .ok_or_else(|| format!("console/dist/{name}: there is no Content-Type for it"))?;
        let gzipped = out.join(format!("{name}.gz"));
        let mut encoder = GzEncoder::new(fs::File::create(&gzipped)?, Compression::best());
        encoder.write_all(&fs::read(dist.join(name))?)?;
        encoder.finish()?;
        writeln!(
            table,
            "    File {{ name: {name:?}, content_type: {kind:?}, is_for_ever: {}, gzipped: include_bytes!({gzipped:?}) }},",
            has_hash(name)
        )?;
    }
    table.push_str("];\n");
    Ok(table)
}

fn content_type(name: &str) -> Option<&'static str> {
    Some(match Path::new(name).extension()?.to_str()? {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "map" => "application/json",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "woff2" => "font/woff2",
        _ => return None,
    })
}

/// Whether the name says what is inside, as esbuild's do: `app-5XQFAB2C.js` never becomes something else.
fn has_hash(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    stem.rsplit_once('-').is_some_and(|(_, hash)| {
        hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    })
}
