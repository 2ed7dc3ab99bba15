//! A network of its own for this process, and what a guest's network card hangs on.

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

/// Where servers listen, as guests see it.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Moves this process, and whatever it starts from now on, into an empty network with a loopback. It ends with the last of
/// them, so nothing can be left behind, and nobody outside can reach what listens in it.
///
/// Requires: this process has only one thread; those that it has already would stay outside.
/// Errors: this is not root, or the system has no network namespaces. [unshare(2)]
pub fn make_private() -> Result<()> {
    if !geteuid().is_root() {
        bail!("only root may make a network of its own and mount in it\n  try: sudo ./x …");
    }
    unshare(CloneFlags::CLONE_NEWNET).context(
        "the system gives this process no network namespace\n  try: run it in a virtual machine, or in a container with CAP_SYS_ADMIN",
    )?;
    ip(&["link", "set", "lo", "up"])
}

/// Why this process may have no network of its own with guests on it; nothing if it may.
///
/// Effects: none; it is tried in another process.
pub fn forbidden() -> Option<String> {
    if !geteuid().is_root() {
        return Some("only root may make a network of its own and mount in it".to_owned());
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        return Some(format!("/dev/net/tun: {error}"));
    }
    let script = "ip link set lo up && ip tuntap add tap0 mode tap";
    let tried = Command::new("unshare").args(["--net", "sh", "-c", script]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// One guest's cable: a network of two addresses, the guest's and this side's.
#[derive(Clone, Copy)]
pub struct Cable {
    number: u8,
}

impl Cable {
    /// Lays cable number `number`; number 0 has the address at which servers listen.
    ///
    /// Errors: there is no /dev/net/tun, or the number is taken.
    pub fn lay(number: u8) -> Result<Self> {
        let cable = Self { number };
        let (device, address) = (cable.device(), format!("{}/24", cable.gateway()));
        ip(&["tuntap", "add", &device, "mode", "tap"])?;
        ip(&["address", "add", &address, "dev", &device])?;
        ip(&["link", "set", &device, "mtu", "9000", "up"])?;
        Ok(cable)
    }

    /// The device on this side.
    pub fn device(self) -> String {
        format!("tap{}", self.number)
    }

    /// This side's address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 1)
    }

    /// The guest's address.
    pub fn guest(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 2)
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output();
    let output = output.context("cannot run ip\n  try: apt-get install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
