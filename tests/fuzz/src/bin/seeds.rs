//! Writes the inputs that libFuzzer begins with: `seeds DIRECTORY` makes a directory in it for each target.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory: PathBuf = std::env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, "give the directory to write the inputs to")
    })?;
    for target in fuzz::TARGETS {
        let directory = directory.join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
