//! Key files.

use bft_net::keys::{Identity, KeyError};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("bft-net-keys-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn with_keys() -> (Self, Identity) {
        let (folder, identity) = (Self::new(), Identity::generate());
        identity.save(&folder.0).unwrap();
        (folder, identity)
    }

    fn link(&self) -> PathBuf {
        self.0.join("link.key")
    }

    fn signing(&self) -> PathBuf {
        self.0.join("signing.key")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refusal(dir: &Path) -> KeyError {
    match Identity::load(dir) {
        Ok(_) => panic!("keys were loaded that must not be"),
        Err(error) => error,
    }
}

#[test]
fn keys_survive_the_disk_and_only_their_owner_reads_them() {
    let (folder, identity) = Folder::with_keys();
    for path in [folder.link(), folder.signing()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 65);
    }
    let loaded = Identity::load(&folder.0).unwrap();
    assert_eq!(loaded.public(), identity.public());
    assert_eq!(loaded.signing_seed(), identity.signing_seed());
    assert!(loaded.public().is_usable());
    assert_ne!(Identity::generate().public(), identity.public());
}

#[test]
fn keys_are_never_overwritten() {
    let (folder, identity) = Folder::with_keys();
    let other = Identity::generate();
    assert!(matches!(other.save(&folder.0), Err(KeyError::Exists(path)) if path == folder.link()));
    // Nor is half a pair added to.
    fs::remove_file(folder.link()).unwrap();
    assert!(
        matches!(other.save(&folder.0), Err(KeyError::Exists(path)) if path == folder.signing())
    );
    assert!(!folder.link().exists());
    identity.save(&Folder::new().0.join("absent")).unwrap_err();
}

#[test]
fn keys_that_others_could_read_are_refused_with_the_remedy() {
    let (folder, _) = Folder::with_keys();
    for mode in [0o640, 0o604, 0o660, 0o601, 0o610, 0o620, 0o644] {
        fs::set_permissions(folder.signing(), Permissions::from_mode(mode)).unwrap();
        let error = refusal(&folder.0);
        assert!(
            matches!(&error, KeyError::TooOpen { path, mode: m } if *path == folder.signing() && *m == mode)
        );
        let (text, path) = (error.to_string(), folder.signing());
        assert!(text.contains(&format!("{mode:04o}")), "{text}");
        assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
    }
    fs::set_permissions(folder.signing(), Permissions::from_mode(0o400)).unwrap();
    Identity::load(&folder.0).unwrap();
}

#[test]
fn missing_keys_say_how_to_make_them() {
    let folder = Folder::new();
    let error = refusal(&folder.0);
    assert!(matches!(&error, KeyError::Missing(path) if *path == folder.link()));
    assert!(error.to_string().contains("bfs-replica init"), "{error}");
}

#[test]
fn what_is_no_key_is_refused() {
    let (folder, _) = Folder::with_keys();
    let digits = "5".repeat(64);
    for bad in [
        "",
        "5",
        &digits[1..],
        &format!("{digits}5"),
        &format!("{}g", &digits[1..]),
        &"5".repeat(1 << 20),
    ] {
        fs::write(folder.link(), bad).unwrap();
        assert!(
            matches!(refusal(&folder.0), KeyError::Malformed(path) if path == folder.link()),
            "{bad:.80}"
        );
    }
    fs::write(folder.link(), &digits).unwrap();
    Identity::load(&folder.0).unwrap();
}
