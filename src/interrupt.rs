//! What Ctrl-C does to a stream.

/// From now on Ctrl-C ends the program with status 0: a stream has given its answer when the user has seen enough. It
/// ends at once, even while it waits for a reader that does not read.
pub fn ends_quietly() {
    extern "C" fn end(_signal: libc::c_int) {
        // SAFETY: _exit may be called in a signal handler. Events are flushed as they are written.
        unsafe { libc::_exit(0) }
    }
    // SAFETY: the handler does nothing but what a handler may do. That it cannot be set is not to be expected,
    // and would leave the usual effect of Ctrl-C.
    unsafe {
        libc::signal(
            libc::SIGINT,
            end as extern "C" fn(libc::c_int) as libc::sighandler_t,
        );
    }
}
