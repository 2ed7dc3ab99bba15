//! Clients that come and go: the first client, the administrator, registers one that the group did not begin with, and
//! revokes another in the middle of its work.

use super::{Event, World};
use crate::crypto::Symbolic;
use crate::marks::Mark;
use crate::plan::Scenario;
use bft_core::client::ClientInput;
use bft_core::clients::{ClientIdentity, ClientsOp, ClientsReply};
use bft_core::messages::SessionId;
use bft_core::types::ClientId;
use fastrand::Rng;

/// The administrator's tokens beside those of its work.
const REGISTERING: u64 = u64::MAX;
const REVOKING: u64 = u64::MAX - 1;
/// Sets these draws apart from those of the rest of the world, which stay as they were.
const SALT: u64 = 0x7475_726e_6f76_6572;

/// Who comes and who goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turnover {
    /// The client that is registered once the administrator has a session.
    pub newcomer: Option<ClientId>,
    /// The client that is revoked, and when. Units: microseconds of virtual time.
    leaver: Option<(ClientId, u64)>,
    /// Whether the administrator has asked for it, and been told that it is so.
    revoking: bool,
    revoked: bool,
    /// How many of the administrator's requests have not been answered.
    pending: usize,
}

/// Who client `c` is.
pub(super) fn identity(c: u32) -> ClientIdentity {
    let mut link = [0; 32];
    link[..4].copy_from_slice(&c.to_le_bytes());
    let signing = Symbolic::public(1_000 + u64::from(c));
    ClientIdentity { name: format!("c{c}"), link, signing }
}

impl Turnover {
    /// Drawn for worlds of at least three clients with an honest administrator.
    pub fn draw(seed: u64, scenario: Scenario, honest: &[bool], heal_at: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ SALT);
        let drawn = matches!(scenario, Scenario::Swarm | Scenario::Leaning(_) | Scenario::Nfs);
        let mut turnover = Self::default();
        if !drawn || honest.len() < 3 || !honest[0] {
            return turnover;
        }
        let last = honest.len() - 1;
        if rng.u32(..3) == 0 && honest[last] {
            turnover.newcomer = Some(ClientId(last as u32));
            turnover.pending += 1;
        }
        if rng.u32(..3) == 0 && honest[1] {
            turnover.leaver = Some((ClientId(1), rng.u64(5_000..heal_at.max(5_001) * 2)));
            turnover.pending += 1;
        }
        turnover
    }

    /// The clients with whom the group begins, of `clients`.
    pub fn founders(&self, clients: u32) -> impl Iterator<Item = ClientIdentity> + use<> {
        let newcomer = self.newcomer;
        (0..clients).filter(move |c| newcomer != Some(ClientId(*c))).map(identity)
    }

    /// Whether the administrator has been answered.
    pub fn is_done(&self) -> bool {
        self.pending == 0
    }

    /// Whether `client`, which has no session now, will never have one again.
    pub fn is_gone(&self, client: ClientId, had_session: bool) -> bool {
        self.may_end(client) && (had_session || self.revoked)
    }

    /// Whether `client` may find that its session has ended.
    pub fn may_end(&self, client: ClientId) -> bool {
        self.revoking && self.leaver.is_some_and(|(leaver, _)| leaver == client)
    }
}

impl World {
    /// The administrator has a session.
    pub(super) fn begin_turnover(&mut self) {
        if let Some(newcomer) = self.turnover.newcomer {
            let op = ClientsOp::Register(identity(newcomer.0));
            self.client_input(0, ClientInput::AskOfClients { token: REGISTERING, op });
        }
        if let Some((_, at)) = self.turnover.leaver {
            self.schedule(at.saturating_sub(self.now), Event::Revoke);
        }
    }

    pub(super) fn revoke(&mut self) {
        let Some((leaver, _)) = self.turnover.leaver else { return };
        self.turnover.revoking = true;
        let op = ClientsOp::Revoke(leaver);
        self.client_input(0, ClientInput::AskOfClients { token: REVOKING, op });
    }

    /// Whether `token` was the administrator's: the group must have done what was asked.
    pub(super) fn turned_over(&mut self, c: usize, token: u64, result: &[u8]) -> bool {
        if c != 0 || !matches!(token, REGISTERING | REVOKING) {
            return false;
        }
        self.turnover.pending -= 1;
        let reply = ClientsReply::from_bytes(result);
        match (token, reply, self.turnover.newcomer) {
            (REGISTERING, Ok(ClientsReply::Registered(client)), Some(newcomer))
                if client == newcomer =>
            {
                self.report.marks.hit(Mark::ClientRegistered);
                let session = SessionId { epoch: 1, nonce: u64::from(client.0) };
                self.client_input(client.0 as usize, ClientInput::Open(session));
            }
            (REVOKING, Ok(ClientsReply::Revoked), _) => {
                self.turnover.revoked = true;
                self.report.marks.hit(Mark::ClientRevoked);
                // Who was told before the administrator, and had no session yet, hears nothing more.
                let leaver = self.turnover.leaver.map(|(leaver, _)| leaver.0 as usize);
                leaver.into_iter().for_each(|leaver| self.ask(leaver));
            }
            (_, other, _) => self.violation(format!("c0: the group answered {other:?}")),
        }
        true
    }
}
