//! The tasks of a running agent.

use tokio::task::JoinHandle;
use tombolo_runtime::task;

/// The tasks of a running agent; they end with it.
pub(super) struct Tasks(pub(super) Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, task::spawn(name, work)));
    }

    /// Waits until one ends, which none should.
    pub(super) async fn first_end(&mut self) {
        let all = self.0.iter_mut().map(|(_, handle)| handle);
        let (_, which, _) = futures::future::select_all(all).await;
        let name = self.0.get(which).map_or("", |(name, _)| name);
        tracing::error!(task.name = name, "a part of the agent ended; the agent ends, to be started again");
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, handle)| handle.abort());
    }
}
