//! The driver of every client.

use super::{World, wire::encoded};
use crate::lean::Lean;
use crate::marks::Mark;
use crate::network::Address;
use crate::plan::{SUSTAINED_FROM, Scenario};
use bft_core::auth::Credential;
use bft_core::client::{ClientError, ClientInput, ClientOutput};
use bft_core::codec;
use bft_core::messages::{Message, Operation, SessionId};
use bft_core::types::{ClientId, Peer, ReplicaId, Tick};
use bytes::Bytes;

use super::Event;

impl World {
    pub(super) fn deliver_to_client(&mut self, from: Address, c: usize, bytes: &[u8]) {
        let Ok(message) = codec::decode(bytes) else {
            if self.is_honest(from) {
                self.violation("I-14: a replica sent what does not decode".into());
            }
            return;
        };
        let Peer::Replica(from) = self.peer(from) else { return };
        let address = self.nodes.len() + c;
        if self.clients[c].evil.is_some() {
            let peer = Peer::Replica(from);
            let seen =
                self.with_evil(address, |evil, ctx| evil.adversary.on_receive(ctx, peer, &message));
            if seen == Some(false) {
                return;
            }
        }
        self.watch_answer(&message);
        self.clients[c].certificates.note(from, &message);
        self.client_input(c, ClientInput::Message(from, message));
    }

    pub(super) fn client_input(&mut self, c: usize, input: ClientInput) {
        let mut outputs = Vec::new();
        self.clients[c].client.handle(Tick(self.now), input, &mut outputs);
        for output in outputs {
            match output {
                ClientOutput::Send { to, message } => self.send_from_client(c, &[to], &message),
                ClientOutput::Broadcast(message) => {
                    let all: Vec<_> = self.size.replicas().collect();
                    self.send_from_client(c, &all, &message);
                }
                ClientOutput::SetTimer(at) => {
                    self.clients[c].timer = Some(at);
                    let delay = at.0.saturating_sub(self.now);
                    self.schedule(delay, Event::ClientTimer { client: c, at });
                }
                ClientOutput::Opened => self.opened(c),
                ClientOutput::Refused { epoch } if self.clients[c].evil.is_none() => {
                    self.violation(format!("c{c}: a fresh session was refused, epoch {epoch}"));
                }
                ClientOutput::Refused { .. } => {}
                ClientOutput::Done { token, result } => self.answered(c, token, result),
            }
        }
        self.ask(c);
    }

    /// I-16: only a faulty replica is ever outvoted, at an honest client.
    pub(super) fn check_outvoted(&mut self, c: usize) {
        let outvoted = self.clients[c].client.outvoted();
        let of = |i: usize| outvoted.get(self.nodes[i].id.index()).is_some_and(|count| *count > 0);
        let wrong = (0..self.nodes.len())
            .find(|i| of(*i) && !self.nodes[*i].lied && self.is_correct(self.nodes[*i].id));
        if let Some(i) = wrong.filter(|_| self.clients[c].evil.is_none()) {
            self.violation(format!("I-16: c{c} has outvoted the correct r{i}"));
        }
    }

    fn send_from_client(&mut self, c: usize, to: &[ReplicaId], message: &Message) {
        self.note(format_args!("c{c} -> {to:?} {message}"));
        let address = self.nodes.len() + c;
        if let Message::Read(m) = message
            && self.clients[c].evil.is_none()
        {
            let found = self.clients[c].certificates.on_read(m);
            self.check(found);
        }
        if let Message::Request(m) = message {
            let signed = matches!(m.credential, Credential::Signature(_));
            self.report.marks.hit_if(signed && m.request.seq > 0, Mark::SignedRequest);
            let read = matches!(&m.request.operation, Operation::Service(op) if self.clients[c].workload.is_read(op));
            self.report.marks.hit_if(read, Mark::OrderedRead);
            if self.clients[c].evil.is_none() {
                self.oracle.on_asked(m.request.digest());
            }
        }
        if self.clients[c].evil.is_some() {
            for to in to {
                let to = Peer::Replica(*to);
                self.with_evil(address, |evil, ctx| {
                    evil.adversary.on_send(ctx, to, message.clone());
                });
            }
            return;
        }
        let bytes = encoded(message);
        for to in to {
            self.carry(address, Peer::Replica(*to), &bytes, 0);
        }
    }

    /// Its session is open; in some worlds it begins another at once.
    fn opened(&mut self, c: usize) {
        self.clients[c].sessions += 1;
        let last =
            if self.plan.scenario == Scenario::Leaning(Lean::SecondSessions) { 2 } else { 1 };
        if self.clients[c].sessions < last {
            let session = SessionId { epoch: 2, nonce: self.rng.u64(..) };
            self.client_input(c, ClientInput::Open(session));
        } else if c == 0 && self.clients[c].sessions == last {
            self.begin_turnover();
        }
    }

    fn answered(&mut self, c: usize, token: u64, result: Result<Bytes, ClientError>) {
        let honest = self.clients[c].evil.is_none();
        let Ok(result) = result else {
            if honest && !self.turnover.may_end(ClientId(c as u32)) {
                self.violation(format!("c{c}: its only session was ended"));
            }
            return;
        };
        self.note(format_args!("c{c} done {token}"));
        if self.turned_over(c, token, &result) {
            return;
        }
        let Some(invocation) = self.clients[c].workload.answered(token, &result) else {
            if honest {
                self.violation(format!("I-4x: c{c} was answered twice for {token}"));
            }
            return;
        };
        if honest {
            let found = self.clients[c].certificates.check(&result);
            self.check(found);
            let counts = self.healed.is_none() || self.costs.is_none();
            self.report.answers += u64::from(counts);
            self.report.sustained += u64::from(counts && self.now >= SUSTAINED_FROM);
            let events = self.report.events;
            self.oracle.on_answer(ClientId(c as u32), invocation, result, events);
        }
    }

    pub(super) fn ask(&mut self, c: usize) {
        let asked = self.report.events;
        let node = &mut self.clients[c];
        if !node.client.is_open() {
            if self.turnover.is_gone(ClientId(c as u32), node.sessions > 0) {
                node.workload.give_up();
            }
            return;
        }
        if let Some((token, op, read_only)) = node.workload.next(&mut self.rng, asked) {
            self.client_input(c, ClientInput::Submit { token, op, read_only });
        }
    }
}
