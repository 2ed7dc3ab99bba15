//! What `-o` accepts: our own options, the kernel's, and the generic ones that fstab, mount(8) and systemd pass along.

use crate::failure::{Exit, Failure, Outcome};
use fuser::{Config, MountOption, SessionACL};
use std::time::Duration;

/// What a reader may rely on while others write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every operation goes to the group; nothing is answered from this machine's caches. Linearizable.
    Strict,
    /// Attributes, names and data are cached, and revalidated once their attributes are `ttl` old.
    CloseToOpen {
        /// How long cached attributes and names are trusted.
        ttl: Duration,
        /// Whether open(2) asks the group all the same.
        at_open: bool,
    },
}

/// How long an operation waits for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For ever; only `umount --force` ends it.
    Hard,
    /// At most this long, then EIO.
    Soft(Duration),
}

/// The options of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Refuse every change.
    pub read_only: bool,
    /// What readers may rely on.
    pub consistency: Consistency,
    /// How long operations wait.
    pub patience: Patience,
    /// Whether users other than the one who mounts may enter; unset, only root's mounts are open to all.
    pub allow_other: Option<bool>,
    /// Honour set-user-id and set-group-id bits.
    pub suid: bool,
    /// Honour device files.
    pub dev: bool,
    /// Allow programs to run.
    pub exec: bool,
    /// Whether locks hold for the whole group, or on this machine only.
    pub locks: bool,
}

/// How long attributes and names are cached unless `actimeo=` says otherwise.
const DEFAULT_TTL: Duration = Duration::from_secs(1);
/// The longest `actimeo=`: a day.
const MAX_TTL_SECONDS: u32 = 86_400;
/// The patience of `soft` without `timeo=`.
const DEFAULT_TIMEO: Duration = Duration::from_secs(60);

/// Options that mean something here, with their help.
const KNOWN: &[(&str, &str)] = &[
    ("ro | rw", "read-only, or read and write (default)"),
    (
        "close-to-open",
        "cache attributes, names and data, and revalidate them after actimeo (default)",
    ),
    (
        "cto | nocto",
        "close-to-open asks the group at open(2) whether a file has changed (default), or trusts actimeo there too",
    ),
    ("strict", "send every operation to the group: linearizable, slower"),
    ("actimeo=SECONDS", "how long close-to-open trusts cached attributes and names (default 1)"),
    (
        "hard | soft",
        "wait for the group for ever (default), or give up with an I/O error after timeo",
    ),
    ("timeo=DECISECONDS", "patience of soft, in tenths of a second as in nfs(5) (default 600)"),
    (
        "allow_other | noallow_other",
        "who may enter: everyone (default for root) or only the mounting user",
    ),
    ("suid | nosuid, dev | nodev", "honour set-id bits and devices, or not (default)"),
    ("exec | noexec", "allow programs to run (default), or not"),
    (
        "lock | nolock",
        "locks hold for the whole group (default), or on this machine only: closing files is then faster",
    ),
    ("default_permissions", "accepted; it is always on"),
];

/// Options that other programs pass and that change nothing here.
const IGNORED: &[&str] = &[
    "defaults",
    "default_permissions",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "fail",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "sync",
    "async",
    "dirsync",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
];

/// Beginnings of options that other programs keep for themselves.
const IGNORED_PREFIXES: &[&str] = &["x-", "X-", "comment=", "uhelper=", "helper="];

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            consistency: Consistency::CloseToOpen { ttl: DEFAULT_TTL, at_open: true },
            patience: Patience::Hard,
            allow_other: None,
            suid: false,
            dev: false,
            exec: true,
            locks: true,
        }
    }
}

impl MountOptions {
    /// Reads comma-separated options; of two that contradict each other the later one holds, as in mount(8).
    ///
    /// Errors: an unknown option or a value out of range, as one usage failure that names it.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Outcome<Self> {
        let mut draft = Draft::default();
        for option in lists.into_iter().flat_map(|list| list.split(',')) {
            draft.take(option.trim())?;
        }
        Ok(draft.finish())
    }

    /// How long the kernel may trust names and attributes.
    pub fn ttl(&self) -> Duration {
        match self.consistency {
            Consistency::Strict => Duration::ZERO,
            Consistency::CloseToOpen { ttl, .. } => ttl,
        }
    }

    /// Whether open(2) asks the group if a file is as it was known.
    pub fn revalidates(&self) -> bool {
        matches!(self.consistency, Consistency::CloseToOpen { at_open: true, .. })
    }

    /// Whether users other than the mounting one may enter, given who mounts.
    pub fn open_to_all(&self, root: bool) -> bool {
        self.allow_other.unwrap_or(root)
    }

    /// What the mount library is told. `source` is what /proc/mounts shows as the device.
    pub fn fuse_config(&self, source: &str, root: bool) -> Config {
        let mut config = Config::default();
        config.acl = if self.open_to_all(root) { SessionACL::All } else { SessionACL::Owner };
        config.mount_options = vec![
            MountOption::FSName(source.to_owned()),
            // As a kernel option, so that it counts on the direct path of root as well as through fusermount.
            MountOption::CUSTOM("subtype=bfs".into()),
            MountOption::DefaultPermissions,
            if self.read_only { MountOption::RO } else { MountOption::RW },
            if self.suid { MountOption::Suid } else { MountOption::NoSuid },
            if self.dev { MountOption::Dev } else { MountOption::NoDev },
            if self.exec { MountOption::Exec } else { MountOption::NoExec },
        ];
        config
    }

    /// The consistency in one line, for whoever mounts.
    pub fn describe(&self) -> String {
        let consistency = match self.consistency {
            Consistency::Strict => "strict: every operation goes to the group".to_owned(),
            Consistency::CloseToOpen { ttl, at_open } => {
                let when = if at_open { "at open(2), or " } else { "" };
                let ttl = ttl.as_secs_f64();
                format!(
                    "close-to-open: others' changes show {when}within {ttl} s, writes are gathered until close(2) or fsync(2)"
                )
            }
        };
        let patience = match self.patience {
            Patience::Hard => "hard: waits for the group".to_owned(),
            Patience::Soft(limit) => format!("soft: I/O error after {} s", limit.as_secs_f64()),
        };
        let access = if self.read_only { "read-only" } else { "read-write" };
        let locks = if self.locks { "group-wide" } else { "this machine only" };
        format!("{access} · {consistency} · {patience} · locks: {locks}")
    }
}

/// The known options as a list for help and error messages.
pub fn known_options() -> String {
    KNOWN.iter().map(|(name, help)| format!("  {name:<28} {help}\n")).collect()
}

/// Options as they are read; `soft`, `timeo` and `actimeo` come in any order.
#[derive(Default)]
struct Draft {
    options: MountOptions,
    strict: bool,
    nocto: bool,
    soft: bool,
    timeo: Option<Duration>,
    ttl: Option<Duration>,
}

impl Draft {
    fn take(&mut self, option: &str) -> Outcome {
        let o = &mut self.options;
        match option {
            "" => {}
            "ro" => o.read_only = true,
            "rw" => o.read_only = false,
            "strict" => self.strict = true,
            "close-to-open" => self.strict = false,
            "cto" => self.nocto = false,
            "nocto" => self.nocto = true,
            "hard" => self.soft = false,
            "soft" => self.soft = true,
            "allow_other" => o.allow_other = Some(true),
            "noallow_other" => o.allow_other = Some(false),
            "suid" => o.suid = true,
            "nosuid" => o.suid = false,
            "dev" => o.dev = true,
            "nodev" => o.dev = false,
            "exec" => o.exec = true,
            "noexec" => o.exec = false,
            "lock" => o.locks = true,
            "nolock" => o.locks = false,
            _ if ignored(option) => {}
            _ => self.take_value(option)?,
        }
        Ok(())
    }

    fn take_value(&mut self, option: &str) -> Outcome {
        match option.split_once('=') {
            Some(("timeo", value)) => {
                let deciseconds = number(option, value, 1, u32::MAX)?;
                self.timeo = Some(Duration::from_millis(u64::from(deciseconds) * 100));
            }
            Some(("actimeo", value)) => {
                self.ttl =
                    Some(Duration::from_secs(number(option, value, 0, MAX_TTL_SECONDS)?.into()));
            }
            _ => return Err(unknown(option)),
        }
        Ok(())
    }

    fn finish(self) -> MountOptions {
        let consistency = match self.strict {
            true => Consistency::Strict,
            false => Consistency::CloseToOpen {
                ttl: self.ttl.unwrap_or(DEFAULT_TTL),
                at_open: !self.nocto,
            },
        };
        let patience = match self.soft {
            true => Patience::Soft(self.timeo.unwrap_or(DEFAULT_TIMEO)),
            false => Patience::Hard,
        };
        MountOptions { consistency, patience, ..self.options }
    }
}

fn ignored(option: &str) -> bool {
    IGNORED.contains(&option) || IGNORED_PREFIXES.iter().any(|prefix| option.starts_with(prefix))
}

fn number(option: &str, value: &str, least: u32, most: u32) -> Outcome<u32> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => {
            let why = format!("'{value}' is not a whole number from {least} to {most}");
            Err(Failure::new(format!("cannot use mount option '{option}'"), why)
                .advise("write for example timeo=600 (60 seconds) or actimeo=1 (1 second)")
                .exit(Exit::Usage))
        }
    }
}

fn unknown(option: &str) -> Failure {
    Failure::new(format!("cannot use mount option '{option}'"), "it is not known")
        .advise(format!(
            "one of these (generic fstab options are accepted and ignored):\n{}",
            known_options()
        ))
        .exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> MountOptions {
        MountOptions::parse([list]).expect(list)
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(MountOptions::parse([]).unwrap(), MountOptions::default());
        assert_eq!(parse(",,"), MountOptions::default());
        assert_eq!(parse("defaults"), MountOptions::default());
    }

    #[test]
    fn what_fstab_and_systemd_pass_is_accepted_and_dropped() {
        let fstab = "rw,relatime,_netdev,nofail,noauto,user,x-systemd.automount,\
                     x-systemd.device-timeout=10s,x-systemd.requires=network-online.target,comment=home,X-mount.mkdir";
        assert_eq!(parse(fstab), MountOptions::default());
    }

    #[test]
    fn every_ignored_option_parses_and_changes_nothing() {
        for option in IGNORED {
            assert_eq!(parse(option), MountOptions::default(), "{option}");
        }
    }

    #[test]
    fn the_later_of_two_that_contradict_holds() {
        assert!(parse("rw,ro").read_only);
        assert!(!parse("ro,rw").read_only);
        assert!(parse("nosuid,suid").suid);
        assert!(!parse("dev,nodev").dev);
        assert!(!parse("exec,noexec").exec);
        assert!(parse("nolock,lock").locks && !parse("lock,nolock").locks);
        assert_eq!(parse("strict,close-to-open"), MountOptions::default());
        assert_eq!(parse("allow_other,noallow_other").allow_other, Some(false));
        assert!(MountOptions::parse(["rw", "ro"]).unwrap().read_only);
    }

    #[test]
    fn timeo_counts_tenths_of_a_second_and_only_soft_uses_it() {
        assert_eq!(parse("timeo=15,soft").patience, Patience::Soft(Duration::from_millis(1500)));
        assert_eq!(parse("soft").patience, Patience::Soft(DEFAULT_TIMEO));
        assert_eq!(parse("soft,timeo=15,hard").patience, Patience::Hard);
        assert_eq!(parse("timeo=15").patience, Patience::Hard);
    }

    #[test]
    fn strict_trusts_no_cache_whatever_actimeo_says() {
        assert_eq!(parse("strict,actimeo=30").ttl(), Duration::ZERO);
        assert_eq!(parse("actimeo=30").ttl(), Duration::from_secs(30));
        assert_eq!(parse("").ttl(), Duration::from_secs(1));
    }

    #[test]
    fn an_unknown_option_is_named_and_the_known_ones_listed() {
        for wrong in ["sttrict", "timeo", "rsize=4096", "ro=1", "remount"] {
            let failure = MountOptions::parse([wrong]).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(&format!("'{wrong}'")), "{failure}");
            assert!(failure.to_string().contains("close-to-open"), "{failure}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused() {
        for wrong in ["timeo=0", "timeo=-1", "timeo=1.5", "timeo=", "actimeo=x", "actimeo=86401"] {
            let failure = MountOptions::parse([wrong]).unwrap_err();
            assert!(failure.message.contains(wrong), "{failure}");
        }
    }

    #[test]
    fn root_shares_by_default_and_others_do_not() {
        assert_eq!(parse("").fuse_config("x", true).acl, SessionACL::All);
        assert_eq!(parse("").fuse_config("x", false).acl, SessionACL::Owner);
        assert_eq!(parse("allow_other").fuse_config("x", false).acl, SessionACL::All);
        assert_eq!(parse("noallow_other").fuse_config("x", true).acl, SessionACL::Owner);
    }

    #[test]
    fn the_kernel_always_checks_permissions_too() {
        let config = parse("ro,suid").fuse_config("bfs:1234-5678", true);
        for option in [
            MountOption::DefaultPermissions,
            MountOption::RO,
            MountOption::Suid,
            MountOption::NoDev,
            MountOption::FSName("bfs:1234-5678".into()),
        ] {
            assert!(config.mount_options.contains(&option), "{option:?}");
        }
    }
}
