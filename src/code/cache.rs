//! Compiled kernels on disk. An entry is written to a name of its own and renamed, so that two
//! processes may race; what does not match its checksum is as good as absent. Used by the build
//! script too.

use std::io::Write as _;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"wlcubin1";

/// FNV-1a with 128 bits: the same everywhere and for ever, unlike the standard library's hasher.
#[derive(Clone, Copy)]
pub(crate) struct Key(u128);

impl Key {
    pub(crate) const fn new() -> Key {
        Key(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// The key with `bytes` and their length mixed in.
    pub(crate) fn with(self, bytes: &[u8]) -> Key {
        let mix = |key: u128, byte: &u8| {
            (key ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        };
        let key = (bytes.len() as u64).to_le_bytes().iter().fold(self.0, mix);
        Key(bytes.iter().fold(key, mix))
    }
}

/// A folder of compiled kernels.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The user's cache folder; `None` where there is none to be told.
    pub(crate) fn of_user() -> Option<Cache> {
        let env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = env("WARPLOSS_CACHE")
            .or_else(|| env("XDG_CACHE_HOME").map(|dir| dir.join("warploss")))
            .or_else(|| env("LOCALAPPDATA").map(|dir| dir.join("warploss")))
            .or_else(|| env("HOME").map(|dir| dir.join(".cache/warploss")))?;
        Some(Cache::at(folder))
    }

    fn path(&self, key: Key) -> PathBuf {
        self.folder.join(format!("{:032x}.cubin", key.0))
    }

    /// The entry, if there is one and it is whole.
    pub(crate) fn get(&self, key: Key) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.path(key)).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, content) = rest.split_at_checked(16)?;
        (sum == Key::new().with(content).0.to_le_bytes()).then(|| content.to_vec())
    }

    /// Keeps an entry; a cache that cannot be written is no error.
    pub(crate) fn put(&self, key: Key, content: &[u8]) {
        let _ = self.try_put(&self.path(key), content);
    }

    fn try_put(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::fs::create_dir_all(&self.folder)?;
        let temporary = path.with_extension(format!("{}-{count}.tmp", std::process::id()));
        let written = std::fs::File::create(&temporary).and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&Key::new().with(content).0.to_le_bytes())?;
            file.write_all(content)?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        renamed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("warploss-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn an_entry_comes_back_and_a_damaged_one_does_not() {
        let folder = folder("cache");
        let cache = Cache::at(&folder);
        let key = Key::new().with(b"source").with(b"sm_90");
        assert_eq!(cache.get(key), None);
        cache.put(key, b"machine code");
        assert_eq!(cache.get(key).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(cache.get(Key::new().with(b"sources").with(b"m_90")), None);
        let path = cache.path(key);
        let whole = std::fs::read(&path).unwrap();
        for (at, cut) in [(0, whole.len()), (9, whole.len()), (30, whole.len()), (0, 20)] {
            let mut damaged = whole[..cut].to_vec();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(cache.get(key), None);
        }
        cache.put(key, b"machine code");
        assert!(cache.get(key).is_some());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn writers_may_race() {
        let folder = folder("race");
        let key = Key::new().with(b"raced");
        std::thread::scope(|scope| {
            for i in 0..4u8 {
                let folder = &folder;
                scope.spawn(move || {
                    let cache = Cache::at(folder);
                    for _ in 0..20 {
                        cache.put(key, &[i; 1000]);
                        let seen = cache.get(key).expect("whole at every moment");
                        assert!(seen.iter().all(|&b| b == seen[0]));
                    }
                });
            }
        });
        std::fs::remove_dir_all(folder).unwrap();
    }
}
