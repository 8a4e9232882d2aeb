//! Signals that ask the process to end.

use tokio::sync::watch;

/// Waits until the process was asked to end so many times: by Ctrl-C (SIGINT) or SIGTERM.
pub(super) async fn asked_to_end(times: usize) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let terminated = signal(SignalKind::terminate());
        let interrupted = signal(SignalKind::interrupt());
        if let (Ok(mut terminated), Ok(mut interrupted)) = (terminated, interrupted) {
            for _ in 0..times {
                tokio::select! {
                    _ = terminated.recv() => {}
                    _ = interrupted.recv() => {}
                }
            }
            return;
        }
    }
    for _ in 0..times {
        if tokio::signal::ctrl_c().await.is_err() {
            // Nobody can ask.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the process was asked to end, for work that ends by itself between two steps.
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on.
    pub(super) fn listen() -> Self {
        let (asked, receiver) = watch::channel(false);
        tokio::spawn(async move {
            asked_to_end(1).await;
            asked.send_replace(true);
            // The channel stays open.
            std::future::pending::<()>().await;
        });
        Self(receiver)
    }

    /// Holds `true` once it was.
    pub(super) fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }

    pub(super) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub(super) async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
