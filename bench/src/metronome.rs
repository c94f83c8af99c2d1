//! A clock that ticks more finely than the millisecond of the runtime's timers: at 5,000 requests a second one is due every 0.2 ms.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

pub struct Metronome {
    /// A timer of the kernel. It is read as a pipe is: eight bytes a read, when there is something to read. What tokio has for other descriptors asks for
    /// unsafe code.
    timer: Receiver,
}

impl Metronome {
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no timer.
    pub fn every(period: Duration) -> Result<Self> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).context("cannot make a timer")?;
        timer.set(Expiration::Interval(TimeSpec::from_duration(period)), TimerSetTimeFlags::empty()).context("cannot start the timer")?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(OwnedFd::from(timer)).context("cannot wait for the timer")? })
    }

    /// Returns at the next tick, or at once if ticks have passed since the last call.
    ///
    /// # Errors
    /// When the timer cannot be read.
    pub async fn tick(&mut self) -> Result<()> {
        // How many ticks have passed; nobody needs to know.
        self.timer.read_u64().await.context("cannot read the timer")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_metronome_never_ticks_early() {
        let mut metronome = Metronome::every(Duration::from_micros(500)).unwrap();
        let began = Instant::now();
        for _ in 0..4 {
            metronome.tick().await.unwrap();
        }
        // The first tick may have come before the clock was read; three whole periods remain.
        assert!(began.elapsed() >= Duration::from_micros(1_500), "{:?}", began.elapsed());
    }
}
