//! The view timer: how a backup comes to suspect the primary. [CL99 §4.4]
//!
//! The view change itself (VIEW-CHANGE, NEW-VIEW and the P/Q decision of [CL02 §4.4]) belongs in this file and is not
//! written yet: a replica whose timer expires says so in its HEALTH and goes on accepting its view's messages, so a group
//! survives f crashed or slow *backups*, and stalls, without losing anything, while its primary is away.

use super::Replica;
use crate::io::{Output, Timer};
use crate::service::Service;
use alloc::vec::Vec;

/// Runs while a request that everyone can check, or that the primary has pre-prepared, waits for execution.
#[derive(Clone, Debug, Default)]
pub(super) struct ViewTimer {
    armed: bool,
    expired: bool,
    /// Something executed since the timer was armed.
    progressed: bool,
}

impl ViewTimer {
    /// Execution is the only thing that clears a suspicion. (decision 3)
    pub fn progress(&mut self) {
        self.progressed = true;
        self.expired = false;
    }

    /// Whether a request waited longer than the view timeout and still does.
    pub fn expired(&self) -> bool {
        self.expired
    }
}

impl<S: Service> Replica<S> {
    /// Arms the timer when a request begins to wait, starts it afresh on progress, and stops it when nothing waits.
    pub(super) fn update_view_timer(&mut self, out: &mut Vec<Output>) {
        let waits = !self.is_primary() && (self.requests.any_timed() || self.is_under_way());
        let progressed = core::mem::take(&mut self.view_timer.progressed);
        if waits && (!self.view_timer.armed || progressed) {
            self.view_timer.armed = true;
            let at = self.now.tick.after(self.config.view_timeout);
            out.push(Output::SetTimer { timer: Timer::ViewChange, at });
        } else if !waits && self.view_timer.armed {
            self.view_timer.armed = false;
            out.push(Output::CancelTimer(Timer::ViewChange));
        }
    }

    /// Whether a batch is pre-prepared here that has not executed.
    fn is_under_way(&self) -> bool {
        let next = self.log.numbers().rev().take_while(|n| *n > self.executed);
        let mut entries = next.filter_map(|n| self.log.get(n));
        entries.any(|entry| entry.pre_prepare.is_some())
    }

    /// The primary has let a request wait for too long.
    pub(super) fn on_view_change_timeout(&mut self) {
        self.view_timer.armed = false;
        self.view_timer.expired = true;
    }
}
