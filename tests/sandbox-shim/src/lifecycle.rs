//! The three ways in which this program runs: `start` and `delete`, which containerd calls and which end at
//! once, and `serve`, the process that `start` leaves behind.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::SystemTime,
};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::{Message, MessageField};

use crate::{Args, agent::Agent, container, flavour::Flavour, monitor::Monitor, service, spec::Spec};

/// Where containerd's own shims have their sockets, whatever its `state` directory is.
const SOCKETS: &str = "/run/containerd/s";

/// One socket for each sandbox of each containerd.
fn socket_path(args: &Args, sandbox: &str) -> PathBuf {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &args.address, &args.namespace, sandbox).hash(&mut hasher);
        hasher.finish()
    };
    Path::new(SOCKETS).join(format!("{:016x}{:016x}", half(0), half(1)))
}

/// Prints the address of the sandbox's shim, starting that shim first unless the container belongs to a
/// sandbox that has one.
///
/// A bare address is what every containerd from 1.6 to 2.1 understands, as task service v2 over ttrpc. Kata's
/// shims print the same.
pub fn start(args: &Args) -> io::Result<()> {
    let bundle = env::current_dir()?;
    let spec = Spec::read_or_managed(&bundle)?;
    let sandbox = spec.sandbox_id().unwrap_or(&args.id);
    let socket = socket_path(args, sandbox);
    if sandbox == args.id {
        spawn_server(args, &bundle, &socket)?;
    } else {
        UnixStream::connect(&socket)
            .map_err(|e| io::Error::new(e.kind(), format!("the shim of sandbox {sandbox}: {e}")))?;
    }
    let address = format!("unix://{}", socket.display());
    // Kata's Go shim writes this itself, so that it is there under containerd 2.x as well.
    fs::write("address", &address)?;
    println!("{address}");
    Ok(())
}

fn spawn_server(args: &Args, bundle: &Path, socket: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(SOCKETS)?;
    if UnixStream::connect(socket).is_ok() {
        return Err(io::Error::other(format!(
            "sandbox {} has a shim already",
            args.id
        )));
    }
    remove_file(socket)?;
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    // containerd reads the fifo `log` and passes on what it finds; open for both directions because
    // that never blocks, and never fails when the reader goes away.
    let log = match fs::File::options()
        .read(true)
        .write(true)
        .open(bundle.join("log"))
    {
        Ok(log) => Stdio::from(log),
        Err(_) => Stdio::null(),
    };
    Command::new(env::current_exe()?)
        .args([
            "-namespace",
            &args.namespace,
            "-id",
            &args.id,
            "-address",
            &args.address,
            "serve",
        ])
        .current_dir(bundle)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    Ok(())
}

/// Serves the sandbox in the working directory until its last container is deleted. Standard input is the
/// listening socket.
pub fn serve(args: &Args) -> io::Result<()> {
    let bundle = env::current_dir()?;
    let spec = Spec::read_or_managed(&bundle)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    // The containers' processes are started by runc, which ends: their exit is reported to this process.
    nix::sys::prctl::set_child_subreaper(true)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let socket = socket_path(args, &args.id);
    let outcome = runtime.block_on(async {
        let agent = Agent::of(&spec, Flavour::of(&spec).directory(&args.id)).map(Arc::new);
        let agent_url = match &agent {
            Some(agent) => agent.url(),
            None => format!("unix://{}", socket.display()),
        };
        let monitor = Monitor::start(&args.id, &bundle, &spec, agent_url, agent)?;
        let outcome = service::serve(listener, monitor.clone()).await;
        monitor.stop()?;
        outcome
    });
    remove_file(&socket)?;
    outcome
}

/// Clears away what a shim that was killed left behind; prints a `DeleteResponse` for containerd.
pub fn delete(args: &Args) -> io::Result<()> {
    let bundle = if args.bundle.is_empty() {
        env::current_dir()?
    } else {
        PathBuf::from(&args.bundle)
    };
    let pid = container::kill_leftover(&bundle, &args.id)?;
    if let Ok(spec) = Spec::read_or_managed(&bundle)
        && spec.sandbox_id().is_none()
    {
        remove_file(&socket_path(args, &args.id))?;
        remove_dir(&Flavour::of(&spec).directory(&args.id))?;
    }
    let response = DeleteResponse {
        pid: pid.unwrap_or(0),
        exit_status: 128 + 9,
        exited_at: MessageField::some(SystemTime::now().into()),
        ..Default::default()
    };
    io::stdout().write_all(&response.write_to_bytes().map_err(io::Error::other)?)
}

fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

/// Removes a directory and what is in it; one that is not there is as good as removed.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
