//! Ctrl-C and SIGTERM: long commands look at the flag between their steps and end in order. The sandbox is left as it is.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// From now on a signal sets the flag and no longer ends the process. A second one ends it at once.
pub(crate) fn watch() -> Result<()> {
    ctrlc::set_handler(|| {
        if ASKED_TO_END.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("cannot watch for Ctrl-C")
}

pub(crate) fn asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::SeqCst)
}

/// Errors if somebody has asked to end.
pub(crate) fn check() -> Result<()> {
    if asked_to_end() {
        bail!("interrupted");
    }
    Ok(())
}
