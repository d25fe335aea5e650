//! The file that is received: without a name until it is complete.
//!
//! Where the file system can (`O_TMPFILE`), it has no name at all before, so that nothing is left of it even when this
//! process is killed. Elsewhere it is `.NAME.partial-PID` in the same folder, which goes with any error or signal.

use super::signals;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Before the umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
/// Temporary names that are tried, where others have them.
const NAMES_TRIED: u32 = 100;

/// A file under way.
#[derive(Debug)]
pub struct Output {
    file: File,
    folder: File,
    path: PathBuf,
    name: OsString,
    /// Its name for the time being; none where it needs none.
    temporary: Option<Temporary>,
}

/// A name that goes when this does.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    name: OsString,
    _on_signal: signals::Removal,
}

impl Temporary {
    /// Finds a name that nobody has. `make` makes it, and must refuse one that is there: what a dead process left, or
    /// somebody planted, is not written to and does not go with us.
    fn claim<T>(
        parent: &Path,
        of: &OsStr,
        make: impl Fn(&OsStr) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<(Temporary, T)> {
        for attempt in 0..NAMES_TRIED {
            let mut name = OsString::from(".");
            name.push(of);
            name.push(format!(".partial-{}", std::process::id()));
            if attempt > 0 {
                name.push(format!("-{attempt}"));
            }
            let path = parent.join(&name);
            match signals::remove_on_signal(path.clone(), || make(&name)) {
                Ok((made, on_signal)) => return Ok((Temporary { path, name, _on_signal: on_signal }, made)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Output {
    /// Makes the file, so that whatever forbids it shows at once.
    pub fn create(path: &Path) -> Result<Output> {
        let name = path.file_name().ok_or_else(|| anyhow!("{} names no file", path.display()))?.to_owned();
        match fs::metadata(path) {
            Ok(existing) if !existing.is_file() => bail!("{} exists and is no regular file", path.display()),
            _ => {}
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = || format!("cannot write in {}", parent.display());
        let folder = File::open(parent).with_context(cannot)?;
        let unnamed = match Path::new("/proc/self/fd").exists() {
            true => rustix::fs::openat(&folder, ".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, FILE_MODE),
            false => Err(Errno::OPNOTSUPP),
        };
        let (file, temporary) = match unnamed {
            Ok(file) => (File::from(file), None),
            // Old kernels know no O_TMPFILE, some file systems neither, and each says so in its own way.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let (temporary, file) = named(&folder, parent, &name).with_context(cannot)?;
                (file, Some(temporary))
            }
            Err(error) => return Err(error).with_context(cannot),
        };
        Ok(Output { file, folder, path: path.to_owned(), name, temporary })
    }

    /// Its name for the time being, where it needs one.
    pub fn partial(&self) -> Option<&Path> {
        self.temporary.as_ref().map(|temporary| temporary.path.as_path())
    }

    /// Takes the room that the file will need. A full disk shows here, before anything moves.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            // Where it cannot be asked for, the writes will tell.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(self.failed(error.into(), bytes)),
        }
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed(error, offset + bytes.len() as u64))
    }

    fn failed(&self, error: std::io::Error, bytes: u64) -> anyhow::Error {
        let path = self.path.display();
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => anyhow!("disk full: no room for the {bytes} bytes of {path}"),
            Some(Errno::FBIG) => anyhow!("{bytes} bytes are more than a file may have here: {path}"),
            _ => anyhow!("writing {path}: {error}"),
        }
    }

    /// Gives the complete file its name, in place of what has it, at one stroke, for good.
    pub fn commit(mut self) -> Result<()> {
        let path = self.path.clone();
        let cannot = || format!("writing {}", path.display());
        self.file.sync_all().with_context(cannot)?;
        if self.temporary.is_none() {
            match self.link(&self.name) {
                Ok(()) => return self.folder.sync_all().with_context(cannot),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error).with_context(cannot),
            }
            // A link does not replace: by a second name, then.
            let parent = path.parent().unwrap_or(Path::new("."));
            let (temporary, ()) = Temporary::claim(parent, &self.name, |name| self.link(name)).with_context(cannot)?;
            self.temporary = Some(temporary);
        }
        if let Some(temporary) = &self.temporary {
            rustix::fs::renameat(&self.folder, &temporary.name, &self.folder, &self.name).with_context(cannot)?;
        }
        self.folder.sync_all().with_context(cannot)
    }

    fn link(&self, name: &OsStr) -> rustix::io::Result<()> {
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(rustix::fs::CWD, open, self.folder.as_fd(), name, AtFlags::SYMLINK_FOLLOW)
    }
}

/// A file with a temporary name, where no file can be without one.
fn named(folder: &File, parent: &Path, of: &OsStr) -> rustix::io::Result<(Temporary, File)> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let open = |name: &OsStr| rustix::fs::openat(folder, name, flags, FILE_MODE).map(File::from);
    Temporary::claim(parent, of, open)
}

#[cfg(test)]
impl Output {
    /// As where there is no O_TMPFILE.
    pub fn create_named(path: &Path) -> Output {
        let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap().to_owned());
        let folder = File::open(parent).unwrap();
        let (temporary, file) = named(&folder, parent, &name).unwrap();
        Output { file, folder, path: path.to_owned(), name, temporary: Some(temporary) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_name_comes_with_the_whole_file_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for contents in [&b"first"[..], b"the second"] {
            let before = fs::read(&path).ok();
            let dropped = Output::create(&path).unwrap();
            dropped.write_at(b"half", 0).unwrap();
            drop(dropped);
            assert_eq!(fs::read(&path).ok(), before);
            let output = Output::create(&path).unwrap();
            output.reserve(contents.len() as u64).unwrap();
            output.write_at(contents, 0).unwrap();
            output.commit().unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
            assert_eq!(names(folder.path()), ["out"]);
        }
    }

    #[test]
    fn a_named_temporary_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let output = Output::create_named(&path);
        assert_eq!(names(folder.path()), [format!(".out.partial-{}", std::process::id()).as_str()]);
        drop(output);
        assert!(names(folder.path()).is_empty());
        let output = Output::create_named(&path);
        output.write_at(b"all", 0).unwrap();
        output.commit().unwrap();
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_planted_link_is_not_followed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("out"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        let planted = format!(".out.partial-{}", std::process::id());
        std::os::unix::fs::symlink(&victim, folder.path().join(&planted)).unwrap();
        for contents in [&b"first"[..], b"the second"] {
            let output = Output::create_named(&path);
            output.write_at(contents, 0).unwrap();
            output.commit().unwrap();
            // And by way of a link's second name, where there is something to replace.
            let output = Output::create(&path).unwrap();
            output.write_at(contents, 0).unwrap();
            output.commit().unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
            assert_eq!(names(folder.path()), [planted.as_str(), "out", "victim"]);
        }
    }

    #[test]
    fn places_where_no_file_can_be_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| format!("{:#}", Output::create(path).unwrap_err());
        assert!(message(folder.path()).ends_with("exists and is no regular file"));
        assert!(message(&folder.path().join("a/b")).contains("No such file"));
        assert!(message(Path::new("/")).contains("names no file"));
    }
}
