"""Processes: started, watched, ended by their ids with this program, however that ends."""

import atexit
import ctypes
import os
import signal
import subprocess
import time

_libc = ctypes.CDLL(None, use_errno=True)
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_running = []


class Program:
    """A program that runs; what it says goes to a file."""

    def __init__(self, name, command, log, env=None):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(env or {})}, preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
        self.pid = self.process.pid
        _running.append(self)

    def check(self):
        """Fails where it has ended, with what it said last."""
        if self.process.poll() is not None:
            with open(self.log, "rb") as log:
                said = log.read()[-4000:].decode(errors="replace")
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{said}")

    def stop(self):
        if self in _running:
            _running.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def stop_all():
    while _running:
        _running[-1].stop()


atexit.register(stop_all)


def until(what, look, deadline=60):
    """What `look` gives, once it gives something; what it raises means: not yet."""
    end, last = time.monotonic() + deadline, None
    while time.monotonic() < end:
        for program in _running:
            program.check()
        try:
            found = look()
            if found:
                return found
            last = found
        except Exception as error:  # whatever is not ready says so in its own way
            last = error
        time.sleep(0.05)
    raise RuntimeError(f"{what}: not within {deadline} s; last: {last!r}")


def enter(namespace):
    """Brings the calling thread into a network namespace."""
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"enter {namespace}")
    finally:
        os.close(fd)


def used_s(stat):
    """Seconds of processor time of a process: of /proc/PID/stat. Its name may have blanks and brackets in it."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def busy_s(stat):
    """Seconds that all processors were busy, neither idle nor waiting for a disk: of /proc/stat."""
    user, nice, system, _idle, _wait, irq, softirq = map(int, stat.split("\n")[0].split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS


def resident_mib(status, what="VmRSS"):
    """Resident memory: of /proc/PID/status. RssAnon: what of it is no file's, as a program's own code is."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{what}:")) / 1024


def read(path):
    with open(path) as file:
        return file.read()


def used(pid):
    return used_s(read(f"/proc/{pid}/stat"))


def busy():
    return busy_s(read("/proc/stat"))


def others(seconds=2):
    """How many processors are busy, seen for a while in which this program does nothing."""
    before, began = busy(), time.monotonic()
    time.sleep(seconds)
    return (busy() - before) / (time.monotonic() - began)


def resident(pid, what="VmRSS"):
    return resident_mib(read(f"/proc/{pid}/status"), what)
