//! Lies in VIEW-CHANGE and NEW-VIEW: B-24 to B-29, B-31 to B-34.

use super::{Adversary, Context};
use bft_core::auth::{checkpoint_signing_digest, new_view_digest, view_change_digest};
use bft_core::messages::{Claim, Message, NewView, Suspect, ViewChange};
use bft_core::types::{ClientId, Digest, Peer, SequenceNumber, View};

/// Signs `message` again, where it is signed and says that it is this replica's.
pub fn sign_again(ctx: &Context<'_>, message: &mut Message) {
    let group = ctx.group.group;
    match message {
        Message::ViewChange(m) if Peer::Replica(m.replica) == ctx.me => {
            m.signature = ctx.crypto.sign(&view_change_digest(group, m));
        }
        Message::NewView(m) => m.signature = ctx.crypto.sign(&new_view_digest(group, m)),
        Message::Checkpoint(m) if Peer::Replica(m.replica) == ctx.me => {
            let covered = checkpoint_signing_digest(group, m.n, &m.digest, m.replica);
            m.signature = ctx.crypto.sign(&covered);
        }
        _ => {}
    }
}

fn send_signed(ctx: &mut Context<'_>, to: Peer, mut message: Message) {
    sign_again(ctx, &mut message);
    ctx.send(to, message);
}

/// The highest view and the stable checkpoint that others speak of.
#[derive(Default)]
struct Sight {
    view: View,
    /// The newest VIEW-CHANGE of its own, whose checkpoint is proved.
    own: Option<ViewChange>,
}

impl Sight {
    fn note(&mut self, message: &Message) {
        match message {
            Message::PrePrepare(m) => self.view = self.view.max(m.view),
            Message::Status(m) => self.view = self.view.max(m.view),
            Message::ViewChange(m) => self.own = Some(m.clone()),
            _ => {}
        }
    }

    /// A VIEW-CHANGE for `view` that is well formed.
    fn view_change(&self, ctx: &Context<'_>, view: View) -> Option<ViewChange> {
        let Peer::Replica(replica) = ctx.me else { return None };
        let empty = ViewChange {
            view,
            stable: SequenceNumber(0),
            certificate: Vec::new(),
            prepared: Vec::new(),
            pre_prepared: Vec::new(),
            unauthenticated: Vec::new(),
            incarnation: 0,
            replica,
            signature: bft_core::auth::Signature([0; 64]),
        };
        Some(ViewChange { view, ..self.own.clone().unwrap_or(empty) })
    }
}

/// B-24, B-25: VIEW-CHANGEs that nothing calls for, for the next view or for views that nobody will reach.
#[derive(Default)]
pub struct Spurious {
    sight: Sight,
    far: bool,
}

impl Spurious {
    /// For the next view.
    pub fn near() -> Self {
        Self::default()
    }

    /// For views a thousand million ahead, and the last one there is.
    pub fn far() -> Self {
        Self { far: true, ..Self::default() }
    }
}

impl Adversary for Spurious {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        self.sight.note(&message);
        ctx.send(to, message);
    }

    fn on_tick(&mut self, ctx: &mut Context<'_>) {
        ctx.broadcast(&Message::Suspect(Suspect { view: self.sight.view }));
        let near = self.sight.view.next();
        let ahead = View(self.sight.view.0.saturating_add(1_000_000_000));
        let views = if self.far { vec![ahead, View(u64::MAX)] } else { vec![near] };
        for view in views {
            if let Some(m) = self.sight.view_change(ctx, view) {
                let mut message = Message::ViewChange(m);
                sign_again(ctx, &mut message);
                ctx.broadcast(&message);
            }
        }
    }
}

/// What is wrong with the VIEW-CHANGEs of a [`Liar`].
#[derive(Clone, Copy)]
pub enum Lie {
    /// B-26: batches that never prepared are claimed, those that did are left out.
    Claims,
    /// B-27: two claims for one sequence number; an older view with another digest.
    Twice,
    /// B-28: one entry that cannot be, among good ones.
    Masked,
    /// B-29: another VIEW-CHANGE for every receiver.
    Each,
    /// B-31: a checkpoint that nobody has proved, or one long past.
    Checkpoint,
}

/// A replica whose VIEW-CHANGEs are signed and false.
pub struct Liar(pub Lie);

impl Liar {
    fn distort(&self, ctx: &mut Context<'_>, to: Peer, m: &mut ViewChange) {
        let before = View(m.view.0.saturating_sub(1));
        let made_up =
            |n: SequenceNumber, byte: u8| Claim { n, digest: Digest([byte; 32]), view: before };
        let next = m.stable.next();
        match self.0 {
            Lie::Claims => {
                if ctx.rng.bool() {
                    m.prepared.clear();
                    m.pre_prepared.clear();
                }
                let from = m.prepared.len().min(2) as u64;
                m.prepared.truncate(from as usize);
                let start = m.prepared.last().map_or(next, |claim| claim.n.next());
                let room = ctx.group.window.min(4);
                m.prepared.extend((0..room).map(|k| made_up(start.plus(k), 0xbb)));
                m.prepared.retain(|claim| claim.n <= m.stable.plus(ctx.group.window));
                let claimed = m.prepared.clone();
                m.pre_prepared.retain(|known| claimed.iter().all(|claim| claim.n != known.n));
                m.pre_prepared.extend(claimed);
                m.pre_prepared.sort_by_key(|claim| (claim.n, claim.digest));
                m.pre_prepared.dedup_by_key(|claim| (claim.n, claim.digest));
            }
            Lie::Twice => {
                for claim in &mut m.prepared {
                    claim.view = View(claim.view.0.saturating_sub(1));
                    claim.digest = Digest([0xff; 32]);
                }
                if ctx.rng.bool() {
                    m.prepared.insert(0, made_up(next, 1));
                    m.prepared.insert(1, made_up(next, 2));
                }
            }
            Lie::Masked => {
                let beyond = m.stable.plus(ctx.group.window + 1);
                let future = Claim { view: m.view, ..made_up(next, 3) };
                let bad = if ctx.rng.bool() { made_up(beyond, 3) } else { future };
                m.prepared.push(bad);
            }
            Lie::Each => {
                if let Peer::Replica(i) = to {
                    let keep = m.prepared.len() * i.index() / ctx.group.size.n();
                    m.prepared.truncate(keep);
                    m.unauthenticated = vec![ClientId(i.0)];
                }
            }
            Lie::Checkpoint => {
                if ctx.rng.bool() {
                    m.stable = m.stable.plus(ctx.group.checkpoint_interval);
                    m.certificate.iter_mut().for_each(|signed| signed.n = m.stable);
                } else {
                    m.stable = SequenceNumber(0);
                    m.certificate.clear();
                }
                let (low, high) = (m.stable, m.stable.plus(ctx.group.window));
                m.prepared.retain(|claim| claim.n > low && claim.n <= high);
                m.pre_prepared.retain(|claim| claim.n > low && claim.n <= high);
            }
        }
    }
}

impl Adversary for Liar {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::ViewChange(mut m) if Peer::Replica(m.replica) == ctx.me => {
                self.distort(ctx, to, &mut m);
                send_signed(ctx, to, Message::ViewChange(m));
            }
            other => ctx.send(to, other),
        }
    }
}

/// B-32: a NEW-VIEW that does not follow from its VIEW-CHANGEs, and a different one for every backup.
pub struct WrongNewView;

impl WrongNewView {
    fn distort(ctx: &mut Context<'_>, m: &mut NewView) {
        match ctx.rng.u32(..6) {
            0 => drop(m.batches.pop()),
            1 => m.batches.push(Digest([5; 32])),
            2 => m.batches.iter_mut().for_each(|d| *d = bft_core::messages::null_request()),
            3 => drop(m.view_changes.pop()),
            4 => m.view_changes.iter_mut().take(1).for_each(|(_, d)| d.0[0] ^= 1),
            _ => m.stable = m.stable.plus(ctx.group.checkpoint_interval),
        }
    }
}

impl Adversary for WrongNewView {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let Message::NewView(mut m) = message else { return ctx.send(to, message) };
        if ctx.group.size.primary(m.view) == me(ctx) {
            Self::distort(ctx, &mut m);
        }
        send_signed(ctx, to, Message::NewView(m.clone()));
        Self::distort(ctx, &mut m);
        send_signed(ctx, to, Message::NewView(m));
    }
}

fn me(ctx: &Context<'_>) -> bft_core::types::ReplicaId {
    match ctx.me {
        Peer::Replica(i) => i,
        Peer::Client(_) => bft_core::types::ReplicaId(u32::MAX),
    }
}

/// B-33: never begins the view that it is to lead.
pub struct NoNewView;

impl Adversary for NoNewView {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        if !matches!(message, Message::NewView(_) | Message::PrePrepare(_)) {
            ctx.send(to, message);
        }
    }
}

/// B-34: begins its view at the last moment and then orders nothing.
pub struct JustInTime;

impl Adversary for JustInTime {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        match message {
            Message::NewView(_) => ctx.send_after(ctx.group.view_timeout * 9 / 10, to, message),
            Message::PrePrepare(_) => {}
            other => ctx.send(to, other),
        }
    }
}
