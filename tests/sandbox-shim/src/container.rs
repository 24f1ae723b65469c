//! One container: its process, run by `runc`, and the way from its start to its end.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::SystemTime,
};

use containerd_shim_protos::{api::CreateTaskRequest, types::mount::Mount};
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use tokio::{process::Command, sync::watch};

use crate::cgroup::Cgroup;

/// How a process ended: its exit status, or 128 and the number of the signal that ended it.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

pub struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub pid: u32,
    pub cgroup: Cgroup,
    started: Mutex<bool>,
    exit: watch::Sender<Option<Exit>>,
    /// Keeps the container's standard input open until `CloseIO`, whoever comes and goes at its other end.
    stdin_keeper: Mutex<Option<File>>,
    /// Keep the output fifos readable until the end, so that a container whose reader goes away does not
    /// get a SIGPIPE.
    output_keepers: Mutex<Vec<File>>,
}

impl Container {
    /// Mounts the root filesystem and has runc create the container, without starting it.
    pub async fn create(request: &CreateTaskRequest) -> io::Result<Self> {
        if request.terminal {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this shim has no terminals",
            ));
        }
        let bundle = PathBuf::from(&request.bundle);
        for mount in &request.rootfs {
            mount_rootfs(mount, &bundle.join("rootfs")).await?;
        }
        let (stdin, stdin_keeper) = open_fifo(&request.stdin, File::options().read(true))?;
        let (stdout, stdout_keeper) = open_fifo(&request.stdout, File::options().write(true))?;
        let (stderr, stderr_keeper) = open_fifo(&request.stderr, File::options().write(true))?;
        let mut command = runc(&bundle);
        command
            .arg("create")
            .arg("--bundle")
            .arg(&bundle)
            .arg("--pid-file")
            .arg(pid_file(&bundle));
        command
            .arg(&request.id)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        run(command, &bundle).await?;
        let pid = read_pid(&bundle)?;
        Ok(Self {
            id: request.id.clone(),
            cgroup: Cgroup::of(pid)?,
            bundle,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            pid,
            started: Mutex::new(false),
            exit: watch::Sender::new(None),
            stdin_keeper: Mutex::new(stdin_keeper),
            output_keepers: Mutex::new(stdout_keeper.into_iter().chain(stderr_keeper).collect()),
        })
    }

    pub async fn start(&self) -> io::Result<()> {
        let mut command = runc(&self.bundle);
        command.arg("start").arg(&self.id);
        run(command, &self.bundle).await?;
        *lock(&self.started) = true;
        Ok(())
    }

    pub async fn kill(&self, signal: u32, all: bool) -> io::Result<()> {
        let mut command = runc(&self.bundle);
        command.arg("kill");
        if all {
            command.arg("--all");
        }
        command.arg(&self.id).arg(signal.to_string());
        run(command, &self.bundle).await
    }

    /// Removes the container and its cgroup. The bundle is containerd's to remove.
    pub async fn delete(&self) -> io::Result<()> {
        let mut command = runc(&self.bundle);
        command.args(["delete", "--force"]).arg(&self.id);
        run(command, &self.bundle).await?;
        unmount_rootfs(&self.bundle)
    }

    pub fn close_stdin(&self) {
        *lock(&self.stdin_keeper) = None;
    }

    pub fn started(&self) -> bool {
        *lock(&self.started)
    }

    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until the container's process has ended.
    pub async fn wait(&self) -> io::Result<Exit> {
        let mut receiver = self.exit.subscribe();
        let exit = receiver
            .wait_for(Option::is_some)
            .await
            .map_err(io::Error::other)?;
        exit.ok_or_else(|| io::Error::other("the container went away"))
    }

    /// Collects the exit status if the process has just ended. Only this one process is waited for: runc's
    /// own processes are somebody else's to collect.
    pub fn reap(&self) -> bool {
        if self.exit().is_some() {
            return false;
        }
        let status = match waitpid(Pid::from_raw(self.pid.cast_signed()), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => code.cast_unsigned(),
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + (signal as i32).cast_unsigned(),
            _ => return false,
        };
        self.exit.send_replace(Some(Exit {
            status,
            at: SystemTime::now(),
        }));
        self.close_stdin();
        lock(&self.output_keepers).clear();
        true
    }
}

/// Ends what is left of a container whose shim was killed. Returns its process id, where one is recorded.
pub fn kill_leftover(bundle: &Path, id: &str) -> io::Result<Option<u32>> {
    let mut command = runc(bundle).into_std();
    command
        .args(["delete", "--force"])
        .arg(id)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // A container that runc does not know any more is what this is for: only the attempt matters.
    command.stderr(Stdio::null()).status()?;
    unmount_rootfs(bundle)?;
    Ok(read_pid(bundle).ok())
}

/// runc with its state inside the bundle, so that it goes with the bundle whatever happens to this shim.
fn runc(bundle: &Path) -> Command {
    let mut command = Command::new("runc");
    command
        .arg("--root")
        .arg(bundle.join("runc"))
        .arg("--log")
        .arg(bundle.join("runc.log"));
    command
}

async fn run(mut command: Command, bundle: &Path) -> io::Result<()> {
    if command.status().await?.success() {
        return Ok(());
    }
    let log = fs::read_to_string(bundle.join("runc.log")).unwrap_or_default();
    let reason = log.lines().last().unwrap_or("runc failed and did not say why");
    Err(io::Error::other(reason.to_owned()))
}

fn pid_file(bundle: &Path) -> PathBuf {
    bundle.join("init.pid")
}

fn read_pid(bundle: &Path) -> io::Result<u32> {
    fs::read_to_string(pid_file(bundle))?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

/// Opens a container's end of a fifo, and a second one that keeps the fifo alive. The second is opened first
/// and for both directions, which never blocks, so that opening the first does not block either.
fn open_fifo(path: &str, options: &fs::OpenOptions) -> io::Result<(Stdio, Option<File>)> {
    if path.is_empty() {
        return Ok((Stdio::null(), None));
    }
    if path.contains("://") {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("this shim cannot log to {path}"),
        ));
    }
    let keeper = File::options().read(true).write(true).open(path)?;
    Ok((Stdio::from(options.open(path)?), Some(keeper)))
}

async fn mount_rootfs(mount: &Mount, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let mut command = Command::new("mount");
    if mount.type_ != "bind" {
        command.arg("-t").arg(&mount.type_);
    }
    command
        .arg("-o")
        .arg(mount.options.join(","))
        .arg(&mount.source)
        .arg(target);
    let output = command.output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

fn unmount_rootfs(bundle: &Path) -> io::Result<()> {
    let rootfs = bundle.join("rootfs");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if mounts.lines().any(|line| {
        line.split(' ')
            .nth(1)
            .is_some_and(|target| Path::new(target) == rootfs)
    }) {
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&rootfs)
            .status()?;
    }
    Ok(())
}

/// The data is a flag or a handle that is replaced as a whole: a panic elsewhere cannot have left it half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
