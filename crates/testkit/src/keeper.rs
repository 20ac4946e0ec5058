//! Children that die with the test process, even when it is killed. Linux sends a parent-death signal when the *thread* that forked ends, and test
//! threads end all the time; so one thread, which lives as long as the process, starts all children.

use nix::sys::{prctl, signal::Signal};
use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{
        Mutex, OnceLock, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};

type Job = Box<dyn FnOnce() + Send>;

/// Starts the command on the keeper's thread; SIGKILL reaches it when this process ends.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    #[expect(
        unsafe_code,
        reason = "prctl between fork and exec: one system call, async-signal-safe, no memory touched"
    )]
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    let (answer, answered) = sync_channel(1);
    let job: Job = Box::new(move || {
        let _ = answer.send(command.spawn());
    });
    let gone = || io::Error::other("the keeper's thread is gone");
    keeper().lock().unwrap_or_else(PoisonError::into_inner).send(job).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn keeper() -> &'static Mutex<SyncSender<Job>> {
    static KEEPER: OnceLock<Mutex<SyncSender<Job>>> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let (send, receive) = sync_channel::<Job>(64);
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || receive.iter().for_each(|job| job()))
            .expect("a thread can be started");
        Mutex::new(send)
    })
}
