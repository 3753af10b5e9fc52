//! Files that change by themselves: a deployment writes them, Kubernetes turns a symbolic link.
//!
//! They are looked at from time to time, through links, instead of being subscribed to: that works on every file system, costs a
//! `stat` for each file, and a folder that is replaced as a whole is no special case. A change is taken when it has stayed the
//! same from one look to the next, so that no half of a deployment is read; what is refused isn't tried again until it changes.

use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info};

use super::Reloader;
use crate::stamp::Stamp;
use crate::{config, rules, server};

/// Files and folders as they were at one time.
pub(super) type Files = Vec<(PathBuf, Stamp)>;

impl Reloader {
    /// Everything that is read at a reload and watched by nobody else: the configuration and the rules.
    pub(super) fn files(&self) -> Files {
        let mut paths = self.path.as_deref().map(config::files).unwrap_or_default();
        let folder = {
            let running = self.running.lock();
            server::rules_folder(&running.config, &self.home(&running.config))
        };
        paths.extend(rules::files_in(&folder).unwrap_or_default());
        paths.push(folder);
        paths.into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect()
    }

    /// Looks once; `last` is what the look before saw. Reads everything again if it has changed and stayed so.
    pub(super) fn look(&self, last: &mut Files) {
        let now = self.files();
        let is_settled = now != *self.judged.lock() && now == *last;
        *last = now;
        if is_settled {
            info!("files have changed: reading them again");
            // Whatever comes of it is told there.
            drop(self.apply_and_log());
        }
    }

    /// Looks from time to time for as long as somebody else keeps this, where the configuration says so.
    pub fn watch(self: &Arc<Self>) {
        let reloader = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut last = Files::new();
            loop {
                let Some(this) = reloader.upgrade() else { return };
                let config::Reload { watch, interval } = this.running.lock().config.reload.clone();
                if watch {
                    // Files may be slow.
                    let look = tokio::task::spawn_blocking(move || {
                        this.look(&mut last);
                        last
                    });
                    last = look.await.unwrap_or_else(|error| {
                        error!(%error, "the files of the configuration could not be looked at");
                        Files::new()
                    });
                } else {
                    drop(this);
                }
                tokio::time::sleep(interval.as_duration()).await;
            }
        });
    }
}
